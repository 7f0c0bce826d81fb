"""Robots by name."""

from __future__ import annotations

import inspect
from typing import Any

from ptr_robot.robots.interface import Robot

__all__ = ["NAMES", "make_robot"]

NAMES = ("simulated", "replay")


def make_robot(name: str, **options: Any) -> Robot:
    """A robot that is not connected yet.

    Args:
        name: ``simulated`` (a toy kitchen in real time) or ``replay`` (a stored episode).
        options: of that robot's class.

    Raises:
        ValueError: an unknown name or option.
    """
    if name == "simulated":
        from ptr_robot.robots.simulated import SimulatedRobot as Kind
    elif name == "replay":
        from ptr_robot.robots.replay import ReplayRobot as Kind  # type: ignore[assignment]
    else:
        raise ValueError(f"robot: expected one of {', '.join(NAMES)}, got {name!r}")
    known = list(inspect.signature(Kind).parameters)
    for option in options:
        if option not in known:
            raise ValueError(f"robot {name!r} has no option {option!r}; it has {', '.join(known)}")
    return Kind(**options)
