"""The control loop: newest observation -> policy -> safety filter -> arm, at a fixed rate, in C++ threads.

Where the first camera's frames keep the loop's time, its steps follow soon after them (``csrc/runtime/phase_lock``). A
policy answers with a chunk of actions, for this control period and the next ones; how chunks are played is told by
:class:`LoopConfig`.

Python configures, starts and watches; the loop itself (``csrc/runtime/control_loop``) takes no GIL. Robots, cameras and
policies that are written in Python are wrapped so that only their own calls take it.

Shapes: T observations, H actions of a chunk, A action, S state.
"""

from __future__ import annotations

import atexit
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Literal, Protocol

import numpy as np

from ptr_fast import native
from ptr_fast.runtime.safety import INTERVENTIONS, SafetyLimits, names_of

__all__ = ["PLAYS", "Arm", "ControlLoop", "LoopConfig", "Outcome", "Play", "PythonPolicy"]

Play = Literal["receding", "ensemble", "latency"]
PLAYS: tuple[Play, ...] = ("receding", "ensemble", "latency")


class Arm(Protocol):
    """What the loop calls; both may raise or block. ``stop`` comes from another thread, even while ``send`` blocks."""

    def send(self, command: np.ndarray) -> np.ndarray | None:
        """Sends float32 ``[A]``; returns what was really sent, or None for the command itself."""

    def stop(self) -> None:
        """Brings the arm to rest. Called once, when a run ends for whatever reason."""


@dataclass(frozen=True, kw_only=True)
class LoopConfig:
    """How the loop runs.

    Attributes:
        hz: steps per second; single periods are up to 4 % shorter or 10 % longer where the loop follows its camera.
        num_steps: length of the run; 0 runs until it is stopped.
        policy_timeout_s: a policy call that takes longer stops the run, s.
        watchdog_s: an arm call that takes longer, or a loop that did not get to run for so long, stops the run, s.
        dry_run: the arm gets no commands.
        realtime_priority: SCHED_FIFO priority of the loop's two threads, 1 to 98; 0 leaves them as they are.
        cpu: core of the loop's two threads; -1 leaves them as they are.
        lock_memory: keep the process in memory (mlockall).
        record_frames: observations whose frames wait for the recorder at most; 0 records none.
        play: which entry of a chunk a step plays. ``receding``: one after the other, and the policy is asked again
            after ``execute`` of them. ``ensemble``: the policy is asked at every ``execute``-th step, and the weighted
            mean of what all its chunks want for this control period is played (ACT: Zhao et al. 2023). ``latency``: the
            policy runs beside the loop, and the entry is played that belongs to the moment when the command reaches the
            arm: entry j to the time j control periods after the frame was captured. A chunk of one action is played
            alike by the first two, and refused by the third.
        execute: steps between two requests to the policy, at least; 0: a whole chunk in ``receding``, else 1.
        ensemble_decay: m of the weights ``exp(-m i)`` of ``ensemble``, i = 0 for the oldest chunk; 0 weighs all alike,
            below 0 the newest weigh most. ACT's: 0.01.

    Where the policy has no answer in time, the rest of its last chunk is played. After the last entry the arm stands
    still until there is an answer (``held_late``).
    """

    hz: float
    num_steps: int = 0
    policy_timeout_s: float = 2.0
    watchdog_s: float = 1.0
    dry_run: bool = False
    realtime_priority: int = 0
    cpu: int = -1
    lock_memory: bool = False
    record_frames: int = 0
    play: Play = "receding"
    execute: int = 0
    ensemble_decay: float = 0.01


@dataclass(frozen=True, kw_only=True)
class PythonPolicy:
    """A policy in Python, as the loop takes it.

    Attributes:
        act: ``(images, state) -> actions``: images is a dictionary, camera name -> uint8 ``[T, H, W, 3]``, and state is
            float32 ``[T, S]``, the last T observations of control periods, the oldest first; the arrays hold until it
            returns. It answers float32 ``[h, A]`` with at most ``num_actions`` rows, or one action ``[A]``; or None
            where there is no action in time.
        num_actions: H, most actions in an answer.
        num_observations: T.
    """

    act: Callable[[dict[str, np.ndarray], np.ndarray], Any]
    num_actions: int = 1
    num_observations: int = 1


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """How a run ended.

    Attributes:
        reason: name in :data:`ptr_fast.runtime.safety.INTERVENTIONS`, or empty where all steps were done.
        message: what happened, for people.
        arm_stopped: whether the arm's ``stop`` returned.
        num_steps: steps done.
        num_missed: periods of the grid that passed without a command in time.
        num_held: steps in which the arm stood still for want of a fresh observation or action.
        num_dropped_frames: frames that were replaced by a newer one before the policy saw them.
        num_unrecorded: steps or frames that the recorder was too slow for.
        notes: what was asked for and could not be had (real-time priority, locked memory ...).
        legs: name -> durations of one leg of a step: ``count``, ``mean_ns``, ``p50_ns`` .. ``p999_ns``, ``max_ns``,
            ``bucket_begin_ns`` and ``bucket_count``. ``jitter``: woke after the deadline; ``frame_age``: capture of the
            newest frame (of the oldest of several cameras') to the step; ``frame_wait``: :meth:`ControlLoop.put_frame`
            of the first camera to the step; ``policy``: of each answer; ``overhead``: all of the loop's own; ``send``;
            ``capture_to_command``: from the capture of the frame that the command was decided on.
    """

    reason: str
    message: str
    arm_stopped: bool
    num_steps: int
    num_missed: int
    num_held: int
    num_dropped_frames: int
    num_unrecorded: int
    notes: list[str]
    legs: dict[str, dict[str, Any]]


class ControlLoop:
    """One run of one policy on one arm.

    Write observations with :meth:`put_frame` and :meth:`put_state` from any thread, :meth:`warm_up`, then
    :meth:`start`; :meth:`wait` or leaving the ``with`` block ends the run and brings the arm to rest.

    Args:
        config: see :class:`LoopConfig`.
        limits: see :class:`ptr_fast.runtime.safety.SafetyLimits`.
        policy: a :class:`PythonPolicy`; or its function alone, for one observation and one action; or a native
            executor, which takes no GIL.
        arm: see :class:`Arm`.
        frame_sizes: camera name -> height and width of its frames, pixels; in the order that the policy takes them.

    Raises:
        ValueError: settings that contradict each other; the message names them.
        RuntimeError: the native module is missing.
    """

    def __init__(
        self,
        config: LoopConfig,
        limits: SafetyLimits,
        policy: PythonPolicy | Callable[[dict[str, np.ndarray], np.ndarray], Any] | Any,
        arm: Arm,
        frame_sizes: Mapping[str, tuple[int, int]],
    ) -> None:
        module = native.require()
        self.config, self.limits, self.frame_sizes = config, limits, dict(frame_sizes)
        num_axes = len(limits.axes)
        self._frames = {name: module.Mailbox(height * width * 3) for name, (height, width) in frame_sizes.items()}
        self._states = module.Mailbox(4 * limits.state_size)
        if not isinstance(policy, module.Executor):
            made = policy if isinstance(policy, PythonPolicy) else PythonPolicy(act=policy)
            policy = module.PythonExecutor(
                _by_name(made.act, tuple(frame_sizes)),
                list(frame_sizes.values()),
                made.num_observations,
                limits.state_size,
                made.num_actions,
                num_axes,
            )
        self._loop = module.ControlLoop(
            config, limits, list(self._frames.values()), self._states, policy, module.PythonArm(arm, num_axes)
        )

    def put_frame(self, camera: str, frame: np.ndarray, captured_ns: int) -> None:
        """The newest frame of a camera: uint8 ``[H, W, 3]`` RGB, captured at ``time.monotonic_ns()``.

        Raises:
            ValueError: a frame of another size or type.
        """
        if frame.dtype != np.uint8 or frame.shape != (*self.frame_sizes[camera], 3):
            height, width = self.frame_sizes[camera]
            expected = f"expected uint8 [{height}, {width}, 3], got {frame.dtype} {list(frame.shape)}"
            raise ValueError(f"frame of {camera}: {expected}")
        self._frames[camera].write(frame, captured_ns)

    def put_state(self, state: np.ndarray, captured_ns: int) -> None:
        """The newest state: float32 ``[S]``.

        Raises:
            ValueError: a state of another size.
        """
        state = np.ascontiguousarray(state, np.float32)
        if state.shape != (self.limits.state_size,):
            raise ValueError(f"state: expected [{self.limits.state_size}], got {list(state.shape)}")
        self._states.write(state, captured_ns)

    def missing(self) -> str:
        """What has not arrived yet: ``frame of CAMERA``, ``state``, or empty."""
        missing = [f"frame of {camera}" for camera, frames in self._frames.items() if not frames.written]
        return missing[0] if missing else "state" if not self._states.written else ""

    def warm_up(self, num_runs: int = 10) -> float:
        """Runs the policy on the newest observation before the arm is armed; returns the last duration, s."""
        return self._loop.warm_up(num_runs) * 1e-9

    def start(self) -> None:
        """Arms. The first step is a fifth of a period after the first camera's newest frame came, or whole periods
        later where that is over. Raises RuntimeError where no observation has arrived yet.

        A run that is still going when the interpreter exits is stopped then: its threads could not stop the arm later.
        """
        self._loop.start()
        for loop in [loop for loop in _started if not loop.running]:
            del _started[loop]
        _started[self._loop] = 3 * self.config.watchdog_s

    def stop(self, message: str = "the operator stopped the run", reason: str = "stopped_operator") -> None:
        """Asks for a stop; :meth:`wait` returns soon after. Safe from any thread and more than once: the first counts.

        Args:
            message: for people.
            reason: name in :data:`ptr_fast.runtime.safety.INTERVENTIONS`.
        """
        self._loop.request_stop(INTERVENTIONS[reason], message)

    def wait(self, timeout_s: float) -> bool:
        """Waits for the end of the run; False where it goes on after ``timeout_s``."""
        return self._loop.wait(timeout_s)

    def drain(self, max_records: int = 1024) -> Iterator[tuple[np.void, dict[str, np.ndarray] | None]]:
        """Finished steps not drained yet: the record, and the newest frames of that step where they were kept.

        A record is a numpy struct: ``step``, times ``scheduled_ns``, ``woke_ns``, ``captured_ns`` (of the oldest of the
        cameras' newest frames), ``camera_captured_ns`` (of each), ``arrived_ns`` (:meth:`put_frame` of the first),
        ``policy_in_ns`` and ``policy_out_ns`` (of the answer that came in this step), ``filtered_ns``, ``sent_ns`` (0
        where it did not happen), ``entry`` (of the chunk that was played, -1: there was no action) and ``decided_ns``
        (``captured_ns`` of the step that asked for the chunk), ``interventions``, ``missed_deadline``, and ``action``,
        ``command`` (let through by the filter), ``sent`` (what the arm says it took), ``state`` (the first A or S
        numbers count).
        """
        for record in self._loop.drain(max_records):
            slot, frames = int(record["frame_slot"]), None
            if slot >= 0:
                frames = {
                    camera: self._loop.recorded_frame(slot, i).reshape(*size, 3)
                    for i, (camera, size) in enumerate(self.frame_sizes.items())
                }
                self._loop.release_frame(slot)
            yield record, frames

    @property
    def running(self) -> bool:
        """Whether the loop has started and not ended."""
        return self._loop.running

    def outcome(self) -> Outcome:
        """How the run went so far."""
        loop = self._loop
        names = names_of(loop.stop_reason)
        return Outcome(
            reason=names[0] if names else "",
            message=loop.message,
            arm_stopped=loop.arm_answered_stop,
            num_steps=loop.num_steps,
            num_missed=loop.num_missed,
            num_held=loop.num_held,
            num_dropped_frames=sum(frames.dropped for frames in self._frames.values()),
            num_unrecorded=loop.num_unrecorded,
            notes=list(loop.notes),
            legs=loop.legs(),
        )

    def __enter__(self) -> ControlLoop:
        return self

    def __exit__(self, *exception: object) -> None:
        if self._loop.running:
            self.stop("the run was left")
            self.wait(3 * self.config.watchdog_s)


def _by_name(
    act: Callable[[dict[str, np.ndarray], np.ndarray], Any], cameras: tuple[str, ...]
) -> Callable[[list[np.ndarray], np.ndarray], Any]:
    if len(cameras) == 1:
        (camera,) = cameras
        return lambda frames, state: act({camera: frames[0]}, state)
    return lambda frames, state: act(dict(zip(cameras, frames, strict=True)), state)


# Native loops that may still run, and how long their arm may take to come to rest, s.
_started: dict[Any, float] = {}


@atexit.register
def _stop_at_exit() -> None:
    for loop, seconds in _started.items():
        if loop.running:
            loop.request_stop(INTERVENTIONS["stopped_operator"], "the program ended")
            loop.wait(seconds)
