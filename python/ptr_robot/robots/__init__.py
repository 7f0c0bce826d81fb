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
LEROBOT, CAMERA = "lerobot:", "camera:"
NAMES = (*CLASSES, LEROBOT + "TYPE")


def make_robot(name: str, **options: Any) -> Robot:
    """A robot that is not connected yet.

    Args:
        name: ``simulated`` (a toy kitchen in real time), ``replay`` (a stored episode), ``widowx`` (a WidowX behind
            its environment service) or ``lerobot:so101_follower`` (a robot of LeRobot's).
        options: of that robot's class; a LeRobot robot also takes LeRobot's own settings. ``camera:NAME`` gives the
            robot a camera of this machine's (text as :func:`ptr_robot.cameras.make_camera` takes it).

    Raises:
        ValueError: an unknown name or option.
        RuntimeError: a library that is not installed, or a camera that does not open.
    """
    cameras = {key.removeprefix(CAMERA): options.pop(key) for key in list(options) if key.startswith(CAMERA)}
    if cameras:
        from ptr_robot.cameras import make_camera
        from ptr_robot.robots.with_camera import WithCameras

        made = {key: make_camera(text) for key, text in cameras.items()}
        return WithCameras(make_robot(name, **options), made)
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
