"""What is known of a source's numbers: names, units, gripper, bounds and control rate of the store that it becomes.

Each comes from an option, else from the layout (asked for, or recognised by name and said), else from what the source
itself calls it; else it is ``unknown`` and conversion says so. Bounds that nobody states are measured: the 1st and 99th
percentile of each dimension over the whole store, least and largest value where it has only a few, as a gripper.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

from ptr_fast.types import ActionSpec, StateSpec
from ptr_robot.datasets.grippers import Gripper, find_gripper, read_unit
from ptr_robot.datasets.layout import Layout, Numbers
from ptr_robot.datasets.options import Args, pairs

if TYPE_CHECKING:
    from ptr_robot.datasets.source import Source

__all__ = ["UNKNOWN", "Space", "describe", "measured_bounds", "refuted_by", "share_outside"]

UNKNOWN = "unknown"
ASSUMED_HZ = 5.0
PERCENTILES = (0.01, 0.99)
REFUTED = 0.2
"""Share of steps outside the bounds of a recognised layout, in any dimension, from which it is another robot's."""
FEW_VALUES = 8
"""Different values, each taken again and again, up to which a dimension is a switch: percentiles would cut off its
rarer side."""
# Half of a range that data never leaves: keeps low < high for a dimension that does not move.
SMALLEST_HALF_RANGE = 1e-3


@dataclass(frozen=True, kw_only=True)
class Space:
    """The numbers of a store.

    Attributes:
        action: names, units and bounds; ``bounds_source`` is ``unfinished`` until they are measured.
        state: names and units.
        control_hz: steps per second.
        gripper: the gripper among the actions, where there is one.
        layout: name of the layout that was taken; empty where none was.
        is_recognised: nobody asked for that layout.
        unknown: what nobody stated, in words.
        notes: what a user should know.
    """

    action: ActionSpec
    state: StateSpec
    control_hz: float
    gripper: Gripper | None
    layout: str
    is_recognised: bool
    unknown: tuple[str, ...]
    notes: tuple[str, ...]


def describe(
    args: Args,
    source: Source,
    layout: Layout | None,
    *,
    action_dim: int,
    state_dim: int,
    sample: np.ndarray | None = None,
    mirrored: float | None = None,
) -> Space:
    """Everything that options, layout and source say of the numbers.

    Args:
        args: the options.
        source: what is converted.
        layout: its layout, or None.
        action_dim, state_dim: numbers per action and state.
        sample, mirrored: see :func:`ptr_robot.datasets.grippers.find_gripper`.

    Raises:
        ValueError: an option does not fit the numbers, or the layout that was asked for does not.
    """
    layout, notes = _fitting(args, layout, action_dim, state_dim)
    names, units, unknown = _labels(args, source, layout.action if layout else None, "action", action_dim)
    gripper = find_gripper(args, names, units, sample, mirrored)
    if gripper is not None:
        place = gripper.dimension
        if "grip" not in names[place].lower() and "gripper" not in names:
            names = (*names[:place], "gripper", *names[place + 1 :])
        says_so = read_unit(units[place]) == (gripper.is_open, gripper.is_closed)  # in words of its own, which stay
        units = (*units[:place], units[place] if says_so else gripper.unit or units[place], *units[place + 1 :])
        if gripper.is_open is None and gripper.is_closed is None:
            unknown.append("which way the gripper opens")
    elif any("names" in what for what in unknown):
        unknown.append("which action is the gripper, and which way it opens")
    state_layout = layout.state if layout and layout.state and len(layout.state.names) == state_dim else None
    state_names, state_units, state_unknown = _labels(args, source, state_layout, "state", state_dim)
    unknown += state_unknown
    control_hz = args.control_hz or getattr(source, "control_hz", None) or (layout.control_hz if layout else None)
    if control_hz is None:
        control_hz = ASSUMED_HZ
        unknown.append(f"steps per second ({ASSUMED_HZ:g} assumed)")
    numbers = layout.action if layout else None
    return Space(
        action=_action(args, names, units, numbers, gripper, layout.name if layout else ""),
        state=StateSpec(names=state_names, units=state_units),
        control_hz=control_hz,
        gripper=gripper,
        layout=layout.name if layout else "",
        is_recognised=bool(layout) and not args.layout,
        unknown=tuple(unknown),
        notes=notes,
    )


def _fitting(
    args: Args, layout: Layout | None, action_dim: int, state_dim: int
) -> tuple[Layout | None, tuple[str, ...]]:
    """The layout where it fits the numbers of actions and states, and why not."""
    if layout is None:
        return None, ()
    told = ""
    if len(layout.action.names) != action_dim:
        told = f"it has {len(layout.action.names)} actions {list(layout.action.names)}, these are {action_dim}"
    elif layout.state and len(layout.state.names) != state_dim:
        told = f"it has a state of {len(layout.state.names)} numbers, this one has {state_dim}"
        if args.layout:
            return layout, (f"layout {layout.name}: {told}: names and units of the state are not taken from it",)
    if not told:
        return layout, ()
    if args.layout:
        raise ValueError(f"--layout {args.layout}: {told}; --key chooses other features, --layout none takes no layout")
    return None, (f"this looks like layout {layout.name!r} by its name or files, but is not: {told}",)


def _labels(
    args: Args, source: Source, known: Numbers | None, field: str, dim: int
) -> tuple[tuple[str, ...], tuple[str, ...], list[str]]:
    """Names and units of one field, and which of the two nobody stated."""
    unknown = []
    asked_names, asked_units = getattr(args, f"{field}_names"), getattr(args, f"{field}_units")
    for option, values in ((f"{field}-names", asked_names), (f"{field}-units", asked_units)):
        if values and len(values) != dim:
            raise ValueError(f"--{option}: expected {dim} values, one for each dimension, got {len(values)}")
    names = asked_names or (known.names if known else ()) or source.names.get(field, ())
    if not names:
        names = tuple(f"{field}_{i}" for i in range(dim))
        unknown.append(f"names of the {field}'s dimensions")
    units = asked_units or (known.units if known else ()) or source.units.get(field, ())
    units = tuple(unit or UNKNOWN for unit in units or ("",) * dim)
    if missing := [name for name, unit in zip(names, units, strict=True) if unit == UNKNOWN]:
        unknown.append(f"units of the {field}" + ("" if len(missing) == dim else f"'s {', '.join(missing)}"))
    return names, units, unknown


def _action(
    args: Args,
    names: tuple[str, ...],
    units: tuple[str, ...],
    known: Numbers | None,
    gripper: Gripper | None,
    layout: str,
) -> ActionSpec:
    """The action space with the bounds that are stated; placeholders where they are to be measured."""
    stated = _mirrored(known, gripper) if known and known.low else None
    if args.bounds == ("layout",) and stated is None:
        what = f"layout {layout} has none" if layout else "there is no layout; name one with --layout"
        raise ValueError(f"--bounds layout: {what}")
    if args.bounds in ((), ("layout",)) and stated:
        return ActionSpec(names=names, units=units, low=stated[0], high=stated[1], bounds_source=f"layout {layout}")
    if args.bounds in ((), ("data",)):
        low, high = (-1.0,) * len(names), (1.0,) * len(names)
        return ActionSpec(names=names, units=units, low=low, high=high, bounds_source="unfinished")
    if args.bounds == ("reference",):
        raise ValueError("--bounds reference: the bounds of a named layout are called 'layout', e.g. --layout bridge")
    given = pairs(args.bounds, "bounds", (*names, "all"))
    bounds = []
    for i, name in enumerate(names):
        text = given.get(name, given.get("all", ""))
        if not text and stated is None:
            raise ValueError(f"--bounds: nothing is said about {name!r}; add {name}=LOW:HIGH or all=LOW:HIGH")
        bounds.append(_range(name, text) if text else (stated[0][i], stated[1][i]))  # type: ignore[index]
    low, high = (tuple(column) for column in zip(*bounds, strict=True))
    return ActionSpec(names=names, units=units, low=low, high=high, bounds_source="options")


def _range(name: str, text: str) -> tuple[float, float]:
    try:
        low, high = (float(piece) for piece in text.split(":"))
    except ValueError as error:
        raise ValueError(f"--bounds {name}={text}: expected LOW:HIGH, two numbers") from error
    if not (np.isfinite(low) and np.isfinite(high) and low < high):
        raise ValueError(f"--bounds {name}={text}: expected two finite numbers, the lower one first")
    return low, high


def _mirrored(known: Numbers, gripper: Gripper | None) -> tuple[tuple[float, ...], tuple[float, ...]]:
    low, high = list(known.low), list(known.high)
    if gripper is not None and gripper.mirrored is not None:
        place = gripper.dimension
        low[place], high[place] = gripper.mirrored - high[place], gripper.mirrored - low[place]
    return tuple(low), tuple(high)


def refuted_by(space: Space, layout: Layout | None, rows: np.ndarray) -> str:
    """Why a recognised layout is not that of these actions ``[n, A]``; empty where they fit or it was asked for."""
    if layout is None or not space.is_recognised or not layout.action.low:
        return ""
    low, high = _mirrored(layout.action, space.gripper)
    share = share_outside(replace(space.action, low=low, high=high), rows)
    worst = [int(i) for i in np.argsort(-share) if share[i] > REFUTED]
    if not worst:
        return ""
    words = ", ".join(f"{100 * share[i]:.0f} % of {space.action.names[i]}" for i in worst)
    return (
        f"this looks like layout {layout.name!r} by its name or files, but {words} lie outside its bounds: nothing is "
        f"taken from it; --layout {layout.name} takes it all the same"
    )


def measured_bounds(action: ActionSpec, rows: np.ndarray, gripper: Gripper | None) -> ActionSpec:
    """The action space with bounds from the data, ``bounds_source`` ``"data"``; a gripper's from its ends if known.

    Args:
        action: names and units.
        rows: all actions, float ``[n, A]``, finite.
        gripper: the gripper among them, or None.
    """
    low, high = np.quantile(rows.astype(np.float64), PERCENTILES, axis=0)
    for i, column in enumerate(rows.T):
        if len(np.unique(column)) <= min(FEW_VALUES, len(column) // 4):
            low[i], high[i] = column.min(), column.max()
    if gripper is not None and gripper.is_open is not None and gripper.is_closed is not None:
        low[gripper.dimension], high[gripper.dimension] = sorted((gripper.is_open, gripper.is_closed))
    centre, half = (low + high) / 2, np.maximum((high - low) / 2, SMALLEST_HALF_RANGE)
    low, high = (tuple(round(float(value), 9) for value in bound) for bound in (centre - half, centre + half))
    return replace(action, low=low, high=high, bounds_source="data")


def share_outside(action: ActionSpec, rows: np.ndarray) -> np.ndarray:
    """Share of actions ``[n, A]`` outside the bounds, per dimension: they are clipped when loaded."""
    low, high = np.asarray(action.low), np.asarray(action.high)
    slack = 1e-4 * (high - low)
    return ((rows < low - slack) | (rows > high + slack)).mean(axis=0) if len(rows) else np.zeros(len(low))
