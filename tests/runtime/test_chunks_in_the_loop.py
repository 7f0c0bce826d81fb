"""The control loop with several cameras, past observations and chunks, by a policy whose latency is known."""

from __future__ import annotations

import threading
import time

import numpy as np
import pytest

from benchmarks import bench_chunks
from ptr_fast.runtime.control import ControlLoop, LoopConfig, PythonPolicy
from ptr_fast.runtime.safety import AxisLimits, SafetyLimits, names_of

HZ = 20.0
SIZES = {"front": (4, 6), "wrist": (3, 2)}


class Arm:
    def __init__(self) -> None:
        self.sent: list[float] = []

    def send(self, command):
        self.sent.append(float(command[0]))

    def stop(self):
        pass


def limits(**changes) -> SafetyLimits:
    axes = [AxisLimits(name="x", relative=True, low=-1e6, high=1e6)]
    times = {"ramp_s": 0.0, "hold_after_s": 0.5, "stop_after_s": 2.0}
    return SafetyLimits(axes=axes, state_size=1, period_s=1 / HZ, **{**times, **changes})


class Feed:
    """Both cameras and the state at the loop's rate; pixels and state tell the count of the tick.

    Attributes:
        frozen: cameras that deliver nothing more.
        wrist_late_s: what the wrist camera's frames are older.
    """

    def __init__(self, loop: ControlLoop, wrist_late_s: float = 0.0) -> None:
        self.loop, self.wrist_late_s, self.count = loop, wrist_late_s, 0
        self.frozen: set[str] = set()
        self.put()

    def put(self) -> None:
        now = time.monotonic_ns()
        for name, late_s in (("wrist", self.wrist_late_s), ("front", 0.0)):
            if name not in self.frozen:
                frame = np.full((*SIZES[name], 3), self.count % 256, np.uint8)
                self.loop.put_frame(name, frame, now - round(late_s * 1e9))
        self.loop.put_state(np.full(1, self.count, np.float32), now)
        self.count += 1

    def until_end(self, each=lambda: None, within_s: float = 5.0) -> list:
        records, due = [], time.monotonic()
        deadline = due + within_s
        while not self.loop.wait(max(due - time.monotonic(), 0.0)) and time.monotonic() < deadline:
            self.put()
            each()
            records += list(self.loop.drain())
            due += 1 / HZ
        assert self.loop.wait(1.0)
        return records + list(self.loop.drain())


def run(policy, num_steps: int = 12, wrist_late_s: float = 0.0, changes=None, **config):
    arm = Arm()
    bounds = limits(**(changes or {}))
    settings = LoopConfig(hz=HZ, num_steps=num_steps, watchdog_s=2.0, **config)
    with ControlLoop(settings, bounds, policy, arm, SIZES) as loop:
        feed = Feed(loop, wrist_late_s)
        loop.start()
        records = feed.until_end()
        return [record for record, _ in records], loop.outcome(), arm, [frames for _, frames in records]


def counting(num_actions: int, seconds: float = 0.0):
    """A policy that takes `seconds` and answers 100 x (its call) + entry; the list gets the states that it saw."""
    seen: list[float] = []

    def act(images, state):
        seen.append(float(state[-1, 0]))
        time.sleep(seconds)
        return (100.0 * (len(seen) - 1) + np.arange(num_actions))[:, None]

    return PythonPolicy(act=act, num_actions=num_actions), seen


def test_a_policy_sees_every_camera_and_the_observations_before():
    seen = []

    def act(images, state):
        seen.append(({name: frames.copy() for name, frames in images.items()}, state.copy()))
        return [0.0]

    records, outcome, _, frames = run(PythonPolicy(act=act, num_observations=3), num_steps=6, record_frames=16)
    assert outcome.reason == ""
    assert [{n: f.shape for n, f in images.items()} for images, _ in seen] == [
        {"front": (3, 4, 6, 3), "wrist": (3, 3, 2, 3)}
    ] * 6
    steps = [float(record["state"][0]) for record in records]
    for step, (images, state) in enumerate(seen):
        wanted = [steps[max(step - 2, 0)], steps[max(step - 1, 0)], steps[step]]
        assert state[:, 0].tolist() == wanted, "the first observation stands for those before it"
        for each in images.values():
            assert each[:, 0, 0, 0].tolist() == wanted
    kept = [each for each in frames if each is not None]
    assert kept
    assert all({n: f.shape for n, f in each.items()} == {"front": (4, 6, 3), "wrist": (3, 2, 3)} for each in kept)


def test_an_observation_is_as_old_as_the_oldest_of_its_frames():
    policy, _ = counting(1)
    records, outcome, _, _ = run(policy, num_steps=4, wrist_late_s=0.3)
    for record in records:
        front, wrist = record["camera_captured_ns"][:2].tolist()
        assert record["captured_ns"] == wrist == front - 300_000_000
    records, outcome, arm, _ = run(policy, num_steps=4, wrist_late_s=0.6)
    assert all(names_of(int(record["interventions"])) == ["held_stale"] for record in records)
    assert (outcome.num_held, arm.sent) == (4, [])


@pytest.mark.parametrize("camera", ["front", "wrist"])
def test_one_frozen_camera_holds_and_stops_the_arm_even_within_a_chunk(camera):
    policy, _ = counting(200)
    arm = Arm()
    config = LoopConfig(hz=HZ, watchdog_s=2.0)
    with ControlLoop(config, limits(hold_after_s=0.2, stop_after_s=0.4), policy, arm, SIZES) as loop:
        feed = Feed(loop)
        loop.start()
        records = feed.until_end(lambda: feed.frozen.add(camera) if feed.count == 4 else None)
        outcome = loop.outcome()
    assert outcome.reason == "stopped_stale"
    assert outcome.num_held > 0
    assert arm.sent[-1] == 0.0
    assert max(int(record["entry"]) for record, _ in records) > 3, "it was one chunk all along"


def test_receding_asks_again_after_so_many_steps():
    policy, seen = counting(6)
    records, outcome, arm, _ = run(policy, num_steps=9, execute=3)
    assert outcome.reason == ""
    assert arm.sent == [0, 1, 2, 100, 101, 102, 200, 201, 202]
    assert [int(record["entry"]) for record in records] == [0, 1, 2] * 3
    assert [bool(record["policy_out_ns"]) for record in records] == [True, False, False] * 3
    assert seen == [float(record["state"][0]) for record in records[::3]]
    for first, record in ((records[i // 3 * 3], record) for i, record in enumerate(records)):
        assert record["decided_ns"] == first["captured_ns"]


def test_entries_of_a_chunk_are_not_held_for_the_age_of_what_they_were_decided_on():
    """Longer than `hold_after_s`: entry j belongs to j periods after its observation."""
    policy, _ = counting(12)
    _, outcome, arm, _ = run(policy, num_steps=12, changes={"hold_after_s": 0.2, "stop_after_s": 0.4})
    assert (outcome.reason, outcome.num_held, arm.sent) == ("", 0, list(range(12)))


def test_where_no_answer_comes_the_rest_is_played_and_then_the_arm_stands_still():
    calls = []

    def act(images, state):
        calls.append(0)
        return None if 1 < len(calls) < 7 else (100.0 * len(calls) + np.arange(4))[:, None]

    records, outcome, arm, _ = run(PythonPolicy(act=act, num_actions=4), num_steps=9, execute=2)
    assert arm.sent == [100, 101, 102, 103, 0, 0, 0, 700, 701]
    assert [names_of(int(record["interventions"])) for record in records][4:7] == [["held_late"]] * 3
    assert [int(record["entry"]) for record in records] == [0, 1, 2, 3, -1, -1, -1, 0, 1]
    assert (outcome.reason, outcome.num_held) == ("", 3)


def test_the_ensemble_asks_in_every_step():
    policy, seen = counting(2)
    records, _, arm, _ = run(policy, num_steps=5, play="ensemble", ensemble_decay=0.0)
    assert len(seen) == 5
    ticks = np.round(np.diff([int(record["scheduled_ns"]) for record in records]) * 1e-9 * HZ).astype(int)
    wanted = [0.0] + [np.mean([100 * c - 99, 100 * c]) if ticks[c - 1] == 1 else 100 * c for c in range(1, 5)]
    np.testing.assert_allclose(arm.sent, wanted)


def test_latency_plays_the_entry_that_belongs_to_now_while_the_policy_computes():
    """The policy takes 2.5 periods: its chunk is 3 entries old when it comes, and the loop misses no period for it."""
    policy, _ = counting(12, seconds=2.5 / HZ)
    records, outcome, _, _ = run(policy, num_steps=24, play="latency")
    assert outcome.reason == ""
    assert outcome.num_missed <= 2
    assert [names_of(int(record["interventions"])) for record in records][:2] == [["held_late"]] * 2
    played = [record for record in records if record["entry"] >= 0]
    assert len(played) >= 18
    for record in played:
        late = (int(record["sent_ns"]) - int(record["decided_ns"])) * 1e-9 * HZ
        assert abs(int(record["entry"]) - late) < 0.75
    assert {int(record["entry"]) for record in played} <= {2, 3, 4, 5, 6, 7}
    assert outcome.legs["policy"]["count"] >= 5


def test_latency_holds_where_a_chunk_runs_out():
    """Chunks of 3 actions from a policy that takes 4 periods are over before they come."""
    policy, _ = counting(3, seconds=4 / HZ)
    records, outcome, arm, _ = run(policy, num_steps=15, play="latency")
    assert (outcome.num_held, arm.sent, outcome.reason) == (15, [], "")
    assert {int(record["entry"]) for record in records} == {-1}


def test_a_policy_beside_the_loop_that_fails_or_never_answers_stops():
    def fails(images, state):
        raise KeyError("weights")

    _, outcome, _, _ = run(PythonPolicy(act=fails, num_actions=4), num_steps=0, play="latency")
    assert (outcome.reason, "the policy failed: KeyError: 'weights'" in outcome.message) == ("stopped_policy", True)
    forever = threading.Event()
    silent = PythonPolicy(act=lambda images, state: forever.wait(3.0), num_actions=4)
    _, outcome, _, _ = run(silent, num_steps=0, play="latency", policy_timeout_s=0.3)
    forever.set()
    assert (outcome.reason, "has not answered for" in outcome.message) == ("stopped_policy", True)


@pytest.mark.parametrize("shape", [(5, 1), (2, 2), (1, 1, 1), (0, 1)])
def test_a_chunk_of_another_shape_stops(shape):
    policy = PythonPolicy(act=lambda images, state: np.zeros(shape), num_actions=4)
    _, outcome, arm, _ = run(policy, num_steps=4)
    assert outcome.reason == "stopped_policy"
    assert outcome.message.endswith(f"actions: expected 1 to 4 of 1 numbers, got the shape {shape}")
    assert arm.sent == []


def test_latency_follows_a_moving_target_where_stale_play_lags():
    """A camera two periods late and a policy of one and a half; 3.5 periods of the target's way are about 27 mm."""
    late = {"camera_ms": 100, "policy_ms": 75, "num_steps": 45}
    stale, _ = bench_chunks.track({"execute": 1}, **late)
    aware, outcome = bench_chunks.track({"play": "latency"}, **late)
    assert outcome.reason == ""
    assert np.mean(stale.errors_m) > 0.015
    assert np.mean(aware.errors_m) < 0.25 * np.mean(stale.errors_m)
