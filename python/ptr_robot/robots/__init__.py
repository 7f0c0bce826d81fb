"""Robots by name."""

from __future__ import annotations

import importlib
import inspect
from typing import Any

from ptr_robot.robots.interface import Robot

__all__ = ["NAMES", "make_robot"]

CLASSES = {
    "simulated": ("ptr_robot.robots.simulated", "SimulatedRobot"),
    "replay": ("ptr_robot.robots.replay", "ReplayRobot"),
    "widowx": ("ptr_robot.robots.widowx", "WidowXRobot"),
}
LEROBOT = "lerobot:"
NAMES = (*CLASSES, LEROBOT + "TYPE")


def make_robot(name: str, **options: Any) -> Robot:
    """A robot that is not connected yet.

    Args:
        name: ``simulated`` (a toy kitchen in real time), ``replay`` (a stored episode), ``widowx`` (a WidowX behind
            its environment service) or ``lerobot:so101_follower`` (a robot of LeRobot's).
        options: of that robot's class; a LeRobot robot also takes LeRobot's own settings.

    Raises:
        ValueError: an unknown name or option.
    """
    if name.startswith(LEROBOT):
        from ptr_robot.robots.lerobot import LeRobotRobot

        return LeRobotRobot(name.removeprefix(LEROBOT), **options)
    if name not in CLASSES:
        raise ValueError(f"robot: expected one of {', '.join(NAMES)}, got {name!r}")
    module, kind_name = CLASSES[name]
    kind = getattr(importlib.import_module(module), kind_name)
    known = list(inspect.signature(kind).parameters)
    for option in options:
        if option not in known:
            raise ValueError(f"robot {name!r} has no option {option!r}; it has {', '.join(known)}")
    return kind(**options)
