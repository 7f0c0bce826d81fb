"""Which value of a gripper's action is open and which is closed, and actions stored mirrored.

A unit such as ``1 = closed, 0 = open`` carries it from here to doctor and robots; nothing else is ever assumed.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from ptr_robot.datasets.options import Args, pairs

__all__ = ["Gripper", "find_gripper", "gripper_dimension", "read_unit"]

SAYS = re.compile(r"(?<![\d.])([-+]?\d+(?:\.\d+)?)\s*(?:=|:|is)?\s*(open|clos)")
MOVES = 0.5  # of its range that a gripper must have moved for its ends to be told from the data


@dataclass(frozen=True, kw_only=True)
class Gripper:
    """The gripper among the actions of a store.

    Attributes:
        dimension: its place.
        is_open, is_closed: the values in the store; None where not known.
        mirrored: the store holds ``mirrored - value`` of the source's value; None: the value itself.
    """

    dimension: int
    is_open: float | None = None
    is_closed: float | None = None
    mirrored: float | None = None

    @property
    def unit(self) -> str:
        """``1 = open, 0 = closed``: the larger value first; empty where neither is known."""
        ends = [(self.is_open, "open"), (self.is_closed, "closed")]
        known = sorted(((value, word) for value, word in ends if value is not None), reverse=True)
        return ", ".join(f"{value:g} = {word}" for value, word in known)


def read_unit(unit: str) -> tuple[float | None, float | None]:
    """The values that a unit calls open and closed; None for what it does not say."""
    said = {word: float(value) for value, word in SAYS.findall(unit.lower())}
    return said.get("open"), said.get("clos")


def gripper_dimension(names: Sequence[str]) -> int | None:
    """The first dimension that is called a gripper; None where there is none."""
    return next((i for i, name in enumerate(names) if "grip" in name.lower()), None)


def find_gripper(
    args: Args, names: Sequence[str], units: Sequence[str], sample: np.ndarray | None, mirrored: float | None
) -> Gripper | None:
    """The gripper by its name or as the options say, with what they or its unit say of its ends.

    Args:
        args: ``gripper`` and ``flip_gripper``.
        names, units: of the source's actions.
        sample: some actions ``[n, A]`` of the source, for a mirror whose ends are not both known; or None.
        mirrored: the mirror of a store that is gone on with; or None.

    Raises:
        ValueError: the options name no dimension or value, or the mirror's ends are not known.
    """
    said = pairs(args.gripper, "gripper", ("open", "closed", "dimension"))
    dimension = _dimension(said.pop("dimension", ""), names, asked=bool(args.gripper) or args.flip_gripper)
    if dimension is None:
        return None
    is_open, is_closed = read_unit(units[dimension])
    try:
        if said:
            is_open, is_closed = (float(said[end]) if end in said else None for end in ("open", "closed"))
    except ValueError as error:
        raise ValueError(f"--gripper: expected numbers such as closed=1 open=0, got {list(args.gripper)}") from error
    if is_open is not None and is_open == is_closed:
        raise ValueError(f"--gripper: expected two values, got {is_open:g} for open and closed")
    if not args.flip_gripper:
        return Gripper(dimension=dimension, is_open=is_open, is_closed=is_closed)
    if is_open is None or is_closed is None:
        low, high = _ends(None if sample is None else sample[:, dimension], is_open, is_closed, mirrored)
        if is_open is None and is_closed is None:
            is_open, is_closed = low, high  # a mirror is asked for because 1 is closed
        is_open = low + high - is_closed if is_open is None else is_open  # type: ignore[operator]
        is_closed = low + high - is_open if is_closed is None else is_closed
    return Gripper(dimension=dimension, is_open=is_closed, is_closed=is_open, mirrored=is_open + is_closed)


def _dimension(named: str, names: Sequence[str], asked: bool) -> int | None:
    if named:
        place = int(named) if named.isdigit() else list(names).index(named) if named in names else -1
        if not 0 <= place < len(names):
            raise ValueError(f"--gripper dimension={named}: expected one of {list(names)} or its number from 0")
        return place
    found = gripper_dimension(names)
    if found is None and asked:
        raise ValueError(
            f"--gripper: none of the actions {list(names)} is called a gripper: add dimension=NAME, "
            "or name all of them with --action-names"
        )
    return found


def _ends(
    values: np.ndarray | None, is_open: float | None, is_closed: float | None, mirrored: float | None
) -> tuple[float, float]:
    """-1 and 1, or 0 and 1, by the store's mirror or what the values show.

    Raises:
        ValueError: they do not show it.
    """
    one = is_open if is_open is not None else is_closed
    if mirrored is not None:
        other = mirrored - one if one is not None else 1.0
        return min(other, mirrored - other), max(other, mirrored - other)
    low, high = (float(values.min()), float(values.max())) if values is not None and len(values) else (0.0, 0.0)
    ends = (-1.0, 1.0) if low < -MOVES else (0.0, 1.0)
    inside = ends[0] - 1e-3 <= low and high <= ends[1] + 1e-3 and high - low > MOVES
    if not inside or (one is not None and one not in ends):
        raise ValueError(
            f"--flip-gripper: the ends of the gripper are not known, the first episodes show {low:g} to {high:g}; "
            "say both: --gripper closed=VALUE open=VALUE"
        )
    return ends
