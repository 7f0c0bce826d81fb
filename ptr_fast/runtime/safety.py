"""The limits that every command passes through on its way to an arm, and the names of what they did.

The filter itself is C++ (``csrc/runtime/safety_filter``): the control loop calls it without Python. Whatever a policy
answers, a command that leaves it is inside every limit, and an arm that stands still is always allowed to.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from ptr_fast import native

__all__ = ["INTERVENTIONS", "STOP_MASK", "AxisLimits", "SafetyFilter", "SafetyLimits", "names_of"]

# Bits of csrc/runtime/safety_filter.h.
INTERVENTIONS = {
    "bounds": 1 << 0,
    "box": 1 << 1,
    "step": 1 << 2,
    "velocity": 1 << 3,
    "acceleration": 1 << 4,
    "ramp": 1 << 5,
    "held_stale": 1 << 6,
    "held_late": 1 << 7,
    "stopped_stale": 1 << 16,
    "stopped_not_finite": 1 << 17,
    "stopped_mismatch": 1 << 18,
    "stopped_watchdog": 1 << 19,
    "stopped_policy": 1 << 20,
    "stopped_arm": 1 << 21,
    "stopped_operator": 1 << 22,
}
STOP_MASK = 0xFFFF0000


def names_of(interventions: int) -> list[str]:
    """Names of the bits that are set, in the order of :data:`INTERVENTIONS`."""
    return [name for name, bit in INTERVENTIONS.items() if interventions & bit]


@dataclass(frozen=True, kw_only=True)
class AxisLimits:
    """Limits of one dimension of the command, in the command's own unit u. Infinity switches a limit off.

    Attributes:
        name: of the axis, e.g. ``x``.
        relative: whether the command is a displacement from the measured position; else it is a position.
        position: where the state holds the measured position, -1 where it is not measured: a position that nothing
            measures goes to the first command at once, and gets none before one is wanted.
        low, high: of the command, u.
        scale: of the command in the position's unit (0.04 where commands are in 4 cm and positions in m).
        box_low, box_high: the workspace: of the position that a command leads to, with all that was sent before and
            is not in the measured position yet, in its unit (needs a measured position).
        max_step: displacement per command, u.
        max_velocity: u/s.
        max_acceleration: gain of speed, u/s^2; braking is always allowed.
    """

    name: str
    relative: bool
    position: int = -1
    low: float
    high: float
    scale: float = 1.0
    box_low: float = -math.inf
    box_high: float = math.inf
    max_step: float = math.inf
    max_velocity: float = math.inf
    max_acceleration: float = math.inf


@dataclass(frozen=True, kw_only=True)
class SafetyLimits:
    """All limits of one robot at one control rate.

    Attributes:
        axes: one per dimension of the command.
        state_size: numbers in the robot's state.
        period_s: time between two commands, s.
        ramp_s: from the first command that is not held back on, the limits of a displacement (step, velocity, a
            relative axis' bounds) grow from 0 to full over this time, s.
        response_s: so long after a command was sent the measured position has all of it, s; until then, and as long as
            the state was captured before that, the command counts as still to come.
        hold_after_s: an observation older than this makes the arm stand still, s.
        stop_after_s: older than this stops the run, s.
        max_start_mismatch: of an absolute axis' first command from its measured position, in the command's unit.
    """

    axes: Sequence[AxisLimits]
    state_size: int
    period_s: float
    ramp_s: float = 1.0
    response_s: float = 0.2
    hold_after_s: float = 0.5
    stop_after_s: float = 2.0
    max_start_mismatch: float = math.inf

    def describe(self) -> list[str]:
        """One line per axis and one of the times, for people."""
        lines = []
        for axis in self.axes:
            parts = [f"command {axis.low:g} to {axis.high:g}"]
            if math.isfinite(axis.box_low) or math.isfinite(axis.box_high):
                parts.append(f"workspace {axis.box_low:g} to {axis.box_high:g}")
            for label, value in (
                ("step", axis.max_step),
                ("per s", axis.max_velocity),
                ("per s²", axis.max_acceleration),
            ):
                if math.isfinite(value):
                    parts.append(f"{label} {value:g}")
            lines.append(f"{axis.name} ({'relative' if axis.relative else 'absolute'}): " + ", ".join(parts))
        lines.append(
            f"ramp {self.ramp_s:g} s, stands still for an observation older than {self.hold_after_s:g} s, "
            f"stops at {self.stop_after_s:g} s"
        )
        if any(axis.relative and math.isfinite(axis.box_high - axis.box_low) for axis in self.axes):
            lines.append(
                f"the workspace counts what was sent up to {self.response_s:g} s before the state was measured"
            )
        return lines


class SafetyFilter:
    """The filter on its own, for tests and for loops that are not ours.

    Args:
        limits: see :class:`SafetyLimits`.

    Raises:
        ValueError: a limit that would not let the arm stand still; the message names the axis.
        RuntimeError: the native module is missing.
    """

    def __init__(self, limits: SafetyLimits) -> None:
        self.limits = limits
        self._filter = native.require().SafetyFilter(limits)

    def start(self, now_ns: int) -> None:
        """Begins the ramp, and forgets an earlier stop. ``now_ns``: ``time.monotonic_ns()``."""
        self._filter.start(now_ns)

    def apply(
        self,
        wanted: np.ndarray | None,
        state: np.ndarray,
        observation_age_ns: int,
        now_ns: int,
        state_age_ns: int = 0,
        pace: float = 1.0,
    ) -> tuple[np.ndarray | None, int]:
        """The command that may be sent.

        Args:
            wanted: float32 ``[A]``; None where no action came in time.
            state: float32 ``[S]``, the newest measured.
            observation_age_ns: of what the action was decided on.
            now_ns: ``time.monotonic_ns()``.
            state_age_ns: of the state.
            pace: of the limits' period that has passed since the last command, in (0, 1]: where it is below 1, so much
                less of every displacement is let through.

        Returns:
            float32 ``[A]`` and the bits of :data:`INTERVENTIONS`; one of :data:`STOP_MASK` says that the arm must stop.
            None instead of a command where nothing may be sent: then, and before the first one that was wanted.
        """
        return self._filter.apply(wanted, state, observation_age_ns, now_ns, state_age_ns, pace)

    def sent(self, now_ns: int) -> None:
        """Says that the arm got the last command only now (sending it took long)."""
        self._filter.sent(now_ns)

    def stop(self, reason: int) -> None:
        """Stops for a reason found elsewhere."""
        self._filter.stop(reason)

    @property
    def stopped(self) -> int:
        """Bits of the reasons for which it has stopped, 0 while it runs."""
        return self._filter.stopped
