"""One action from one camera frame, as a policy acts: from the frame in host memory to the action in host memory.

Engines of :mod:`ptr_fast.runtime.engine` beside the same graph op by op in PyTorch's kernels, for the mean action and
for search; and, as a part of its own, beside the graph under ``torch.compile`` (reduce-overhead: its own CUDA graph),
which takes minutes to compile. Nothing is bfloat16, as the product acts.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import nn

from benchmarks.gpu.timing import Bench
from benchmarks.harness import compare
from ptr_fast.config import ActConfig, CqlConfig, EncoderConfig, PolicySpec, TaskTable
from ptr_fast.kernels import dispatch
from ptr_fast.learners.acting import ModeActing
from ptr_fast.learners.cql.networks import SearchActing, make_actor, make_critic
from ptr_fast.runtime.engine import make_engine
from ptr_fast.runtime.graph import ActingGraph, noise_for
from ptr_fast.types import ActionSpec, CameraSpec, StateSpec

__all__ = ["run"]

CAMERA = (480, 640)
NETS = ("conv3", "resnet34", "resnet50")
NUM_CANDIDATES = (50, 10_000)
COMPILED = ("resnet34", "resnet50")  # each takes minutes; the mean action alone
AXES = ("x", "y", "z", "roll", "pitch", "yaw", "gripper")
BOUND = 1e-2  # of an action's half range: other convolution algorithms, other products
NEEDED_SECONDS, COMPILE_SECONDS = 10, 60  # for a row


def run(bench: Bench, compiled: bool = False) -> None:
    """The rows of ``gpu_act``: every engine, or the fast one beside ``torch.compile``."""
    acts = [ActConfig(mode="mean"), *(ActConfig(mode="search", num_candidates=count) for count in NUM_CANDIDATES)]
    if bench.dry:
        cases = [("conv3", ActConfig(mode="search", num_candidates=5))]
    elif compiled:
        cases = [(encoder, acts[0]) for encoder in COMPILED]
    else:
        cases = [(encoder, act) for act in acts for encoder in NETS]
    for encoder, act in bench.mine(cases):
        label = f"{encoder} 128 px from {CAMERA[0]}x{CAMERA[1]}, {act.mode}"
        label += f" of {act.num_candidates}" if act.mode == "search" else ""
        label += ", compiled" * compiled
        bench.attempt("gpu_act", label, functools.partial(row, bench, encoder, act, label, compiled))


def row(bench: Bench, encoder: str, act: ActConfig, label: str, compiled: bool) -> dict[str, Any]:
    """The row of one encoder and mode."""
    bench.need(COMPILE_SECONDS if compiled else NEEDED_SECONDS)
    graph = _graph(bench, encoder, act)
    inputs = _inputs(graph, act)
    eager = make_engine("eager", graph, bytes)[1]
    fast = "eager" if bench.dry else "cuda_graph"
    variants: dict[str, Callable[[], np.ndarray]] = {
        fast: functools.partial(make_engine(fast, graph, bytes)[1].run, *inputs)
    }

    def plain() -> np.ndarray:
        with dispatch.use_backend("reference"):
            return eager.run(*inputs)

    if compiled:
        variants["compiled"] = _compiled(bench, graph, inputs)
    else:
        variants |= {"eager": functools.partial(eager.run, *inputs), "plain": plain}
    if bench.compile_only:
        return {}

    def gate() -> dict[str, Any]:
        wanted, away = plain(), {}
        for name, variant in variants.items():
            away[name] = float(np.abs(variant() - wanted).max())
            # Among thousands of candidates two may be equally good: another one is then as right.
            assert away[name] < BOUND or act.num_candidates > 50, f"{name} is {away[name]:.3f} away"
        return {"away_from_plain": away}

    return compare("gpu_act", label, variants, gate, num_rounds=bench.rounds(101), dry=bench.dry)


def _graph(bench: Bench, encoder: str, act: ActConfig) -> ActingGraph:
    pixels = 32 if bench.dry else 128
    names = {"names": AXES, "units": ("1",) * 7}
    spec = PolicySpec(
        cameras=(CameraSpec(name="image_0", height=pixels, width=pixels),),
        state=StateSpec(**names),
        action=ActionSpec(**names, low=(-1.0,) * 7, high=(1.0,) * 7),
        tasks=TaskTable(names=("task",), num_slots=64),
        control_hz=5.0,
    )
    config = CqlConfig(encoder=EncoderConfig(name=encoder, num_filters=8 if bench.dry else 64))
    torch.manual_seed(0)
    actor = make_actor(config, spec).eval().to(bench.device)
    acting: nn.Module = ModeActing(actor)
    noise_shape = None
    if act.mode == "search":
        critic = make_critic(config, spec).eval().to(bench.device)
        acting, noise_shape = SearchActing(actor, critic, act.num_elites), (act.num_candidates, len(AXES))
    acting.requires_grad_(False)
    return ActingGraph(acting, spec, {"image_0": CAMERA}, noise_shape).to(bench.device)


def _inputs(graph: ActingGraph, act: ActConfig) -> list[np.ndarray]:
    rng = np.random.default_rng(0)
    coarse = rng.integers(0, 256, (CAMERA[0] // 8, CAMERA[1] // 8, 3), dtype=np.uint8)
    inputs = [coarse.repeat(8, 0).repeat(8, 1), rng.normal(size=7).astype(np.float32), np.zeros(1, np.int64)]
    if act.mode == "search":
        inputs.append(noise_for(0, (act.num_candidates, graph.num_axes)).numpy())
    return inputs


def _compiled(bench: Bench, graph: ActingGraph, inputs: list[np.ndarray]) -> Callable[[], np.ndarray]:
    torch.compiler.reset()
    with torch.no_grad(), dispatch.use_backend("reference"):
        module = torch.export.export(graph, graph.example(), strict=False).module()
    for tensor in (*module.parameters(), *module.buffers()):  # else its CUDA graph copies all weights at each action
        torch._dynamo.mark_static_address(tensor, guard=False)
    compiled = torch.compile(module, **({"backend": "eager"} if bench.dry else {"mode": "reduce-overhead"}))

    def act() -> np.ndarray:
        with torch.no_grad():
            return compiled(*(torch.from_numpy(array).to(bench.device) for array in inputs)).cpu().numpy()

    for _ in range(3):
        act()
    return act
