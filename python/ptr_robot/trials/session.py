"""One run of one policy on one robot: observations in, commands out, and every way to end it."""

from __future__ import annotations

import contextlib
import os
import select
import signal
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from ptr_fast.config import PolicySpec
from ptr_fast.runtime.control import ControlLoop, LoopConfig, Outcome
from ptr_fast.runtime.safety import SafetyLimits, names_of
from ptr_robot.robots.interface import Robot, camera_names, captured_ns, match_cameras

__all__ = ["Operator", "SessionResult", "run_session"]

Sink = Callable[[np.void, dict[str, np.ndarray] | None], None]

OBSERVE_S = 0.002  # between two looks at a robot whose observation has not changed
FIRST_OBSERVATION_S = 10.0


@dataclass
class SessionResult:
    """What came of a run.

    Attributes:
        outcome: of the control loop.
        success: the robot's own verdict or the operator's; None where nobody said.
        interventions: name -> steps in which the safety filter did that.
        decisions_late: whole control periods -> commands that were sent so long after the moment that the policy meant
            them for: the capture of its frame, and for entry j of a chunk j periods later. In lock step, where the
            world waits for the policy, all are 0.
    """

    outcome: Outcome
    success: bool | None
    interventions: Counter[str] = field(default_factory=Counter)
    decisions_late: Counter[int] = field(default_factory=Counter)


class Operator:
    """The person beside the arm: Ctrl-C, SIGTERM, a stop file, and on a terminal the keys s, f and space.

    Args:
        stop_file: a run ends as soon as this file exists.

    Attributes:
        verdict: True after s, False after f, None before.
        stop_reason: empty, or why the operator stopped.
        quit_signal: number of the signal that asked to end everything, or 0.
    """

    def __init__(self, stop_file: Path | None = None) -> None:
        self._stop_file = stop_file
        self.verdict: bool | None = None
        self.stop_reason = ""
        self.quit_signal = 0
        self._previous: dict[int, Any] = {}
        self._terminal: Any = None

    def __enter__(self) -> Operator:
        self._previous = {s: signal.signal(s, self._interrupt) for s in (signal.SIGINT, signal.SIGTERM)}
        if sys.stdin.isatty():
            import termios
            import tty

            self._terminal = termios.tcgetattr(sys.stdin)
            tty.setcbreak(sys.stdin)
            print("keys: s success, f failure, space stop", flush=True)
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._previous.items():
            signal.signal(number, handler)
        if self._terminal is not None:
            import termios

            termios.tcsetattr(sys.stdin, termios.TCSADRAIN, self._terminal)

    def begin(self) -> None:
        """A new run: forgets the last one's keys."""
        self.verdict, self.stop_reason = None, ""

    def wants_stop(self) -> bool:
        """Looks at keys and file; True where the run has to end now."""
        if self._terminal is not None and select.select([sys.stdin], [], [], 0)[0]:
            key = os.read(sys.stdin.fileno(), 1)
            if key in (b"s", b"f"):
                self.verdict, self.stop_reason = key == b"s", "the operator judged the trial"
            elif key == b" ":
                self.stop_reason = "the operator pressed space"
        if self.button_pressed():
            self.stop_reason = f"{self._stop_file} exists"
        return bool(self.stop_reason)

    def button_pressed(self) -> bool:
        """Whether the stop file exists: nothing may move while it does."""
        return self._stop_file is not None and self._stop_file.exists()

    def _interrupt(self, number: int, _frame: object) -> None:
        if self.quit_signal:
            raise KeyboardInterrupt
        self.quit_signal = number
        self.stop_reason = "Ctrl-C" if number == signal.SIGINT else "SIGTERM"


class _Arm:
    """The robot as the control loop sees it: arrays in the checkpoint's order."""

    def __init__(self, robot: Robot, names: tuple[str, ...]) -> None:
        self._robot, self._names = robot, names

    def send(self, command: np.ndarray) -> np.ndarray:
        sent = self._robot.send_action(dict(zip(self._names, command.tolist(), strict=True)))
        return np.array([sent[name] for name in self._names], np.float32)

    def stop(self) -> None:
        self._robot.stop()


def run_session(
    robot: Robot,
    policy: Any,
    spec: PolicySpec,
    limits: SafetyLimits,
    config: LoopConfig,
    operator: Operator,
    camera_map: Sequence[str] = (),
    watch: Callable[[ControlLoop], None] | None = None,
    sink: Sink | None = None,
) -> SessionResult:
    """Runs the control loop on a connected robot until it ends, somebody stops it, or the robot sees success.

    Args:
        robot: connected, and reset for this run.
        policy: as :class:`ptr_fast.runtime.control.ControlLoop` takes it; in the cameras and units of ``spec``.
        spec: of the checkpoint.
        limits: of the robot.
        config: of the loop; ``record_frames`` above 0 keeps the frames.
        operator: entered already.
        camera_map: as :func:`ptr_robot.robots.interface.match_cameras` takes it.
        watch: called about ten times a second.
        sink: takes every finished step, and the newest frames at it, by the checkpoint's cameras, where they were kept;
            an error of it stops the arm and is raised.

    Raises:
        RuntimeError: no observation came, or no second frame of a camera.
        ValueError: the robot lacks a camera.
    """
    cameras = match_cameras(robot.name, camera_names(robot), [camera.name for camera in spec.cameras], camera_map)
    sizes = {name: robot.observation_features[own][:2] for name, own in cameras.items()}
    loop = ControlLoop(config, limits, policy, _Arm(robot, spec.action.names), sizes)
    result = SessionResult(loop.outcome(), None)
    operator.begin()
    fresh = {own: threading.Event() for own in cameras.values()}
    with loop, _observing(robot, loop, cameras, spec.state.names, fresh) as failure:
        _wait_for_observation(robot, loop, failure)
        loop.warm_up()
        # The first step follows soon after the newest frame: one that comes now, not the one that was there.
        for each in fresh.values():
            each.clear()
        _wait_for_frames(robot, fresh, failure, operator)
        if operator.stop_reason:
            loop.stop(operator.stop_reason)
        loop.start()
        next_watch = time.monotonic()
        while not loop.wait(0.02):
            _drain(loop, config.hz, result, sink)
            if failure:
                loop.stop(f"the robot's observation failed: {failure[0]}", "stopped_arm")
            elif operator.wants_stop():
                loop.stop(operator.stop_reason)
            elif robot.success():
                result.success = True
                loop.stop("done")
            if watch is not None and time.monotonic() >= next_watch:
                watch(loop)
                next_watch = time.monotonic() + 0.1
        _drain(loop, config.hz, result, sink)
    result.outcome = loop.outcome()
    if operator.verdict is not None:
        result.success = operator.verdict
    elif result.success is None:
        # A trial that the operator broke off says nothing about the policy, unless it had succeeded.
        seen = robot.success()
        result.success = None if operator.stop_reason and not seen else seen
    return result


def _drain(loop: ControlLoop, hz: float, result: SessionResult, sink: Sink | None) -> None:
    for record, frames in loop.drain():
        result.interventions.update(names_of(int(record["interventions"])))
        if record["sent_ns"]:
            late = (record["sent_ns"] - record["decided_ns"]) * 1e-9 * hz - max(int(record["entry"]), 0)
            result.decisions_late[max(int(late), 0)] += 1
        if sink is not None:
            sink(record, frames)


def _wait_for_observation(robot: Robot, loop: ControlLoop, failure: list[BaseException]) -> None:
    deadline = time.monotonic() + FIRST_OBSERVATION_S
    while missing := loop.missing():
        if failure:
            raise RuntimeError(f"{robot.name}: {failure[0]}") from failure[0]
        if time.monotonic() > deadline:
            raise RuntimeError(f"{robot.name}: no {missing} has come for {FIRST_OBSERVATION_S:g} s")
        time.sleep(0.005)


def _wait_for_frames(
    robot: Robot, fresh: dict[str, threading.Event], failure: list[BaseException], operator: Operator
) -> None:
    deadline = time.monotonic() + FIRST_OBSERVATION_S
    for camera, came in fresh.items():
        while not came.wait(0.02) and not operator.wants_stop():
            if failure:
                raise RuntimeError(f"{robot.name}: {failure[0]}") from failure[0]
            if time.monotonic() > deadline:
                raise RuntimeError(f"{robot.name}: no new frame of {camera} has come for {FIRST_OBSERVATION_S:g} s")


@contextlib.contextmanager
def _observing(
    robot: Robot,
    loop: ControlLoop,
    cameras: dict[str, str],
    states: tuple[str, ...],
    fresh: dict[str, threading.Event],
) -> Iterator[list[BaseException]]:
    """A thread that hands every new observation to the loop, and sets ``fresh`` of the robot's cameras; the list gets
    its first error."""
    failure: list[BaseException] = []
    ended = threading.Event()

    def observe() -> None:
        last = dict.fromkeys(cameras, -1)
        try:
            while not ended.is_set():
                asked = time.monotonic_ns()
                seen = robot.get_observation()
                now = time.monotonic_ns()
                # A robot whose clock is ahead must not look fresh for ever: then the arrival counts.
                measured = min(int(seen.get("state_captured_ns", asked)), now)
                loop.put_state(np.array([seen[name] for name in states], np.float32), measured)
                for name, own in cameras.items():
                    captured = min(captured_ns(seen, own, asked), now)
                    if captured != last[name]:
                        loop.put_frame(name, np.ascontiguousarray(seen[own]), captured)
                        last[name] = captured
                        fresh[own].set()
                ended.wait(OBSERVE_S)
        except BaseException as error:  # noqa: BLE001  (the run ends with it)
            failure.append(error)

    thread = threading.Thread(target=observe, name="observe", daemon=True)
    thread.start()
    try:
        yield failure
    finally:
        ended.set()
        thread.join(2.0)  # a robot that blocks is left behind
