"""How far a hand is from a moving target when chunks of actions are played by each rule, with a late camera and policy.

``python -m benchmarks.bench_chunks``: a scripted policy knows where the target will be: entry j of its chunk is the
place of the target j periods after the frame was captured; what is missed is due to the playing alone. The target
goes to and fro; the camera delivers each frame ``camera_ms`` late, an answer takes ``policy_ms``, and the loop runs at
20 Hz. The error of a command is its distance from the target at the moment when it reaches the arm. Rules take turns.
"""

from __future__ import annotations

import math
import sys
import threading
import time
from collections import deque
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from benchmarks.harness import environment, record, rounds
from ptr_fast.runtime.control import ControlLoop, LoopConfig, PythonPolicy
from ptr_fast.runtime.safety import AxisLimits, SafetyLimits

HZ, NUM_ACTIONS, NUM_STEPS = 20.0, 16, 80
AMPLITUDE_M, PERIOD_S = 0.1, 3.0
CASES = ((0, 0), (0, 75), (100, 0), (100, 75))  # camera_ms, policy_ms
RULES: dict[str, dict[str, Any]] = {
    "receding, 1 of 16": {"execute": 1},
    "receding, 8 of 16": {"execute": 8},
    "ensemble": {"play": "ensemble"},
    "latency": {"play": "latency"},
}


def target_m(seconds: float) -> float:
    """Place of the target, m."""
    return AMPLITUDE_M * math.sin(2 * math.pi * seconds / PERIOD_S)


@dataclass
class Hand:
    """Goes where it is told; notes how far that is from the target, m."""

    errors_m: list[float] = field(default_factory=list)

    def send(self, command: np.ndarray) -> None:
        self.errors_m.append(abs(float(command[0]) - target_m(time.monotonic())))

    def stop(self) -> None:
        """It rests where it is."""


def track(rule: dict[str, Any], camera_ms: float, policy_ms: float, num_steps: int = NUM_STEPS) -> tuple[Hand, Any]:
    """One run; the hand's errors after the first second, and the loop's outcome."""
    hand = Hand()

    def act(images: dict[str, np.ndarray], state: np.ndarray) -> np.ndarray:
        captured_s = float(state[-1, 0]) + 1e3 * float(state[-1, 1])
        time.sleep(policy_ms * 1e-3)
        return np.array([[target_m(captured_s + j / HZ)] for j in range(NUM_ACTIONS)], np.float32)

    axis = AxisLimits(name="x", relative=False, low=-1.0, high=1.0)
    limits = SafetyLimits(axes=[axis], state_size=2, period_s=1 / HZ, ramp_s=0.0, hold_after_s=5, stop_after_s=9)
    config = LoopConfig(hz=HZ, num_steps=num_steps, watchdog_s=2.0, **rule)
    policy, ended = PythonPolicy(act=act, num_actions=NUM_ACTIONS), threading.Event()
    with ControlLoop(config, limits, policy, hand, {"front": (48, 64)}) as loop:
        on_the_way: deque[float] = deque()

        def film() -> None:
            due = time.monotonic()
            while not ended.is_set():
                on_the_way.append(time.monotonic())
                while on_the_way and on_the_way[0] <= time.monotonic() - camera_ms * 1e-3:
                    _deliver(loop, on_the_way.popleft())
                due += 1 / HZ
                ended.wait(max(0.0, due - time.monotonic()))

        camera = threading.Thread(target=film)
        camera.start()
        try:
            while loop.missing():
                time.sleep(0.005)
            loop.start()
            assert loop.wait(10 + num_steps)
        finally:
            ended.set()
            camera.join()
        outcome = loop.outcome()
    del hand.errors_m[: round(HZ)]  # until every rule has its first chunks
    return hand, outcome


def _deliver(loop: ControlLoop, captured_s: float) -> None:
    """A frame and a state of that moment; the state tells the time, in float32 as thousands and the rest of seconds."""
    thousands = captured_s // 1e3
    captured_ns = round(captured_s * 1e9)
    loop.put_state(np.array([captured_s - 1e3 * thousands, thousands], np.float32), captured_ns)
    loop.put_frame("front", np.zeros((48, 64, 3), np.uint8), captured_ns)


def main(argv: list[str]) -> None:
    for camera_ms, policy_ms in CASES:
        errors: dict[str, list[float]] = {name: [] for name in RULES}
        missed = dict.fromkeys(RULES, 0)
        held = dict.fromkeys(RULES, 0)
        names = list(RULES)
        num_rounds = rounds(3)
        for turn in range(num_rounds):
            for name in names[turn % len(names) :] + names[: turn % len(names)]:
                hand, outcome = track(RULES[name], camera_ms, policy_ms)
                assert outcome.reason == ""
                errors[name] += hand.errors_m
                missed[name] += outcome.num_missed
                held[name] += outcome.num_held
        record(
            {
                "name": "chunks",
                "case": f"camera {camera_ms} ms late, policy {policy_ms} ms",
                "mean_error_mm": {name: round(1e3 * float(np.mean(values)), 2) for name, values in errors.items()},
                "p95_error_mm": {
                    name: round(1e3 * float(np.percentile(values, 95)), 2) for name, values in errors.items()
                },
                "missed_periods": missed,
                "held_steps": held,
                "steps": NUM_STEPS * num_rounds,
                "environment": environment(),
            }
        )


if __name__ == "__main__":
    main(sys.argv[1:])
