"""A policy of two cameras, past observations and chunks, by every engine, and what it keeps of an episode."""

from __future__ import annotations

import time

import chunk_policy
import numpy as np
import pytest
import torch
from chunk_policy import SIZES, SPEC, TASK, A, H, T

from ptr_fast import native
from ptr_fast.runtime.captured import CapturedEngine
from ptr_fast.runtime.control import ControlLoop, LoopConfig, PythonPolicy
from ptr_fast.runtime.engine import BOUND, make_engine
from ptr_fast.runtime.observation import Observation
from ptr_fast.runtime.playing import PlayConfig, PlayedPolicy
from ptr_fast.runtime.policy import Policy
from ptr_fast.runtime.safety import AxisLimits, SafetyLimits

HALF_RANGE = 0.5 * (np.array(SPEC.action.high) - np.array(SPEC.action.low))


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    return chunk_policy.save_policy(tmp_path_factory.mktemp("chunks"))


@pytest.fixture(scope="module")
def policy(checkpoint):
    return Policy.load(checkpoint)


def observations(count: int, sizes=SIZES, seed: int = 0) -> list[Observation]:
    rng = np.random.default_rng(seed)
    return [
        Observation(
            {name: rng.integers(0, 256, (*size, 3), np.uint8) for name, size in sizes.items()},
            rng.normal(size=2).astype(np.float32),
            TASK,
        )
        for _ in range(count)
    ]


def by_hand(policy, past):
    """Raw actions of the net for T observations, without the graph."""
    with torch.inference_mode():
        images = {
            name: torch.from_numpy(np.stack([o.images[name] for o in past])).permute(0, 3, 1, 2).float() / 255.0
            for name in SIZES
        }
        state = torch.from_numpy(np.stack([o.state for o in past]))[None]
        scaled = policy.networks["actor"](images, state, torch.tensor([SPEC.tasks.slot(TASK)]))[0].numpy()
    low = np.array(SPEC.action.low, np.float32)
    return (scaled + 1.0) * HALF_RANGE.astype(np.float32) + low


def test_the_carry_holds_the_past(policy):
    seen, carry = observations(4), policy.reset()
    assert carry == ()
    for step, observation in enumerate(seen):
        chunk, carry = policy.act(observation, carry)
        assert (chunk.shape, chunk.dtype) == ((H, A), np.float32)
        past = [seen[max(step - 1, 0)], observation]
        np.testing.assert_allclose(chunk, by_hand(policy, past), atol=1e-6)
        assert carry == (observation,)
    again, _ = policy.act(seen[0], policy.reset())
    np.testing.assert_allclose(again, by_hand(policy, [seen[0]] * T), atol=1e-6)


def test_a_step_in_which_it_is_not_asked_counts_as_past(policy):
    first, second, third = observations(3)
    _, carry = policy.act(first, policy.reset())
    chunk, _ = policy.act(third, policy.observe(second, carry))
    np.testing.assert_allclose(chunk, by_hand(policy, [second, third]), atol=1e-6)


def test_frames_of_other_sizes_are_fitted_each_to_its_camera(policy):
    (large,) = observations(1, {"front": (48, 64), "wrist": (40, 40)})
    chunk, _ = policy.act(large, policy.reset())
    inputs = policy.inputs([large] * T)
    assert {name: array.shape for name, array in inputs.items()} == {
        "frame_front": (T, 24, 32, 3),
        "frame_wrist": (T, 16, 16, 3),
        "state": (T, 2),
        "task_id": (1,),
    }
    fitted = {name: inputs[f"frame_{name}"][0] for name in SIZES}
    np.testing.assert_allclose(chunk, by_hand(policy, [Observation(fitted, large.state, TASK)] * T), atol=1e-6)


def test_what_does_not_fit_is_named(policy):
    (good,) = observations(1)
    for observation, message in (
        (Observation({"front": good.images["front"]}, good.state, TASK), r"cameras \['front', 'wrist'\], got \['front"),
        (Observation({**good.images, "wrist": np.zeros((4, 4))}, good.state, TASK), "image: expected uint8"),
        (Observation(good.images, np.zeros(3), TASK), r"state: expected \[2\] per frame, got \[3\]"),
        (Observation(good.images, good.state, "lif"), "did you mean 'lift'"),
    ):
        with pytest.raises(ValueError, match=message):
            policy.act(observation, policy.reset())
    with pytest.raises(ValueError, match="decide: this policy needs 2 observations; use act"):
        policy.decide(good.images["front"], good.state, TASK)


def test_noise_is_the_seeds(tmp_path):
    policy = Policy.load(chunk_policy.save_policy(tmp_path, noisy=True))
    (seen,) = observations(1)
    first, again, other = (policy.act(seen, policy.reset(), seed=seed)[0] for seed in (1, 1, 2))
    assert (first == again).all()
    assert (first != other).any()
    assert policy.graph().input_names == ("frame_front", "frame_wrist", "state", "task_id", "noise")


@pytest.mark.parametrize("name", ["onnxruntime", "openvino"])
def test_engines_act_like_the_eager_one(policy, name):
    pytest.importorskip(name)
    pytest.importorskip("onnxscript")
    _, engine, _ = make_engine(name, policy.graph(), policy.to_onnx)
    for seed in range(2):
        past = observations(T, seed=seed)
        difference = np.abs(engine.run(*policy.inputs(past).values()) - by_hand(policy, past)) / HALF_RANGE
        assert difference.max() < BOUND


class EagerRecorder:
    """Runs what a CUDA graph would replay."""

    def warm_up(self, work):
        work()

    def capture(self, work):
        return work


def test_a_captured_graph_answers_chunks(policy):
    past = observations(T)
    engine = CapturedEngine(policy.graph(), EagerRecorder())
    np.testing.assert_allclose(engine.run(*policy.inputs(past).values()), by_hand(policy, past), atol=1e-6)


class Arm:
    def __init__(self):
        self.sent = []

    def send(self, command):
        self.sent.append(command.copy())

    def stop(self):
        pass


@pytest.mark.parametrize("engine", ["eager", "openvino"])
def test_the_control_loop_plays_its_chunks(checkpoint, engine):
    """The loop keeps the past itself; frames are of other sizes than the checkpoint's."""
    if engine == "openvino":
        pytest.importorskip("openvino")
        pytest.importorskip("onnxscript")
    policy, arm = Policy.load(checkpoint, engine=engine), Arm()
    sizes = {"wrist": (32, 32), "front": (48, 64)}  # a robot's own order
    executor = policy.make_executor(sizes, TASK)
    assert isinstance(executor, PythonPolicy) == (engine == "eager")
    axes = [AxisLimits(name=n, relative=True, low=-9.0, high=9.0) for n in "xyz"]
    limits = SafetyLimits(axes=axes, state_size=2, period_s=0.1, ramp_s=0.0, hold_after_s=20.0, stop_after_s=30.0)
    config = LoopConfig(hz=10.0, num_steps=3, policy_timeout_s=20.0, watchdog_s=20.0, execute=2)
    (seen,) = observations(1, sizes)
    with ControlLoop(config, limits, executor, arm, {name: sizes[name] for name in SIZES}) as loop:
        for name, frame in seen.images.items():
            loop.put_frame(name, frame, time.monotonic_ns())
        loop.put_state(seen.state, time.monotonic_ns())
        loop.warm_up(1)
        loop.start()
        assert loop.wait(30.0)
        records = [record for record, _ in loop.drain()]
    assert [int(record["entry"]) for record in records] == [0, 1, 0]
    expected, _ = policy.act(seen, policy.reset())
    for record in records:
        difference = np.abs(record["action"][:A] - expected[int(record["entry"])]) / HALF_RANGE
        assert difference.max() < 0.02


def test_an_exported_file_tells_its_window_and_cameras(policy, tmp_path):
    onnx = pytest.importorskip("onnx")
    pytest.importorskip("onnxscript")
    model = onnx.load_from_string(policy.to_onnx(task=TASK))
    shapes = {
        i.name: [d.dim_value for d in i.type.tensor_type.shape.dim] for i in (*model.graph.input, *model.graph.output)
    }
    assert shapes == {
        "frame_front": [T, 24, 32, 3],
        "frame_wrist": [T, 16, 16, 3],
        "state": [T, 2],
        "action": [H, A],
    }
    told = {prop.key: prop.value for prop in model.metadata_props}
    assert told["ptr_fast.window"] == '{"num_observations": 2, "num_actions": 4}'
    assert '"wrist"' in told["ptr_fast.camera"]


def test_a_played_policy_gives_one_action_a_step(policy):
    native.require()
    seen = observations(6)
    played = PlayedPolicy(policy, PlayConfig(execute=3))
    actions = [played.act(observation) for observation in seen]
    first, second = by_hand(policy, [seen[0]] * T), by_hand(policy, [seen[2], seen[3]])
    np.testing.assert_allclose(actions, [*first[:3], *second[:3]], atol=1e-6)
    late = PlayedPolicy(policy, PlayConfig(play="latency"), num_periods_late=2)
    np.testing.assert_allclose(late.act(seen[0]), first[2], atol=1e-6)
    too_late = PlayedPolicy(policy, PlayConfig(play="latency"), num_periods_late=H)
    assert too_late.act(seen[0]) is None
    with pytest.raises(ValueError, match="execute: expected 0 to 4"):
        PlayedPolicy(policy, PlayConfig(execute=5))
