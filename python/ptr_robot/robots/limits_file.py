"""Safety limits of a robot as a JSON file, for robots that bring none.

    {"format": "ptr-fast limits 1",
     "about": "SO-101 on the left table, measured by hand",
     "axes": [{"name": "shoulder_pan.pos", "unit": "deg", "relative": false, "state": "shoulder_pan.pos",
               "low": -90, "high": 90, "max_step": 4, "max_velocity": 60}, ...],
     "max_start_mismatch": 10}

One axis per action of the robot, in any order. ``name``: the action. ``unit``: its unit u, for people and for the
comparison with a checkpoint. ``relative``: whether it is a displacement (or a velocity), else a position. ``state``:
the state that measures it; none where nothing does. ``low``, ``high``: of the command, u. ``scale``: state units per u.
``box_low``, ``box_high``: of the position it leads to, in the state's unit. ``max_step``: u per command.
``max_velocity``: u/s. ``max_acceleration``: u/s^2. A limit that is left out or null is none; but a position must have
``max_step`` or ``max_velocity``. For all axes: ``ramp_s``: time in which step and velocity grow from 0 to full at the
start. ``response_s``: so long after a command was sent the state has all of it (0.2 s). Until then the box counts it as
still to come: too long makes a displacement slow beside the bounds, too short lets the arm leave by what is missing.
``hold_after_s``, ``stop_after_s``: age of an observation at which the arm stands still (the longer of 0.25 s and two
control periods), or the run stops (2 s).
``max_start_mismatch``: largest distance of a position's first command from where the arm is, u; needed where there is a
position that is measured.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from ptr_fast.config import from_dict, to_dict
from ptr_fast.files import write_atomically
from ptr_fast.runtime.safety import AxisLimits, SafetyLimits

__all__ = ["FORMAT", "AxisEntry", "LimitsFile", "read_limits", "write_limits"]

FORMAT = "ptr-fast limits 1"
MAX_FILE_BYTES = 1 << 20
MAX_TIME_S = 60.0
LIMITS = ("box_low", "box_high", "max_step", "max_velocity", "max_acceleration")


@dataclass(frozen=True, kw_only=True)
class AxisEntry:
    """One axis of the file; see the module's text."""

    name: str
    unit: str
    relative: bool
    low: float
    high: float
    state: str | None = None
    scale: float = 1.0
    box_low: float | None = None
    box_high: float | None = None
    max_step: float | None = None
    max_velocity: float | None = None
    max_acceleration: float | None = None


@dataclass(frozen=True, kw_only=True)
class LimitsFile:
    """The whole file; see the module's text."""

    format: str
    axes: tuple[AxisEntry, ...]
    about: str = ""
    ramp_s: float = 1.0
    response_s: float = 0.2
    hold_after_s: float | None = None
    stop_after_s: float = 2.0
    max_start_mismatch: float | None = None

    @property
    def units(self) -> dict[str, str]:
        """Action -> its unit."""
        return {axis.name: axis.unit for axis in self.axes}

    def limits(self, action_names: Sequence[str], state_names: Sequence[str], hz: float) -> SafetyLimits:
        """The limits of a robot with these actions and states, in their order, at this control rate.

        Raises:
            ValueError: an axis that the robot lacks or the file does not name, or a state that there is not.
        """
        entries = {axis.name: axis for axis in self.axes}
        missing, extra = [n for n in action_names if n not in entries], [n for n in entries if n not in action_names]
        if missing or extra:
            raise ValueError(f"limits do not fit the robot: no axis for {missing}, no action for {extra}")
        for axis in self.axes:
            if axis.state is not None and axis.state not in state_names:
                raise ValueError(f"limits of {axis.name!r}: the robot has no state {axis.state!r}: {list(state_names)}")
        axes = []
        for name in action_names:
            axis = entries[name]
            given = {n: getattr(axis, n) for n in LIMITS if getattr(axis, n) is not None}
            position = -1 if axis.state is None else list(state_names).index(axis.state)
            axes.append(
                AxisLimits(
                    name=name,
                    relative=axis.relative,
                    position=position,
                    low=axis.low,
                    high=axis.high,
                    scale=axis.scale,
                    **given,
                )
            )
        return SafetyLimits(
            axes=axes,
            state_size=len(state_names),
            period_s=1 / hz,
            ramp_s=self.ramp_s,
            response_s=self.response_s,
            hold_after_s=min(max(0.25, 2 / hz), self.stop_after_s) if self.hold_after_s is None else self.hold_after_s,
            stop_after_s=self.stop_after_s,
            max_start_mismatch=math.inf if self.max_start_mismatch is None else self.max_start_mismatch,
        )


def read_limits(path: Path | str) -> LimitsFile:
    """Reads and checks a limits file.

    Raises:
        ValueError: it is missing or damaged, or a field is unknown, missing or unsafe; names the file and the field.
    """
    path = Path(path)
    try:
        if path.stat().st_size > MAX_FILE_BYTES:
            raise ValueError(f"{path}: expected a limits file of at most {MAX_FILE_BYTES} bytes")
        data = json.loads(path.read_bytes())
    except OSError as error:
        raise ValueError(f"{path}: cannot read the limits: {error.strerror}") from error
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{path}: not a limits file: {error}") from error
    found = data.get("format") if isinstance(data, dict) else None
    if found != FORMAT:
        raise ValueError(f"{path}: format: expected {FORMAT!r}, got {found!r}")
    limits = from_dict(LimitsFile, data, str(path))
    names = [axis.name for axis in limits.axes]
    if not names or len(set(names)) != len(names):
        raise ValueError(f"{path}: axes: expected one or more with distinct names, got {names}")
    for axis in limits.axes:
        where = f"{path}: axis {axis.name!r}"
        values = [getattr(axis, name) for name in ("low", "high", "scale", *LIMITS)]
        if not all(math.isfinite(value) for value in values if value is not None):
            raise ValueError(f"{where}: expected finite numbers; leave a limit out where there is none")
        if not axis.low < axis.high or axis.scale <= 0:
            raise ValueError(f"{where}: expected low < high and scale > 0, got {axis.low}, {axis.high}, {axis.scale}")
        if axis.state is None and (axis.box_low is not None or axis.box_high is not None):
            raise ValueError(f"{where}: a box needs the state that measures it")
        if not axis.relative and axis.max_step is None and axis.max_velocity is None:
            raise ValueError(f"{where}: a position needs max_step or max_velocity: without one the arm may leap")
    for name in ("ramp_s", "response_s", "hold_after_s", "stop_after_s"):
        if getattr(limits, name) is not None and not 0 <= getattr(limits, name) <= MAX_TIME_S:
            raise ValueError(f"{path}: {name}: expected 0 to {MAX_TIME_S:g} s, got {getattr(limits, name):g}")
    measured = any(not axis.relative and axis.state is not None for axis in limits.axes)
    if measured and limits.max_start_mismatch is None:
        raise ValueError(f"{path}: max_start_mismatch: needed for positions that are measured")
    return limits


def write_limits(
    path: Path | str, limits: SafetyLimits, units: Mapping[str, str], state_names: Sequence[str], about: str = ""
) -> None:
    """Writes a robot's limits as a file that :func:`read_limits` reads; a start to edit from.

    Args:
        units: action -> unit. state_names: in the robot's order.
    """

    def finite(value: float) -> float | None:
        return value if math.isfinite(value) else None

    axes = tuple(
        AxisEntry(
            name=axis.name,
            unit=units[axis.name],
            relative=axis.relative,
            state=state_names[axis.position] if axis.position >= 0 else None,
            low=axis.low,
            high=axis.high,
            scale=axis.scale,
            **{name: finite(getattr(axis, name)) for name in LIMITS},
        )
        for axis in limits.axes
    )
    file = LimitsFile(
        format=FORMAT,
        about=about,
        axes=axes,
        ramp_s=limits.ramp_s,
        response_s=limits.response_s,
        hold_after_s=limits.hold_after_s,
        stop_after_s=limits.stop_after_s,
        max_start_mismatch=finite(limits.max_start_mismatch),
    )
    write_atomically(Path(path), (json.dumps(to_dict(file), indent=2) + "\n").encode())
