"""One run on a robot that is none of ours: what is told of it when it has no stop, or fails."""

from __future__ import annotations

import time

import numpy as np
import pytest

from ptr_fast.config import PolicySpec, TaskTable
from ptr_fast.runtime.control import LoopConfig
from ptr_fast.runtime.safety import AxisLimits, SafetyLimits
from ptr_fast.types import ActionSpec, CameraSpec, StateSpec
from ptr_robot.robots.interface import Robot
from ptr_robot.trials.session import Operator, run_session

SPEC = PolicySpec(
    cameras=(CameraSpec(name="front", height=8, width=8),),
    state=StateSpec(names=("x",), units=("m",)),
    action=ActionSpec(names=("dx",), units=("m",), low=(-1.0,), high=(1.0,), bounds_source="test"),
    tasks=TaskTable(names=("push",), num_slots=1),
    control_hz=50.0,
)


class Hand(Robot):
    """What a robot must have, and no more; its hand is where it was sent ``late_s`` ago."""

    name = "hand"

    def __init__(self, late_s: float = 0.0) -> None:
        self.observation_features = {"x": float, "front": (8, 8, 3)}
        self.action_features = {"dx": float}
        self.is_connected = True
        self.failure: Exception | None = None
        self.late_s, self.sent, self.stops = late_s, [(0.0, 0.0)], []

    def connect(self, calibrate=True):
        raise NotImplementedError

    reset = limits = disconnect = connect

    def success(self):
        return None

    def stop(self):
        self.stops.append(len(self.sent))

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


def run(robot, policy=lambda images, state: [0.05], watch=None, **limits):
    axis = AxisLimits(name="dx", relative=True, position=0, low=-1.0, high=1.0, **limits)
    bounds = SafetyLimits(axes=[axis], state_size=1, period_s=0.02, ramp_s=0.0, response_s=0.0)
    config = LoopConfig(hz=50.0, num_steps=30)
    with Operator() as operator:
        return run_session(robot, policy, SPEC, bounds, config, operator, watch=watch)


@pytest.mark.parametrize("method", ["stop", "reset", "limits", "success"])
def test_a_robot_that_lacks_a_method_is_refused_when_it_is_made(method):
    """A misspelt `stop` shows now, and not when the arm must stop."""
    written = {name: value for name, value in vars(Hand).items() if name != method}
    misspelt = type("Misspelt", (Robot,), {**written, f"{method}_": getattr(Hand, method)})
    with pytest.raises(TypeError, match=f"abstract class Misspelt .*{method}"):
        misspelt()


def test_a_stop_that_fails_is_not_said_to_have_stopped():
    robot = Hand()

    def stop():
        raise OSError("bus off")

    robot.stop = stop
    outcome = run(robot).outcome
    assert outcome.num_steps == 30
    assert not outcome.arm_stopped
    assert outcome.notes == ["the arm's stop failed: OSError: bus off"]


def test_a_robot_whose_observation_fails_is_stopped_and_named():
    robot = Hand()

    def watch(loop):
        robot.failure = OSError("cable")

    outcome = run(robot, watch=watch).outcome
    assert (outcome.reason, outcome.message) == ("stopped_arm", "the robot's observation failed: cable")
    assert outcome.arm_stopped
    assert robot.stops == [len(robot.sent)], "nothing is sent after the stop"


@pytest.mark.parametrize("late_s", [0.0, 0.1])
def test_a_hand_whose_state_is_late_stays_in_its_box(late_s):
    robot = Hand(late_s)
    result = run(robot, box_low=-0.2, box_high=0.2)
    assert 0.15 < robot.at(time.monotonic()) <= 0.2 + 1e-6
    assert result.interventions["box"] > 5


class Filmed(Hand):
    """A hand whose camera takes a frame each tick of its own grid and delivers it ``latency_s`` later.

    Attributes:
        slip_s: what its grid is behind the clock's.
    """

    def __init__(self, period_s: float, latency_s: float) -> None:
        super().__init__()
        self.period_s, self.latency_s, self.slip_s = period_s, latency_s, 0.0
        self.is_frozen, self.num_asked, self._captured_s = False, 0, 0.0

    def get_observation(self):
        self.num_asked += 1
        now = time.monotonic()
        if not self.is_frozen:
            ticks = (now - self.latency_s - self.slip_s) // self.period_s
            self._captured_s = max(self._captured_s, ticks * self.period_s + self.slip_s)
        return {**super().get_observation(), "captured_ns": int(self._captured_s * 1e9)}


def film(robot: Filmed, num_steps: int, watch=None):
    """The result, and how old each step's frame was when the policy got it, s."""
    axis = AxisLimits(name="dx", relative=True, position=0, low=-1.0, high=1.0)
    bounds = SafetyLimits(axes=[axis], state_size=1, period_s=robot.period_s, ramp_s=0.0)
    config = LoopConfig(hz=1 / robot.period_s, num_steps=num_steps)
    ages_s: list[float] = []

    def keep(record, frames):
        ages_s.append(1e-9 * (record["policy_in_ns"] - record["captured_ns"]))

    with Operator() as operator:
        result = run_session(robot, lambda images, state: [0.0], SPEC, bounds, config, operator, watch=watch, sink=keep)
    return result, np.array(ages_s)


@pytest.mark.parametrize("late", [0.0, 0.4, 1.0, 2.0])
def test_the_first_steps_follow_soon_after_a_frame_however_late_the_camera_is(late):
    """In periods. A camera that is a period late has no frame to show for two: the run waits for one that is new."""
    period_s = 0.2
    result, ages_s = film(Filmed(period_s, late * period_s), num_steps=4)
    assert len(ages_s) == 4
    assert late + 0.15 < np.median(ages_s) / period_s < late + 0.6
    assert result.decisions_late.most_common(1)[0][0] == int(late + 0.2)
    assert sum(result.decisions_late.values()) == 4


def test_steps_find_a_grid_again_that_has_slipped():
    robot, period_s = Filmed(0.05, 0.05), 0.05

    def slip(loop):
        if loop.outcome().num_steps >= 20:
            robot.slip_s = 0.03

    _, ages_s = film(robot, num_steps=80, watch=slip)
    assert 1.1 < np.median(ages_s[:20]) / period_s < 1.6
    assert 1.1 < np.median(ages_s[-25:]) / period_s < 1.6


def test_a_camera_that_shows_no_second_frame_is_named_and_nothing_moves(monkeypatch):
    monkeypatch.setattr("ptr_robot.trials.session.FIRST_OBSERVATION_S", 0.2)
    robot = Filmed(0.05, 0.0)
    robot.is_frozen = True
    with pytest.raises(RuntimeError, match=r"hand: no new frame of front has come for 0\.2 s"):
        film(robot, num_steps=4)
    assert len(robot.sent) == 1


def test_who_stops_before_the_first_step_gets_none(tmp_path):
    robot, stop_file = Filmed(0.05, 0.0), tmp_path / "stop"
    robot.is_frozen = True
    stop_file.touch()
    axis = AxisLimits(name="dx", relative=True, position=0, low=-1.0, high=1.0)
    bounds = SafetyLimits(axes=[axis], state_size=1, period_s=0.05, ramp_s=0.0)
    with Operator(stop_file) as operator:
        result = run_session(robot, lambda images, state: [0.5], SPEC, bounds, LoopConfig(hz=20.0), operator)
    assert (result.outcome.reason, result.outcome.num_steps, len(robot.sent)) == ("stopped_operator", 0, 1)
    assert result.outcome.arm_stopped
