"""A policy that chooses among cloned proposals acts alike in every engine, in the control loop and in 8 bits."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
import toy_robot

from ptr_fast.checkpoint import save_checkpoint
from ptr_fast.config import ActConfig, EncoderConfig, PolicySpec, TaskTable
from ptr_fast.learners import make_learner
from ptr_fast.learners.cql_proposals import CqlProposalsConfig
from ptr_fast.runtime.control import PythonPolicy
from ptr_fast.runtime.engine import BOUND, OnnxRuntimeEngine, make_engine
from ptr_fast.runtime.int8 import to_int8
from ptr_fast.runtime.observation import Observation
from ptr_fast.runtime.policy import Policy

SIZE = (toy_robot.SIZE, toy_robot.SIZE)


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory) -> Path:
    meta = toy_robot.toy_meta(("image_0",))
    tasks = TaskTable(names=("put carrot on plate",), num_slots=2)
    spec = PolicySpec(
        cameras=meta.cameras[:1], state=meta.state, action=meta.action, tasks=tasks, control_hz=meta.control_hz
    )
    encoder = EncoderConfig(name="conv3", num_filters=8, embedding_dim=16)
    learner = make_learner(CqlProposalsConfig(encoder=encoder, hidden_dims=(16, 16)), spec, seed=1)
    act = ActConfig(mode="search", num_candidates=32, num_elites=4)
    return save_checkpoint(tmp_path_factory.mktemp("proposals"), 1, learner, spec, act, {"split": {"sources": []}})


def observed(seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    return rng.integers(0, 256, (*SIZE, 3), dtype=np.uint8), rng.normal(size=7).astype(np.float32)


def inputs(policy: Policy, seed: int) -> list[np.ndarray]:
    frame, state = observed(seed)
    return list(policy.inputs((Observation({"image_0": frame}, state, "put carrot on plate"),), seed).values())


@pytest.mark.parametrize("mode", ["search", "sample"])
def test_an_engine_acts_like_the_eager_one(checkpoint, mode):
    pytest.importorskip("onnxruntime")
    pytest.importorskip("onnxscript")
    policy = Policy.load(checkpoint, mode=mode)
    model = policy.to_onnx()
    half_range = 0.5 * (np.array(policy.spec.action.high) - np.array(policy.spec.action.low))
    _, engine, told = make_engine("onnxruntime", policy.graph(), lambda: model)
    assert "of eager" in told[-1]
    answers = []
    for seed in range(3):
        expected = policy.decide(*observed(seed), "put carrot on plate", seed=seed)
        answers.append(engine.run(*inputs(policy, seed)))
        assert (np.abs(answers[-1] - expected) / half_range).max() < BOUND
    assert not np.array_equal(answers[0], answers[1])
    if mode == "search":  # convolutions in 8 bits are another critic: the answer is still one of the proposals' range
        small = to_int8(
            model, [dict(zip(policy.graph().input_names, inputs(policy, s), strict=True)) for s in range(4)]
        )
        in_8_bits = OnnxRuntimeEngine(policy.graph(), lambda: small).run(*inputs(policy, 0))
        assert in_8_bits.shape == answers[0].shape
        assert np.isfinite(in_8_bits).all()


@pytest.mark.parametrize("mode", ["search", "sample"])
def test_the_control_loop_takes_it_with_noise_that_counts_on(checkpoint, mode):
    policy = Policy.load(checkpoint, mode=mode)
    executor = policy.make_executor({"image_0": SIZE}, "put carrot on plate", seed=5)
    assert isinstance(executor, PythonPolicy)
    frame, state = observed()
    for seed in (5, 6):
        answer = executor.act({"image_0": frame[None]}, state[None])
        assert np.array_equal(answer[0], policy.decide(frame, state, "put carrot on plate", seed=seed))
