"""CQL with cloned proposals beside CQL: one update, and one action by search.

An update of the published actor draws five times from a policy and moves a temperature; one of proposals trains a clone
instead. Layer norms take the Q heads out of ``cql_head``: the row says what that costs. Acting: 32 proposals of a
mixture beside 50 samples of a tanh-Gaussian, each with its critics, by the engine that ``auto`` takes.
"""

from __future__ import annotations

import dataclasses
import functools
import importlib.util
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch

from benchmarks.harness import compare, one_thread_clock
from ptr_fast.config import ActConfig, CqlConfig, EncoderConfig, LearnerConfig, PolicySpec, TaskTable
from ptr_fast.learners import make_learner
from ptr_fast.learners.cql_proposals import CqlProposalsConfig
from ptr_fast.learners.registry import acts_of
from ptr_fast.runtime.engine import make_engine
from ptr_fast.runtime.export import to_onnx
from ptr_fast.runtime.graph import ActingGraph, noise_for
from ptr_fast.types import ActionSpec, Batch, CameraSpec, StateSpec

CONV3 = EncoderConfig(name="conv3", num_filters=16, embedding_dim=64)
# name -> (encoder, hidden layers, batch, rounds)
CASES = {
    "states": (EncoderConfig(name="none"), (256, 256), 128, 25),
    "conv3 64 px": (CONV3, (128, 128), 64, 9),
}
AXES = ("x", "y", "z", "gripper")


def _spec() -> PolicySpec:
    names = tuple(f"s{i}" for i in range(10))
    return PolicySpec(
        cameras=(CameraSpec(name="image_0", height=64, width=64),),
        state=StateSpec(names=names, units=("1",) * 10),
        action=ActionSpec(names=AXES, units=("1",) * 4, low=(-1.0,) * 4, high=(1.0,) * 4),
        tasks=TaskTable(names=("task",), num_slots=8),
        control_hz=20.0,
    )


def _configs(case: str) -> dict[str, LearnerConfig]:
    encoder, hidden_dims, _, _ = CASES[case]
    shared: dict[str, Any] = {"encoder": encoder, "hidden_dims": hidden_dims, "critic_head": "reinject_action"}
    ours = CqlProposalsConfig(**shared)
    return {
        "proposals": ours,
        "proposals_without_layer_norm": dataclasses.replace(ours, critic_layer_norm=False),
        "proposals_shared_encoder": dataclasses.replace(ours, actor_encoder="critic"),
        "cql": CqlConfig(**shared),
    }


def _batch(num: int) -> Batch:
    generator = torch.Generator().manual_seed(0)

    def normal(*shape: int) -> torch.Tensor:
        return torch.randn(*shape, generator=generator)

    def frames() -> dict[str, torch.Tensor]:
        return {"image_0": torch.randint(0, 256, (num, 1, 64, 64, 3), dtype=torch.uint8, generator=generator)}

    return Batch(
        images=frames(),
        next_images=frames(),
        state=normal(num, 1, 10),
        next_state=normal(num, 1, 10),
        task_id=torch.zeros(num, dtype=torch.int64),
        actions=0.3 * normal(num, 1, 4).clamp(-3.0, 3.0),
        rewards=normal(num),
        masks=torch.ones(num),
    )


@pytest.mark.parametrize("case", CASES)
def test_step(case: str) -> None:
    torch.set_num_threads(1)
    _, _, num_batch, num_rounds = CASES[case]
    spec, batch = _spec(), _batch(num_batch)
    learners = {name: make_learner(config, spec) for name, config in _configs(case).items()}
    variants: dict[str, Callable[[], Any]] = {
        name: functools.partial(learner.update, batch, 0) for name, learner in learners.items()
    }

    def gate() -> None:
        for name, update in variants.items():
            assert all(bool(value.isfinite()) for value in update().values()), name

    compare("proposals_step", case, variants, gate, num_rounds=num_rounds, clock=one_thread_clock())


@pytest.mark.skipif(importlib.util.find_spec("onnxruntime") is None, reason="the extra 'export' is not installed")
def test_search() -> None:
    torch.set_num_threads(1)
    spec, rng = _spec(), np.random.default_rng(0)
    frame, state = rng.integers(0, 256, (64, 64, 3), np.uint8), rng.normal(size=10).astype(np.float32)
    variants: dict[str, Callable[[], np.ndarray]] = {}
    eager: dict[str, Callable[[], np.ndarray]] = {}
    for name, config in _configs("conv3 64 px").items():
        act = ActConfig(mode="search", num_candidates=50 if name == "cql" else 32)
        acts, networks = acts_of(config), make_learner(config, spec).networks()
        shape = acts.noise_shape(act, spec)
        assert shape is not None
        acting = acts.acting_module(networks, act, spec).requires_grad_(False).eval()
        graph = ActingGraph(acting, spec, noise_shape=shape)
        inputs = (frame, state, np.zeros(1, np.int64), noise_for(0, shape).numpy())
        model = functools.partial(to_onnx, graph, spec, act, {})
        variants[name] = functools.partial(make_engine("onnxruntime", graph, model)[1].run, *inputs)
        eager[name] = functools.partial(make_engine("eager", graph, model)[1].run, *inputs)

    def gate() -> None:
        for name, run in variants.items():
            assert np.abs(run() - eager[name]()).max() < 1e-3, name

    compare("proposals_search", "conv3 64 px, onnxruntime, one thread", variants, gate, num_rounds=51)
