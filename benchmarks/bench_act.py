"""One action from a camera's 480x640 frame, batch 1: the engines of a policy against each other.

``end to end`` begins with the uint8 frame on the host and ends with the action in raw units. Engines get pixels of our
resize; ``_pillow`` has Pillow's, as without this package, and ``_resize_inside`` runs the exported file with the resize
in its graph. ``preprocessing`` is the frame's part alone, to float32 in [0, 1]; Pillow-SIMD, which cannot live in one
process with Pillow, takes part where ``PTR_FAST_PILLOW_SIMD`` names the folder that it was installed into.
"""

from __future__ import annotations

import contextlib
import functools
import importlib.util
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from benchmarks.harness import Milliseconds, compare
from ptr_fast.config import ActConfig, CqlConfig, EncoderConfig, PolicySpec, TaskTable
from ptr_fast.learners.acting import ModeActing
from ptr_fast.learners.cql.networks import SearchActing, make_actor, make_critic
from ptr_fast.resize import resize
from ptr_fast.runtime.engine import BOUND, OnnxRuntimeEngine, OpenVinoEngine, make_engine, native_executor
from ptr_fast.runtime.export import to_onnx
from ptr_fast.runtime.graph import ActingGraph, noise_for
from ptr_fast.runtime.int8 import to_int8
from ptr_fast.runtime.preprocess import GraphResize
from ptr_fast.types import ActionSpec, CameraSpec, StateSpec

CAMERA = (480, 640)
CAMERAS = {"image_0": CAMERA}
# name -> (encoder, pixels, rounds)
NETS = {
    "conv3": (EncoderConfig(name="conv3", num_filters=16), 64, 25),
    "resnet18": (EncoderConfig(name="resnet18"), 128, 9),
    "resnet34": (EncoderConfig(name="resnet34"), 128, 7),
    "resnet50": (EncoderConfig(name="resnet50"), 128, 5),
}
ENGINES = ("onnxruntime", "openvino", "compile", "eager")  # the first is what `auto` takes
AXES = ("x", "y", "z", "roll", "pitch", "yaw", "gripper")


def _spec(pixels: int) -> PolicySpec:
    names = {"names": AXES, "units": ("1",) * 7}
    return PolicySpec(
        cameras=(CameraSpec(name="image_0", height=pixels, width=pixels),),
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
    own = ActingGraph(ModeActing(net.actor), net.spec)
    whole = ActingGraph(ModeActing(net.actor), net.spec, CAMERAS)
    model = to_onnx(own, net.spec, ActConfig(), {})
    made = {engine: make_engine(engine, own, lambda: model)[1] for engine in ENGINES}
    executor = native_executor(own, model, CAMERAS)
    inside = make_engine("onnxruntime", whole, lambda: to_onnx(whole, net.spec, ActConfig(), {}))[1]

    def fitted(engine) -> Callable[[], np.ndarray]:
        return lambda: engine.run(resize(frame, net.pixels, net.pixels), state, task)

    variants = {engine: fitted(made[engine]) for engine in ENGINES}
    variants["openvino_native"] = lambda: executor.run([frame], state)[0]
    variants["onnxruntime_pillow"] = lambda: made["onnxruntime"].run(_pillow(frame, net.pixels), state, task)
    variants["onnxruntime_resize_inside"] = functools.partial(inside.run, frame, state, task)

    def gate() -> None:
        expected = variants["eager"]()
        for variant, run in variants.items():
            allowed = 0.01 if variant.endswith("resize_inside") else BOUND
            assert np.abs(run() - expected).max() <= allowed, variant

    compare("act", f"{name} {net.pixels} px, end to end", variants, gate, num_rounds=net.rounds)


@pytest.mark.skipif(importlib.util.find_spec("openvino") is None, reason="the extra 'export' is not installed")
@pytest.mark.parametrize("name", ["resnet18", "resnet34", "resnet50"])
def test_int8(name: str) -> None:
    """Time alone: these nets are not trained, so how far their actions move says little (see NOTES.md)."""
    torch.set_num_threads(1)
    net = _net(name)
    frame, state, task = _observation()
    small = resize(frame, net.pixels, net.pixels)
    graph = ActingGraph(ModeActing(net.actor), net.spec)
    model = to_onnx(graph, net.spec, ActConfig(), {})
    quantised = to_int8(model, [{"frame": small, "state": state, "task_id": task}])
    variants = {
        "openvino_int8": functools.partial(OpenVinoEngine(graph, lambda: quantised).run, small, state, task),
        "onnxruntime_int8": functools.partial(OnnxRuntimeEngine(graph, lambda: quantised).run, small, state, task),
        "openvino": functools.partial(OpenVinoEngine(graph, lambda: model).run, small, state, task),
        "onnxruntime": functools.partial(OnnxRuntimeEngine(graph, lambda: model).run, small, state, task),
    }

    def gate() -> None:
        expected = variants["onnxruntime"]()
        assert all(np.abs(run() - expected).max() <= 0.05 for run in variants.values())

    compare("act_int8", f"{name} {net.pixels} px, resized frame to action", variants, gate, num_rounds=net.rounds)


def _pillow(frame: np.ndarray, pixels: int) -> np.ndarray:
    return np.asarray(Image.fromarray(frame).resize((pixels, pixels), Image.Resampling.LANCZOS))


def _to_unit(frame_HWC: np.ndarray) -> torch.Tensor:
    return torch.from_numpy(frame_HWC).permute(2, 0, 1)[None].to(torch.float32).div_(255)


@pytest.mark.parametrize("pixels", [64, 128])
def test_preprocessing(pixels: int) -> None:
    torch.set_num_threads(1)
    frame, *_ = _observation()
    size = (pixels, pixels)
    graph = GraphResize(*CAMERA, _spec(pixels).camera)

    def products() -> torch.Tensor:
        with torch.inference_mode():
            return graph(torch.from_numpy(frame))

    def torch_bicubic() -> torch.Tensor:
        planes = torch.from_numpy(frame).permute(2, 0, 1)[None]
        return torch.nn.functional.interpolate(planes, size, mode="bicubic", antialias=True).to(torch.float32).div_(255)

    variants: dict[str, Callable[[], Any]] = {
        "ours": lambda: _to_unit(resize(frame, *size)),
        "pillow": lambda: _to_unit(_pillow(frame, pixels).copy()),
        "two_products": products,
        "other_filter_torch_bicubic": torch_bicubic,
    }
    if importlib.util.find_spec("cv2") is not None:
        import cv2

        cv2.setNumThreads(1)
        for name, filter_ in (("area", cv2.INTER_AREA), ("lanczos4_aliased", cv2.INTER_LANCZOS4)):
            variants[f"other_filter_opencv_{name}"] = functools.partial(
                lambda filter_: _to_unit(cv2.resize(frame, size, interpolation=filter_)), filter_
            )

    def gate() -> None:
        assert (variants["ours"]() == variants["pillow"]()).all()
        assert (variants["ours"]() - products()).abs().max() <= 1.01 / 255

    with _pillow_simd(pixels) as simd:
        variants |= simd
        compare("act_preprocessing", f"preprocessing alone to {pixels} px", variants, gate, num_rounds=51)


@contextlib.contextmanager
def _pillow_simd(pixels: int) -> Iterator[dict[str, Callable[[], Any]]]:
    """Pillow-SIMD in a process of its own, which tells its time; nothing where it is not installed."""
    folder = os.environ.get("PTR_FAST_PILLOW_SIMD")
    if folder is None:
        yield {}
        return
    command = [sys.executable, "-c", _PILLOW_SIMD, folder, str(pixels)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as child:
        asked, told = child.stdin, child.stdout
        assert asked is not None
        assert told is not None

        def resize_there() -> Milliseconds:
            asked.write("\n")
            asked.flush()
            return Milliseconds(told.readline())

        yield {"pillow_simd": resize_there}
        child.kill()


_PILLOW_SIMD = """
import sys, time
sys.path.insert(0, sys.argv[1])
import numpy as np, torch
import PIL
from PIL import Image
assert "post" in PIL.__version__, PIL.__version__
torch.set_num_threads(1)
pixels = int(sys.argv[2])
frame = np.random.default_rng(0).integers(0, 256, (480, 640, 3), dtype=np.uint8)
for _ in sys.stdin:
    begin = time.perf_counter()
    small = np.array(Image.fromarray(frame).resize((pixels, pixels), Image.Resampling.LANCZOS))
    torch.from_numpy(small).permute(2, 0, 1)[None].to(torch.float32).div_(255)
    print((time.perf_counter() - begin) * 1e3, flush=True)
"""


@pytest.mark.skipif(importlib.util.find_spec("onnxruntime") is None, reason="the extra 'export' is not installed")
@pytest.mark.parametrize("name", ["conv3", "resnet18", "resnet34"])
def test_search(name: str) -> None:
    """Needs two cores: 50 candidates on two threads beside the mean action on one and on two.

    Of the small net the engine runs one session on any number of threads.
    """
    net = _net(name)
    frame, state, task = _observation()
    small = resize(frame, net.pixels, net.pixels)
    noise = noise_for(0, (50, 7)).numpy()
    mean = ActingGraph(ModeActing(net.actor), net.spec)
    search = ActingGraph(SearchActing(net.actor, net.critic, 1), net.spec, noise_shape=(50, 7))
    act = ActConfig(mode="search", num_candidates=50)
    mean_model, search_model = to_onnx(mean, net.spec, ActConfig(), {}), to_onnx(search, net.spec, act, {})
    variants: dict[str, Callable[[], np.ndarray]] = {}
    for threads in (2, 1):
        torch.set_num_threads(threads)
        searching = make_engine("onnxruntime", search, lambda: search_model)[1]
        acting = make_engine("onnxruntime", mean, lambda: mean_model)[1]
        variants[f"search_{threads}_threads"] = functools.partial(searching.run, small, state, task, noise)
        variants[f"mean_{threads}_threads"] = functools.partial(acting.run, small, state, task)

    def gate() -> None:
        assert np.abs(variants["search_2_threads"]() - variants["search_1_threads"]()).max() <= BOUND

    compare("act_search", f"{name} {net.pixels} px, search", variants, gate, num_rounds=3 * net.rounds)
