"""Robots by name."""

from __future__ import annotations

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
        from ptr_robot.robots.simulated import SimulatedRobot

        return SimulatedRobot(**options)
    if name == "replay":
        from ptr_robot.robots.replay import ReplayRobot

        return ReplayRobot(**options)
    raise ValueError(f"robot: expected one of {', '.join(NAMES)}, got {name!r}")
