"""How well the control loop keeps its deadlines, beside a plain Python loop with the same policy and arm.

``python -m benchmarks.bench_loop [HZ ...]``: the loop at 5, 20, 50 and 200 Hz, on an idle machine and with every core
loaded by busy processes. The policy and the arm are a few microseconds of Python, so that the loop itself is measured.
Variants take turns in short runs. A deadline is missed where the arm gets its command later than a quarter of the
period, at most 5 ms, after the time on the grid.
"""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator

import numpy as np

from benchmarks.harness import environment, record, rounds
from ptr_fast.runtime.control import ControlLoop, LoopConfig
from ptr_fast.runtime.safety import AxisLimits, SafetyLimits

RATES_HZ = (5.0, 20.0, 50.0, 200.0)
SEGMENT_S = 4.0
HEIGHT, WIDTH, NUM_STATE, NUM_AXES = 480, 640, 7, 7
LOW, HIGH = -0.05, 0.05


class Arm:
    """Notes when each command arrives."""

    def __init__(self) -> None:
        self.sent_ns: list[int] = []
        self.commands: list[np.ndarray] = []

    def send(self, command: np.ndarray) -> None:
        self.sent_ns.append(time.monotonic_ns())
        self.commands.append(command)

    def stop(self) -> None:
        pass


def policy(images: dict[str, np.ndarray], state: np.ndarray) -> np.ndarray:
    return state * 0.5


def limits(hz: float) -> SafetyLimits:
    axes = [AxisLimits(name=str(i), relative=True, position=i, low=LOW, high=HIGH) for i in range(NUM_AXES)]
    return SafetyLimits(axes=axes, state_size=NUM_STATE, period_s=1 / hz, ramp_s=0.0, hold_after_s=60, stop_after_s=90)


@contextlib.contextmanager
def camera(put: Callable[[np.ndarray, np.ndarray], None]) -> Iterator[None]:
    """A thread that delivers 30 frames and states per second."""
    frame, stop = np.zeros((HEIGHT, WIDTH, 3), np.uint8), threading.Event()

    def deliver() -> None:
        while not stop.wait(1 / 30):
            put(frame, np.full(NUM_STATE, 0.25, np.float32))

    put(frame, np.full(NUM_STATE, 0.25, np.float32))
    thread = threading.Thread(target=deliver, daemon=True)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join()


def native_loop(hz: float, seconds: float, priority: int) -> tuple[np.ndarray, Arm]:
    """Runs ours; delays of the commands behind the grid, ns."""
    arm, num_steps = Arm(), round(hz * seconds)
    config = LoopConfig(hz=hz, num_steps=num_steps, watchdog_s=2.0, realtime_priority=priority)
    with ControlLoop(config, limits(hz), policy, arm, {"front": (HEIGHT, WIDTH)}) as loop:

        def put(frame: np.ndarray, state: np.ndarray) -> None:
            now = time.monotonic_ns()
            loop.put_frame("front", frame, now)
            loop.put_state(state, now)

        with camera(put):
            loop.warm_up()
            loop.start()
            assert loop.wait(seconds + 10)
            records = [r for r, _ in loop.drain(65536)]
    delays = [int(r["sent_ns"]) - int(r["scheduled_ns"]) for r in records if r["sent_ns"]]
    lost = num_steps - len(delays)  # no command of their own: their deadline was missed
    return np.array(delays + [round(1e9 / hz)] * lost), arm


def python_loop(hz: float, seconds: float, priority: int) -> tuple[np.ndarray, Arm]:
    """What one writes: sleep to the grid, read the newest observation, act, clip, send."""
    arm, newest, period_ns = Arm(), {}, round(1e9 / hz)

    def put(frame: np.ndarray, state: np.ndarray) -> None:
        newest.update(frame=frame.copy(), state=state)

    delays = []
    with camera(put), _priority(priority):
        scheduled = time.monotonic_ns()
        for _ in range(round(hz * seconds)):
            scheduled += period_ns
            time.sleep(max(0.0, (scheduled - time.monotonic_ns()) * 1e-9))
            command = np.clip(policy({"front": newest["frame"]}, newest["state"]), LOW, HIGH)
            arm.send(command)
            delays.append(arm.sent_ns[-1] - scheduled)
    return np.array(delays), arm


@contextlib.contextmanager
def _priority(priority: int) -> Iterator[None]:
    before = os.sched_getscheduler(0), os.sched_getparam(0)
    if priority:
        os.sched_setscheduler(0, os.SCHED_FIFO, os.sched_param(priority))
    try:
        yield
    finally:
        os.sched_setscheduler(0, *before)


VARIANTS = {
    "ours": (native_loop, 0),
    "python": (python_loop, 0),
    "ours_realtime": (native_loop, 50),
    "python_realtime": (python_loop, 50),
}


def realtime_is_permitted() -> bool:
    try:
        with _priority(50):
            return True
    except PermissionError:
        return False


@contextlib.contextmanager
def loaded(is_loaded: bool) -> Iterator[None]:
    """Busy processes on every core, or none."""
    count = os.cpu_count() or 1
    spin = "import os\nparent = os.getppid()\nwhile os.getppid() == parent: pass"  # ends with us, however we end
    busy = [subprocess.Popen([sys.executable, "-c", spin]) for _ in range(count if is_loaded else 0)]
    try:
        time.sleep(0.5 if is_loaded else 0.0)
        yield
    finally:
        for process in busy:
            process.kill()
            process.wait()


def summary(delays: np.ndarray, hz: float) -> dict[str, float]:
    deadline_ns = min(0.25e9 / hz, 5e6)
    p50, p99, p999 = np.percentile(delays, [50, 99, 99.9]) * 1e-6
    return {
        "p50_ms": round(float(p50), 3),
        "p99_ms": round(float(p99), 3),
        "p999_ms": round(float(p999), 3),
        "max_ms": round(float(delays.max()) * 1e-6, 3),
        "missed": int((delays > deadline_ns).sum()),
        "steps": len(delays),
    }


def run(hz: float, is_loaded: bool, num_rounds: int) -> dict:
    """One row: every variant at one rate."""
    names = [n for n, (_, priority) in VARIANTS.items() if not priority or realtime_is_permitted()]
    delays: dict[str, list[np.ndarray]] = {name: [] for name in names}
    load = os.getloadavg()[0]
    with loaded(is_loaded):
        for turn in range(num_rounds):
            for name in names[turn % len(names) :] + names[: turn % len(names)]:
                loop, priority = VARIANTS[name]
                result, arm = loop(hz, SEGMENT_S, priority)
                # Gate: every command that arrived is the policy's, clipped.
                assert len(arm.commands) > 0
                assert all(np.allclose(command, 0.05) for command in arm.commands)
                delays[name].append(result)
    row = {
        "name": "loop",
        "case": f"{hz:g} Hz, {'all cores loaded' if is_loaded else 'idle'}",
        "delay": {name: summary(np.concatenate(values), hz) for name, values in delays.items()},
        "deadline_ms": min(250 / hz, 5.0),
        "rounds": num_rounds,
        "load_average": [round(load, 2), round(os.getloadavg()[0], 2)],
        "environment": environment(),
    }
    record(row)
    return row


def main(argv: list[str]) -> None:
    for hz in [float(value) for value in argv] or RATES_HZ:
        for is_loaded in (False, True):
            run(hz, is_loaded, rounds(3))


if __name__ == "__main__":
    main(sys.argv[1:])
