"""The loop with real threads and a Python arm: what it does on time, and how it ends when something goes wrong."""

from __future__ import annotations

import itertools
import subprocess
import sys
import threading
import time

import numpy as np
import pytest

from ptr_fast.runtime.control import ControlLoop, LoopConfig
from ptr_fast.runtime.safety import AxisLimits, SafetyLimits, names_of

HZ, WATCHDOG_S = 50.0, 0.3
CAMERA = {"front": (4, 6)}


class RecordingArm:
    """Keeps what it is told; may be made to raise or to block."""

    def __init__(self) -> None:
        self.commands: list[np.ndarray] = []
        self.stops = 0
        self.stopped_at = 0.0
        self.error: Exception | None = None
        self.block = threading.Event()
        self.block.set()

    def send(self, command):
        self.block.wait()
        if self.error is not None:
            raise self.error
        self.commands.append(command.copy())
        return np.maximum(command, -0.75)  # what it takes

    def stop(self):
        self.stops += 1
        self.stopped_at = time.monotonic()


def limits(**changes) -> SafetyLimits:
    axes = [AxisLimits(name=n, relative=True, position=i, low=-1.0, high=1.0) for i, n in enumerate("xy")]
    defaults = {"axes": axes, "state_size": 3, "period_s": 1 / HZ, "ramp_s": 0.0, "stop_after_s": 0.4}
    return SafetyLimits(**{**defaults, "hold_after_s": 0.2, **changes})


def make_loop(arm, policy, **changes):
    config = LoopConfig(**{"hz": HZ, "policy_timeout_s": 0.3, "watchdog_s": WATCHDOG_S, **changes})
    loop = ControlLoop(config, limits(), policy, arm, CAMERA)
    observe(loop)
    return loop


def observe(loop, value: float = 0.0) -> None:
    now = time.monotonic_ns()
    loop.put_frame("front", np.full((4, 6, 3), 7, np.uint8), now)
    loop.put_state(np.full(3, value, np.float32), now)


def keep_observing(loop, seconds: float) -> None:
    """Until the run ends, or for so long."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline and not loop.wait(0.005):
        observe(loop)


def constant(images, state):
    return [0.25, -0.5]


def test_a_run_does_its_steps_on_the_grid_and_stops_the_arm():
    arm, seen = RecordingArm(), []

    def policy(images, state):
        seen.append((images["front"].copy(), state.copy(), images["front"].flags.writeable))
        return np.array([0.25, -2.0])

    with make_loop(arm, policy, num_steps=20, record_frames=8) as loop:
        assert loop.warm_up(3) > 0.0
        assert len(seen) == 3
        assert arm.commands == []
        loop.start()
        records = []
        while not loop.wait(0.005):
            observe(loop, 0.5)
            records += list(loop.drain())
        records += list(loop.drain())
        outcome = loop.outcome()
    assert (outcome.reason, outcome.num_steps, arm.stops, outcome.arm_stopped) == ("", 20, 1, True)
    assert [int(r["step"]) for r, _ in records] == list(range(20))
    grid = np.diff([int(r["scheduled_ns"]) for r, _ in records]) / (1e9 / HZ)
    assert (np.round(grid) >= 1).all()
    np.testing.assert_allclose(grid, np.round(grid), atol=0.11)  # frames come as they like: it may follow them
    for record, frames in records:
        if record["policy_out_ns"]:
            assert (
                record["captured_ns"]
                <= record["arrived_ns"]
                <= record["policy_in_ns"]
                <= record["policy_out_ns"]
                <= record["filtered_ns"]
            )
            assert names_of(int(record["interventions"])) == ["bounds"]
            np.testing.assert_array_equal(record["action"][:2], np.float32([0.25, -2.0]))
            np.testing.assert_array_equal(record["command"][:2], np.float32([0.25, -1.0]))
            np.testing.assert_array_equal(record["sent"][:2], np.float32([0.25, -0.75]))
            assert frames is None or (frames["front"] == 7).all()
    assert sum(frames is not None for _, frames in records) > 0
    assert all((f == 7).all() and f.shape == (1, 4, 6, 3) and not writeable for f, _, writeable in seen)
    assert outcome.legs["policy"]["count"] >= 15
    assert outcome.legs["jitter"]["count"] == 20
    assert sum(outcome.legs["jitter"]["bucket_count"]) == 20
    assert outcome.num_dropped_frames > 0 or HZ > 150


def run_until_end(loop, arm, within_s: float = 3.0):
    """Feeds observations until the run ends by itself; the time that took."""
    begin = time.monotonic()
    keep_observing(loop, within_s)
    assert loop.wait(0.1), "the run did not end by itself"
    return loop.outcome(), time.monotonic() - begin


def test_a_policy_that_raises_stops_the_arm():
    arm = RecordingArm()

    def policy(images, state):
        if len(arm.commands) >= 3:
            raise KeyError("weights")
        return [0.0, 0.0]

    with make_loop(arm, policy) as loop:
        loop.start()
        outcome, _ = run_until_end(loop, arm)
    assert outcome.reason == "stopped_policy"
    assert "the policy failed: KeyError: 'weights'" in outcome.message
    assert arm.stops == 1


@pytest.mark.parametrize("action", [[np.nan, 0.0], [0.0, np.inf]])
def test_an_action_that_is_not_finite_stops(action):
    arm = RecordingArm()
    with make_loop(arm, lambda images, state: action) as loop:
        loop.start()
        outcome, _ = run_until_end(loop, arm)
    assert outcome.reason == "stopped_not_finite"
    assert arm.commands == []
    assert arm.stops == 1


@pytest.mark.parametrize(("action", "found"), [([0.0], "1"), ("left", "a str"), (["a", "b"], "a list")])
def test_an_action_of_another_size_or_kind_stops(action, found):
    with make_loop(arm := RecordingArm(), lambda images, state: action) as loop:
        loop.start()
        outcome, _ = run_until_end(loop, arm)
    assert outcome.message.endswith(f"action: expected 2 numbers, got {found}")
    assert (len(arm.commands), arm.stops) == (0, 1)


def test_a_camera_that_freezes_holds_and_then_stops():
    arm = RecordingArm()
    with make_loop(arm, constant) as loop:
        loop.start()
        keep_observing(loop, 0.2)
        begin = time.monotonic()
        while not loop.wait(0.005) and time.monotonic() - begin < 3:
            loop.put_state(np.zeros(3, np.float32), time.monotonic_ns())  # the robot lives, the camera does not
        took, outcome = time.monotonic() - begin, loop.outcome()
    assert outcome.reason == "stopped_stale"
    assert 0.3 < took < 1.5
    assert outcome.num_held > 0
    assert not arm.commands[-1].any(), "it stood still before it stopped"


def test_a_slow_policy_skips_what_it_missed():
    arm, grid = RecordingArm(), []

    def policy(images, state):
        time.sleep(0.05)
        return [0.25, 0.25]

    with make_loop(arm, policy, num_steps=8) as loop:
        loop.start()
        outcome, _ = run_until_end(loop, arm)
        grid = np.diff([int(r["scheduled_ns"]) for r, _ in loop.drain()]) / (1e9 / HZ)
    assert outcome.reason == ""
    assert len(arm.commands) == 8, "one command per answer, none is queued or repeated"
    assert outcome.num_missed >= 2 * 8
    assert (grid >= 3 - 0.05).all()
    np.testing.assert_allclose(grid, np.round(grid), atol=0.11)


@pytest.mark.parametrize("policy_s", [0.0, 0.045, 0.049])
def test_a_shorter_period_moves_the_arm_less_and_is_not_taken_from_a_step(policy_s):
    """A camera of 20.4 Hz, which a loop of 20 Hz follows; whatever the machine lets it see of that."""
    arm, period_ns = RecordingArm(), 50_000_000

    def policy(images, state):
        time.sleep(policy_s)
        return [1.0, -1.0]

    config = LoopConfig(hz=20.0, num_steps=40, watchdog_s=2.0)
    with ControlLoop(config, limits(period_s=0.05), policy, arm, CAMERA) as loop:
        observe(loop)
        loop.start()
        due = time.monotonic()
        while not loop.wait(max(due - time.monotonic(), 0.0)):
            observe(loop)
            due += 0.049
        records = [record for record, _ in loop.drain()]
    assert len(records) == 40
    for before, record in itertools.pairwise(records):
        interval = int(record["scheduled_ns"]) - int(before["scheduled_ns"])
        assert interval >= min(period_ns, int(before["sent_ns"]) - int(before["scheduled_ns"]))
        assert interval >= 0.96 * period_ns - 1
        most = min(interval / period_ns, 1.0)
        assert np.abs(record["command"][:2]).max() <= most + 1e-6


def test_no_action_in_time_holds_the_arm():
    arm, calls = RecordingArm(), []

    def policy(images, state):
        calls.append(0)
        return None if len(calls) % 2 else [0.25, 0.25]

    with make_loop(arm, policy, num_steps=10) as loop:
        loop.start()
        outcome, _ = run_until_end(loop, arm)
    assert (outcome.reason, outcome.num_held) == ("", 5)
    assert [bool(c.any()) for c in arm.commands] == [True, *[False, True] * 4], (
        "nothing is sent before the first action"
    )


def test_a_policy_that_never_answers_stops():
    arm, forever = RecordingArm(), threading.Event()

    def policy(images, state):
        forever.wait(5.0)
        return [0.0, 0.0]

    with make_loop(arm, policy) as loop:
        loop.start()
        outcome, took = run_until_end(loop, arm)
        assert outcome.reason == "stopped_policy"
        assert "has not answered" in outcome.message
        assert took < 1.5
        assert arm.stops == 1
        forever.set()


def test_an_arm_that_raises_is_stopped():
    arm = RecordingArm()
    with make_loop(arm, constant) as loop:
        loop.start()
        keep_observing(loop, 0.1)
        arm.error = OSError("bus off")
        outcome, took = run_until_end(loop, arm)
    assert outcome.reason == "stopped_arm"
    assert "the arm failed: OSError: bus off" in outcome.message
    assert arm.stops == 1
    assert took < 1.0


def test_an_arm_that_blocks_ends_the_run_and_is_said_not_to_have_answered():
    arm = RecordingArm()
    with make_loop(arm, constant) as loop:
        loop.start()
        keep_observing(loop, 0.1)
        arm.block.clear()
        begin = time.monotonic()
        outcome, took = run_until_end(loop, arm)
        assert outcome.reason == "stopped_arm"
        assert "has not come back" in outcome.message
        assert arm.stopped_at - begin < 3 * WATCHDOG_S, "found after one watchdog's time, tried after a second"
        assert took < 5 * WATCHDOG_S, "the thread that blocks is left behind after a third"
        assert arm.stops == 1, "the stop is tried while the command blocks"
        sent = len(arm.commands)
        arm.block.set()
        time.sleep(3 / HZ)
        assert len(arm.commands) <= sent + 1, "no command follows the one that blocked"


def test_a_stop_that_never_returns_is_told():
    arm, forever = RecordingArm(), threading.Event()
    arm.stop = lambda: forever.wait(5.0)
    with make_loop(arm, constant, num_steps=3) as loop:
        loop.start()
        outcome, _ = run_until_end(loop, arm)
        forever.set()
    assert not outcome.arm_stopped
    assert any("the arm's stop has not come back" in note for note in outcome.notes)


def test_the_operator_stops_at_once():
    arm = RecordingArm()
    with make_loop(arm, constant) as loop:
        loop.start()
        keep_observing(loop, 0.1)
        begin = time.monotonic()
        loop.stop()
        assert loop.wait(1.0)
        took = time.monotonic() - begin
        outcome = loop.outcome()
    assert (outcome.reason, outcome.message) == ("stopped_operator", "the operator stopped the run")
    assert arm.stops == 1
    assert took < 2 / HZ + 0.1


def test_leaving_the_block_stops():
    arm = RecordingArm()
    with make_loop(arm, constant) as loop:
        loop.start()
    assert arm.stops == 1
    assert not loop.running


def test_a_dry_run_moves_nothing():
    arm = RecordingArm()
    with make_loop(arm, constant, num_steps=5, dry_run=True) as loop:
        loop.start()
        outcome, _ = run_until_end(loop, arm)
    assert (outcome.num_steps, arm.commands) == (5, [])


def test_nothing_starts_without_an_observation():
    loop = ControlLoop(LoopConfig(hz=HZ), limits(), constant, RecordingArm(), CAMERA)
    with pytest.raises(RuntimeError, match="no observation has arrived"):
        loop.warm_up()
    with pytest.raises(RuntimeError, match="no observation has arrived"):
        loop.start()
    assert loop.missing() == "frame of front"
    loop.put_frame("front", np.zeros((4, 6, 3), np.uint8), 0)
    assert loop.missing() == "state"


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"hz": 0.0}, "0 < hz"),
        ({"policy_timeout_s": 0.0}, "policy_timeout_s must be positive"),
        ({"watchdog_s": 0.01}, "longer than the period"),
        ({"realtime_priority": 99}, "0 to 98"),
        ({"record_frames": 10**9}, "at most 4 GiB"),
    ],
)
def test_settings_that_make_no_sense_are_refused(changes, message):
    with pytest.raises(ValueError, match=message):
        make_loop(RecordingArm(), constant, **changes)


def test_frames_and_states_of_another_size_are_refused():
    loop = make_loop(RecordingArm(), constant)
    with pytest.raises(ValueError, match=r"frame of front: expected uint8 \[4, 6, 3\], got uint8 \[4, 4, 3\]"):
        loop.put_frame("front", np.zeros((4, 4, 3), np.uint8), 0)
    with pytest.raises(ValueError, match=r"state: expected \[3\], got \[2\]"):
        loop.put_state(np.zeros(2), 0)


def test_what_is_not_permitted_is_told():
    with make_loop(RecordingArm(), constant, num_steps=2, cpu=1023) as loop:
        loop.start()
        run_until_end(loop, None)
        assert any("is not pinned to core 1023" in note for note in loop.outcome().notes)


@pytest.mark.parametrize("end", ["", "del loop", "raise SystemExit(0)"])
def test_a_program_that_ends_during_a_run_stops_the_arm(end):
    program = """
import time
import numpy as np
from ptr_fast.runtime.control import ControlLoop, LoopConfig
from ptr_fast.runtime.safety import AxisLimits, SafetyLimits

class Arm:
    def send(self, command):
        return None

    def stop(self):
        print("stopped", flush=True)

limits = SafetyLimits(axes=[AxisLimits(name="x", relative=True, low=-1, high=1)], state_size=1, period_s=0.01)
policy = lambda images, state: np.zeros(1, np.float32)
loop = ControlLoop(LoopConfig(hz=100), limits, policy, Arm(), {"front": (4, 4)})
loop.put_frame("front", np.zeros((4, 4, 3), np.uint8), time.monotonic_ns())
loop.put_state(np.zeros(1, np.float32), time.monotonic_ns())
loop.start()
time.sleep(0.1)
"""
    done = subprocess.run([sys.executable, "-c", program + end], capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stdout) == (0, "stopped\n"), done.stderr
