"""One action from a camera's 480x640 frame, batch 1: the engines of a policy against each other.

``end to end`` begins with the uint8 frame on the host and ends with the action in raw units. Engines get the
checkpoint's own pixels (Pillow's resize); those called ``_resize`` run the exported file with the resize inside it.
``preprocessing`` is the frame's part alone; ``search`` is N = 50 candidates beside one and the mean action, all eager.
"""

from __future__ import annotations

import functools
import importlib.util
from collections.abc import Callable
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from benchmarks.harness import compare
from ptr_fast.config import ActConfig, CqlConfig, EncoderConfig, PolicySpec, TaskTable
from ptr_fast.nets.build import make_actor, make_critic
from ptr_fast.resize import resize
from ptr_fast.runtime.engine import BOUND, make_engine, native_executor
from ptr_fast.runtime.export import to_onnx
from ptr_fast.runtime.graph import ActingGraph, search_noise
from ptr_fast.runtime.preprocess import GraphResize
from ptr_fast.types import ActionSpec, CameraSpec, StateSpec

CAMERA = (480, 640)
# name -> (encoder, pixels, rounds)
NETS = {
    "conv3": (EncoderConfig(name="conv3", num_filters=16), 64, 25),
    "resnet18": (EncoderConfig(name="resnet18"), 128, 9),
    "resnet34": (EncoderConfig(name="resnet34"), 128, 7),
    "resnet50": (EncoderConfig(name="resnet50"), 128, 5),
}
ENGINES = ("openvino", "onnxruntime", "compile", "eager")
AXES = ("x", "y", "z", "roll", "pitch", "yaw", "gripper")


def _spec(pixels: int) -> PolicySpec:
    names = {"names": AXES, "units": ("1",) * 7}
    return PolicySpec(
        camera=CameraSpec(name="image_0", height=pixels, width=pixels),
        state=StateSpec(**names),
        action=ActionSpec(**names, low=(-1.0,) * 7, high=(1.0,) * 7),
        tasks=TaskTable(names=("task",), num_slots=64),
        control_hz=5.0,
    )


@functools.cache
def _net(name: str) -> SimpleNamespace:
    encoder, pixels, num_rounds = NETS[name]
    spec, config = _spec(pixels), CqlConfig(encoder=encoder)
    actor, critic = make_actor(config, spec).eval(), make_critic(config, spec).eval()
    for module in (actor, critic):
        module.requires_grad_(False)
    return SimpleNamespace(spec=spec, actor=actor, critic=critic, pixels=pixels, rounds=num_rounds)


def _observation() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    rng = np.random.default_rng(0)
    coarse = rng.integers(0, 256, (12, 16, 3), dtype=np.uint8)  # smooth, as a picture is
    return resize(coarse, *CAMERA), rng.normal(size=7).astype(np.float32), np.zeros(1, np.int64)


@pytest.mark.skipif(importlib.util.find_spec("openvino") is None, reason="the extra 'export' is not installed")
@pytest.mark.parametrize("name", NETS)
def test_act(name: str) -> None:
    torch.set_num_threads(1)
    net = _net(name)
    frame, state, task = _observation()
    own = ActingGraph(net.actor, None, net.spec, ActConfig(), (net.pixels, net.pixels))
    whole = ActingGraph(net.actor, None, net.spec, ActConfig(), CAMERA)
    model, whole_model = to_onnx(own, net.spec, {}), to_onnx(whole, net.spec, {})
    made = {engine: make_engine(engine, own, lambda: model)[1] for engine in ENGINES}
    executor = native_executor(own, model)

    def fitted(engine) -> Callable[[], np.ndarray]:
        return lambda: engine.run(resize(frame, net.pixels, net.pixels), state, task)

    variants = {engine: fitted(made[engine]) for engine in ENGINES}
    variants["openvino_native"] = lambda: executor.run(resize(frame, net.pixels, net.pixels), state, 7)
    for engine in ("openvino", "onnxruntime"):
        inside = make_engine(engine, whole, lambda: whole_model)[1]
        variants[f"{engine}_resize"] = functools.partial(inside.run, frame, state, task)

    def gate() -> None:
        expected = variants["eager"]()
        for variant, run in variants.items():
            allowed = 0.01 if variant.endswith("resize") else BOUND
            assert np.abs(run() - expected).max() <= allowed, variant

    compare("act", f"{name} {net.pixels} px, end to end", variants, gate, num_rounds=net.rounds)


@pytest.mark.parametrize("pixels", [64, 128])
def test_preprocessing(pixels: int) -> None:
    torch.set_num_threads(1)
    frame, *_ = _observation()
    camera = _spec(pixels).camera
    graph = GraphResize(*CAMERA, camera)

    def ours() -> torch.Tensor:
        return torch.from_numpy(resize(frame, pixels, pixels).copy()).permute(2, 0, 1)[None].to(torch.float32).div_(255)

    def products() -> torch.Tensor:
        with torch.inference_mode():
            return graph(torch.from_numpy(frame))

    def antialiased() -> torch.Tensor:
        """torch's own antialiased resize (bicubic: it has no Lanczos)."""
        planes = torch.from_numpy(frame).permute(2, 0, 1)[None]
        size = (pixels, pixels)
        return torch.nn.functional.interpolate(planes, size, mode="bicubic", antialias=True).to(torch.float32).div_(255)

    def gate() -> None:
        assert (ours() - products()).abs().max() <= 1.01 / 255

    variants = {"pillow": ours, "two_products": products, "torch_bicubic": antialiased}
    compare("act_preprocessing", f"preprocessing alone to {pixels} px", variants, gate, num_rounds=25)


@pytest.mark.parametrize("name", ["conv3", "resnet18"])
def test_search(name: str) -> None:
    torch.set_num_threads(1)
    net = _net(name)
    frame, state, task = _observation()
    small = resize(frame, net.pixels, net.pixels)
    size = (net.pixels, net.pixels)

    def search(num_candidates: int) -> Callable[[], np.ndarray]:
        act = ActConfig(mode="search", num_candidates=num_candidates)
        graph = ActingGraph(net.actor, net.critic, net.spec, act, size)
        noise = search_noise(0, num_candidates, 7)[0].numpy()
        engine = make_engine("eager", graph, bytes)[1]
        return lambda: engine.run(small, state, task, noise)

    mean = make_engine("eager", ActingGraph(net.actor, None, net.spec, ActConfig(), size), bytes)[1]
    variants = {"search_50": search(50), "search_1": search(1), "mean": lambda: mean.run(small, state, task)}

    def gate() -> None:
        assert all(np.isfinite(run()).all() for run in variants.values())

    compare("act_search", f"{name} {net.pixels} px, search", variants, gate, num_rounds=net.rounds)
