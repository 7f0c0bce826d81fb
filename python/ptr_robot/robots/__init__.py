"""Robots by name."""

from __future__ import annotations

import importlib
import inspect
import json
import math
import typing
from typing import Any

from ptr_robot.robots.interface import Robot

__all__ = ["NAMES", "make_robot"]

CLASSES = {
    "simulated": ("ptr_robot.robots.simulated", "SimulatedRobot"),
    "replay": ("ptr_robot.robots.replay", "ReplayRobot"),
    "widowx": ("ptr_robot.robots.widowx", "WidowXRobot"),
}
LEROBOT, CAMERA = "lerobot:", "camera:"
NAMES = (*CLASSES, LEROBOT + "TYPE", "MODULE:CLASS")


def make_robot(name: str, /, **options: Any) -> Robot:
    """A robot that is not connected yet.

    Args:
        name: ``simulated`` (a toy kitchen in real time), ``replay`` (a stored episode), ``widowx`` (a WidowX behind
            its environment service), ``lerobot:so101_follower`` (a robot of LeRobot's) or ``MODULE:CLASS`` (a class of
            :class:`ptr_robot.robots.interface.Robot` in a module of yours).
        options: of that robot's class; a LeRobot robot also takes LeRobot's own settings. ``camera:NAME`` gives the
            robot a camera of this machine's (text as :func:`ptr_robot.cameras.make_camera` takes it).

    Raises:
        ValueError: an unknown name or option, or one of another type; a missing one.
        RuntimeError: a library that is not installed, or a camera that does not open.
    """
    cameras = {key.removeprefix(CAMERA): options.pop(key) for key in list(options) if key.startswith(CAMERA)}
    if cameras:
        from ptr_robot.cameras import make_camera
        from ptr_robot.robots.with_camera import WithCameras

        made = {key: make_camera(str(text)) for key, text in cameras.items()}
        return WithCameras(make_robot(name, **options), made)
    if name.startswith(LEROBOT):
        from ptr_robot.robots.lerobot import LeRobotRobot

        return LeRobotRobot(name.removeprefix(LEROBOT), **options)
    kind = getattr(importlib.import_module(CLASSES[name][0]), CLASSES[name][1]) if name in CLASSES else _named(name)
    return kind(**_checked(name, kind, options))


def _named(name: str) -> type[Robot]:
    """The class ``MODULE:CLASS`` of somebody else's module.

    Raises:
        ValueError: another form, no such module or class, or one that is no robot.
    """
    module, colon, kind_name = name.partition(":")
    if not (module and colon and kind_name):
        raise ValueError(f"robot: expected one of {', '.join(NAMES)}, got {name!r}")
    try:
        kind = getattr(importlib.import_module(module), kind_name)
    except (ModuleNotFoundError, AttributeError) as error:
        raise ValueError(f"robot {name!r}: {error}; the module must be importable from here (PYTHONPATH)") from error
    if not (isinstance(kind, type) and issubclass(kind, Robot)):
        raise ValueError(f"robot {name!r}: expected a class that extends ptr_robot.robots.interface.Robot, got {kind}")
    return kind


def _checked(name: str, kind: Any, options: dict[str, Any]) -> dict[str, Any]:
    """The options as the class wants them; a text that looks like a number is a text again where one is wanted."""
    known, hints = inspect.signature(kind).parameters, typing.get_type_hints(kind.__init__)
    checked = {}
    for option, value in options.items():
        if option not in known:
            raise ValueError(f"robot {name!r} has no option {option!r}; it has {', '.join(known)}")
        wanted = hints[option]
        right = isinstance(value, wanted) and isinstance(value, bool) == (wanted is bool)
        if wanted is float and type(value) is int and abs(value) < 2**53:
            value, right = float(value), True
        elif not right and issubclass(str, wanted) and isinstance(value, int | float):
            value, right = json.dumps(value), True
        if not right or (isinstance(value, float) and not math.isfinite(value)):
            kinds = " or ".join(one.__name__ for one in typing.get_args(wanted) or (wanted,))
            raise ValueError(f"robot {name!r}: option {option}: expected {kinds}, got {value!r}")
        checked[option] = value
    for option, parameter in known.items():
        if parameter.default is parameter.empty and option not in options:
            raise ValueError(f"robot {name!r} needs the option {option}")
    return checked
