"""One run on a robot that is none of ours: what is told of it when it has no stop, or fails."""

from __future__ import annotations

import time

import numpy as np
import pytest

from ptr_fast.config import PolicySpec, TaskTable
from ptr_fast.runtime.control import LoopConfig
from ptr_fast.runtime.safety import AxisLimits, SafetyLimits
from ptr_fast.types import ActionSpec, CameraSpec, StateSpec
from ptr_robot.session import Operator, run_session

SPEC = PolicySpec(
    camera=CameraSpec(name="front", height=8, width=8),
    state=StateSpec(names=("x",), units=("m",)),
    action=ActionSpec(names=("dx",), units=("m",), low=(-1.0,), high=(1.0,), bounds_source="test"),
    tasks=TaskTable(names=("push",), num_slots=1),
    control_hz=50.0,
)


class Hand:
    """What a robot must have, and no more; its hand is where it was sent ``late_s`` ago."""

    name = "hand"

    def __init__(self, late_s: float = 0.0) -> None:
        self.observation_features = {"x": float, "front": (8, 8, 3)}
        self.action_features = {"dx": float}
        self.is_connected = True
        self.failure: Exception | None = None
        self.late_s, self.sent = late_s, [(0.0, 0.0)]

    def get_observation(self):
        if self.failure is not None:
            raise self.failure
        now = time.monotonic()
        observed = {"x": self.at(now - self.late_s), "front": np.zeros((8, 8, 3), np.uint8)}
        return {**observed, "state_captured_ns": int((now - self.late_s) * 1e9)}

    def send_action(self, action):
        self.sent.append((time.monotonic(), action["dx"]))
        return action

    def at(self, when: float) -> float:
        return sum(dx for sent, dx in list(self.sent) if sent <= when)


def run(robot, policy=lambda frame, state: [0.05], watch=None, **limits):
    axis = AxisLimits(name="dx", relative=True, position=0, low=-1.0, high=1.0, **limits)
    bounds = SafetyLimits(axes=[axis], state_size=1, period_s=0.02, ramp_s=0.0, response_s=0.0)
    config = LoopConfig(hz=50.0, num_steps=30)
    with Operator() as operator:
        return run_session(robot, policy, SPEC, bounds, config, operator, watch=watch)


def test_a_robot_without_a_stop_is_not_said_to_have_stopped():
    outcome = run(Hand()).outcome
    assert outcome.num_steps == 30
    assert not outcome.arm_stopped
    assert outcome.notes == ["the arm's stop failed: RuntimeError: hand has no stop(); it gets no more commands"]


def test_a_robot_whose_observation_fails_is_stopped_and_named():
    robot, stops = Hand(), []
    robot.stop = lambda: stops.append(len(robot.sent))

    def watch(loop):
        robot.failure = OSError("cable")

    outcome = run(robot, watch=watch).outcome
    assert (outcome.reason, outcome.message) == ("stopped_arm", "the robot's observation failed: cable")
    assert outcome.arm_stopped
    assert stops == [len(robot.sent)], "nothing is sent after the stop"


@pytest.mark.parametrize("late_s", [0.0, 0.1])
def test_a_hand_whose_state_is_late_stays_in_its_box(late_s):
    robot = Hand(late_s)
    result = run(robot, box_low=-0.2, box_high=0.2)
    assert 0.15 < robot.at(time.monotonic()) <= 0.2 + 1e-6
    assert result.interventions["box"] > 5


def test_steps_begin_soon_after_a_frame_where_the_camera_keeps_their_time():
    """Else they fall anywhere between two frames; at worst each acts on one that is nearly a period old."""

    class Filmed(Hand):
        def get_observation(self):
            tick_ns = 200_000_000
            return {**super().get_observation(), "captured_ns": time.monotonic_ns() // tick_ns * tick_ns}

    axis = AxisLimits(name="dx", relative=True, position=0, low=-1.0, high=1.0)
    bounds = SafetyLimits(axes=[axis], state_size=1, period_s=0.2, ramp_s=0.0)
    ages_s = []
    with Operator() as operator:
        config = LoopConfig(hz=5.0, num_steps=5, record_frames=8)
        run_session(
            Filmed(),
            lambda frame, state: [0.0],
            SPEC,
            bounds,
            config,
            operator,
            sink=lambda record, frame: ages_s.append(1e-9 * (record["policy_in_ns"] - record["captured_ns"])),
        )
    assert len(ages_s) == 5
    assert 0.03 < np.median(ages_s) < 0.12
