"""Any robot of LeRobot's as a robot here: ``lerobot:so101_follower`` with its own settings and a limits file.

LeRobot is imported when such a robot is made, and nothing of it is needed otherwise.

Source: LeRobot ``robots/robot.py``, ``robots/config.py``, and how its programs parse settings (draccus).
"""

from __future__ import annotations

import contextlib
import importlib
import pkgutil
import threading
import time
from pathlib import Path
from typing import Any

import numpy as np

from ptr_fast.runtime.safety import SafetyLimits
from ptr_robot.robots.frame_age import FrameAge
from ptr_robot.robots.interface import LeRobotShape
from ptr_robot.robots.limits_file import LimitsFile, read_limits

__all__ = ["LeRobotRobot"]

STOP_WAIT_S = 0.5


class LeRobotRobot(LeRobotShape):
    """A robot of LeRobot's, used by one thread at a time: most of them have one serial bus.

    Args:
        type: LeRobot's name of it, e.g. ``so101_follower``.
        limits: limits file (``limits_file``); without one the robot is refused before anything moves.
        config: JSON file of LeRobot's settings of that type; empty takes its defaults.
        settings: LeRobot's settings over those, as on its command line: ``port="/dev/ttyACM0"``.

    Raises:
        RuntimeError: LeRobot is not installed.
        ValueError: LeRobot has no such type, a setting is wrong, or the limits do not fit the robot.
    """

    def __init__(self, type: str, /, limits: Path | str = "", config: Path | str = "", **settings: Any) -> None:
        self.name = f"lerobot:{type}"
        self._limits: LimitsFile | None = read_limits(limits) if limits else None
        self._robot = _make(self.name, type, config, settings)
        features = self._robot.observation_features
        self._cameras = {
            name: tuple(shape)
            for name, shape in features.items()
            if isinstance(shape, tuple | list) and len(shape) == 3 and shape[2] == 3
        }
        self._states = [name for name, kind in features.items() if kind in (float, int)]
        self.observation_features: dict[str, Any] = {**dict.fromkeys(self._states, float), **self._cameras}
        self.action_features: dict[str, Any] = dict.fromkeys(self._robot.action_features, float)
        self.units = self._limits.units if self._limits else {}
        if self._limits is not None:
            self.limits(1.0)  # fits, or says so now
        self._ages = {name: FrameAge() for name in self._cameras}
        self._bus = threading.Lock()
        self._stopped = threading.Event()
        self._sent: dict[str, float] = {}

    @property
    def is_connected(self) -> bool:
        return bool(self._robot.is_connected)

    def connect(self, calibrate: bool = True) -> None:
        with self._bus:
            self._robot.connect(calibrate)
        self._stopped.clear()
        self._sent = {}

    def reset(self, seed: int) -> None:
        """Takes actions again after a stop; nothing moves."""
        self._stopped.clear()
        self._sent = {}

    def get_observation(self) -> dict[str, Any]:
        """States and frames; ``captured_ns`` is when the oldest of the frames was first asked for.

        Raises:
            RuntimeError: an observation without what its features promise.
        """
        with self._bus:
            asked_ns = time.monotonic_ns()
            observed = self._robot.get_observation()
        missing = [name for name in self.observation_features if name not in observed]
        if missing:
            raise RuntimeError(f"{self.name}: an observation without {missing}")
        out: dict[str, Any] = {name: float(observed[name]) for name in self._states}
        captured = [asked_ns]
        for name, shape in self._cameras.items():
            frame = np.asarray(observed[name])
            if frame.dtype != np.uint8 or frame.shape != shape:
                raise RuntimeError(
                    f"{self.name}: camera {name!r}: expected uint8 {list(shape)}, got {frame.dtype} {list(frame.shape)}"
                )
            out[name] = frame
            captured.append(self._ages[name].captured_ns(frame, asked_ns))
        return {**out, "captured_ns": min(captured)}

    def send_action(self, action: dict[str, float]) -> dict[str, float]:
        """Sends an action; returns what LeRobot says was sent.

        Raises:
            RuntimeError: it was stopped and not reset since.
        """
        wanted = {name: float(action[name]) for name in self.action_features}
        with self._bus:
            if self._stopped.is_set():
                raise RuntimeError(f"{self.name}: it was stopped; reset it first")
            sent = self._robot.send_action(dict(wanted)) or wanted
            self._sent = {name: float(sent.get(name, wanted[name])) for name in wanted}
            return dict(self._sent)

    def stop(self) -> None:
        """Sends nothing more until a reset. Positions rest at the last one that was sent, at most one step away;
        displacements and velocities are set to 0 first."""
        self._stopped.set()
        relative = [axis.name for axis in self._limits.axes if axis.relative] if self._limits else []
        if relative and self._sent and self._bus.acquire(timeout=STOP_WAIT_S):
            try:
                self._robot.send_action({**self._sent, **dict.fromkeys(relative, 0.0)})
            finally:
                self._bus.release()

    def success(self) -> None:
        """Only a person can tell."""

    def limits(self, hz: float) -> SafetyLimits:
        """Of the limits file.

        Raises:
            ValueError: there is none, or it does not fit.
        """
        if self._limits is None:
            raise ValueError(
                f"{self.name}: no safety limits are known for this robot; write a limits file "
                "(python -m pydoc ptr_robot.robots.limits_file) and name it with limits=FILE"
            )
        return self._limits.limits(list(self.action_features), self._states, hz)

    def disconnect(self) -> None:
        with self._bus:
            if self._robot.is_connected:
                self._robot.disconnect()


def _make(name: str, type_: str, config: Path | str, settings: dict[str, Any]) -> Any:
    try:
        import draccus
        from lerobot import robots
    except ImportError as error:
        raise RuntimeError(f"{name}: LeRobot is not installed ({error}); pip install lerobot") from error
    kind = _config_class(robots, name, type_)
    arguments = [f"--{key}={value}" for key, value in settings.items()]
    try:
        with draccus.config_type("json"):
            parsed = draccus.parse(kind, str(config) if config else None, args=arguments)
    except SystemExit as error:  # its parser of arguments leaves the program
        raise ValueError(f"{name}: LeRobot does not take the settings {settings}") from error
    except OSError as error:
        raise ValueError(f"{name}: cannot read {config}: {error.strerror}") from error
    return robots.make_robot_from_config(parsed)


def _config_class(robots: Any, name: str, type_: str) -> Any:
    """The class of settings that LeRobot knows by that type; types make themselves known when they are imported."""
    known = robots.RobotConfig.get_known_choices
    if type_ not in known():
        inside = [
            f"{robots.__name__}.{module.name}" for module in pkgutil.iter_modules(getattr(robots, "__path__", []))
        ]
        plugins = [module.name for module in pkgutil.iter_modules() if module.name.startswith("lerobot_robot_")]
        for module in (*inside, *plugins):
            with contextlib.suppress(ImportError):  # a robot whose own library is missing is not this one
                importlib.import_module(module)
    if type_ not in known():
        raise ValueError(f"{name}: LeRobot has no such robot; it has {sorted(known())}")
    return known()[type_]
