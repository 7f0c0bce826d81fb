"""Any robot of LeRobot's as a robot here: ``lerobot:so101_follower`` with its own settings and a limits file.

LeRobot is imported when such a robot is made, and nothing of it is needed otherwise.

Source: LeRobot ``robots/robot.py``, ``robots/config.py``, and how its programs parse settings (draccus).
"""

from __future__ import annotations

import contextlib
import importlib
import io
import json
import os
import pkgutil
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from ptr_fast.runtime.safety import SafetyLimits
from ptr_robot.robots.frame_age import FrameAge
from ptr_robot.robots.interface import Robot
from ptr_robot.robots.limits_file import LimitsFile, read_limits

__all__ = ["LeRobotRobot", "one_line"]

STOP_WAIT_S = 0.5


class LeRobotRobot(Robot):
    """A robot of LeRobot's, used by one thread at a time: most of them have one serial bus.

    Whatever LeRobot raises is one RuntimeError of one line that says in which of its methods. A command waits for an
    observation that is under way; one that would tell the arm what it was told last is not sent then.

    Args:
        type: LeRobot's name of it, e.g. ``so101_follower``.
        limits: limits file (``limits_file``); without one the robot is refused before anything moves.
        config: JSON file of LeRobot's settings of that type; empty takes its defaults.
        settings: LeRobot's settings over those, values as JSON has them: ``port="/dev/ttyACM0"``,
            ``use_degrees=False``, ``max_relative_target={"gripper": 5}``.

    Raises:
        RuntimeError: LeRobot, or what it needs for that type, is not installed, or cannot make the robot.
        ValueError: LeRobot has no such type, a setting is wrong, or the limits do not fit the robot.
    """

    def __init__(self, type: str, /, limits: Path | str = "", config: Path | str = "", **settings: Any) -> None:
        self.name = f"lerobot:{type}"
        self._limits: LimitsFile | None = read_limits(limits) if limits else None
        self._robot = _make(self.name, type, config, settings)
        with self._calling("observation_features and action_features"):
            features, actions = dict(self._robot.observation_features), dict(self._robot.action_features)
        self._cameras = {
            name: tuple(shape)
            for name, shape in features.items()
            if isinstance(shape, tuple | list) and len(shape) == 3 and shape[2] == 3
        }
        self._states = [name for name, kind in features.items() if kind in (float, int)]
        self.observation_features: dict[str, Any] = {**dict.fromkeys(self._states, float), **self._cameras}
        self.action_features: dict[str, Any] = dict.fromkeys(actions, float)
        self.units = self._limits.units if self._limits else {}
        if self._limits is not None:
            self.limits(1.0)  # fits, or says so now
        self._ages = {name: FrameAge() for name in self._cameras}
        self._bus = threading.Lock()
        self._stopped = threading.Event()
        self._told: dict[str, float] = {}
        self._sent: dict[str, float] = {}

    @property
    def is_connected(self) -> bool:  # type: ignore[override]
        with self._calling("is_connected"):
            return bool(self._robot.is_connected)

    def connect(self, calibrate: bool = True) -> None:
        with self._bus, self._calling("connect"):
            self._robot.connect(calibrate)
        self.reset(0)

    def reset(self, seed: int) -> None:
        """Takes actions again after a stop; nothing moves."""
        self._stopped.clear()
        self._told, self._sent = {}, {}

    def get_observation(self) -> dict[str, Any]:
        """States and frames; ``captured_ns.CAMERA`` is when each of the frames was first asked for.

        Raises:
            RuntimeError: an observation without what its features promise.
        """
        with self._bus, self._calling("get_observation"):
            asked_ns = time.monotonic_ns()
            observed = self._robot.get_observation()
            missing = [name for name in self.observation_features if name not in observed]
            out: dict[str, Any] = {name: float(observed[name]) for name in self._states if not missing}
        if missing:
            raise RuntimeError(f"{self.name}: an observation without {missing}")
        times: dict[str, int] = {}
        for name, shape in self._cameras.items():
            frame = np.asarray(observed[name])
            if frame.dtype != np.uint8 or frame.shape != shape:
                raise RuntimeError(
                    f"{self.name}: camera {name!r}: expected uint8 {list(shape)}, got {frame.dtype} {list(frame.shape)}"
                )
            out[name] = frame
            times[f"captured_ns.{name}"] = self._ages[name].captured_ns(frame, asked_ns)
        return {**out, **times, "captured_ns": min([asked_ns, *times.values()])}

    def send_action(self, action: dict[str, float]) -> dict[str, float]:
        """Sends an action; returns what LeRobot says was sent.

        Raises:
            RuntimeError: it was stopped and not reset since.
        """
        wanted = {name: float(action[name]) for name in self.action_features}
        if not self._bus.acquire(blocking=wanted != self._told):
            return dict(self._sent)
        try:
            if self._stopped.is_set():
                raise RuntimeError(f"{self.name}: it was stopped; reset it first")
            with self._calling("send_action"):
                sent = self._robot.send_action(dict(wanted)) or wanted
                self._sent = {name: float(sent.get(name, wanted[name])) for name in wanted}
            self._told = wanted
            return dict(self._sent)
        finally:
            self._bus.release()

    def stop(self) -> None:
        """Sends nothing more until a reset. Positions rest at the last one that was sent, at most one step away;
        displacements and velocities are set to 0 first."""
        self._stopped.set()
        relative = [axis.name for axis in self._limits.axes if axis.relative] if self._limits else []
        if relative and self._sent and self._bus.acquire(timeout=STOP_WAIT_S):
            try:
                with self._calling("send_action"):
                    self._robot.send_action({**self._sent, **dict.fromkeys(relative, 0.0)})
            finally:
                self._bus.release()

    def success(self) -> bool | None:
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
        with self._bus, self._calling("disconnect"):
            if self._robot.is_connected:
                self._robot.disconnect()

    @contextlib.contextmanager
    def _calling(self, method: str) -> Iterator[None]:
        try:
            yield
        except Exception as error:
            raise RuntimeError(f"{self.name}: {method}: {one_line(error)}") from error


def _make(name: str, type_: str, config: Path | str, settings: dict[str, Any]) -> Any:
    try:
        import draccus
        from lerobot import robots
    except ModuleNotFoundError as error:
        raise RuntimeError(f"{name}: LeRobot is not installed ({error}); pip install lerobot") from error
    except Exception as error:
        raise RuntimeError(f"{name}: LeRobot cannot be imported: {one_line(error)}") from error
    kind = _config_class(robots, name, type_)
    parsed = _parse(draccus, kind, name, config, settings)
    try:
        return robots.make_robot_from_config(parsed)
    except Exception as error:
        raise RuntimeError(f"{name}: LeRobot cannot make it: {one_line(error)}") from error


def _parse(draccus: Any, kind: type, name: str, config: Path | str, settings: dict[str, Any]) -> Any:
    """LeRobot's configuration of a robot, from its file and the settings over it."""
    try:
        arguments = [f"--{key}={json.dumps(value, default=os.fspath)}" for key, value in settings.items()]
    except (TypeError, ValueError) as error:
        raise ValueError(f"{name}: expected settings that JSON can say, got {settings}") from error
    given = (" ".join(arguments) or "(none)") + (f" over {config}" if config else "")
    refused = f"{name}: LeRobot does not take the settings {given}"
    told = io.StringIO()
    try:
        with draccus.config_type("json"), contextlib.redirect_stderr(told):
            return draccus.parse(kind, str(config) if config else None, args=arguments)
    except OSError as error:
        raise ValueError(f"{name}: cannot read {config}: {error.strerror}") from error
    except SystemExit as error:  # its parser of arguments prints how it is used, and leaves the program
        why = told.getvalue().rstrip().rpartition("error: ")[2] or "its parser left"
        raise ValueError(f"{refused}: {why}") from error
    except Exception as error:
        raise ValueError(f"{refused}: {one_line(error)}; a value is JSON: false, 3, {{...}}") from error


def one_line(error: BaseException) -> str:
    """What an exception of LeRobot's says, and what caused it, on one line."""
    words = f"{type(error).__name__}: {error}" if str(error) else type(error).__name__
    cause = f" ({one_line(error.__cause__)})" if error.__cause__ is not None else ""
    return " ".join(words.split()) + cause


def _config_class(robots: Any, name: str, type_: str) -> Any:
    """The class of settings that LeRobot knows by that type; types make themselves known when they are imported."""
    known = robots.RobotConfig.get_known_choices
    broken = []
    if type_ not in known():
        inside = [
            f"{robots.__name__}.{module.name}" for module in pkgutil.iter_modules(getattr(robots, "__path__", []))
        ]
        plugins = [module.name for module in pkgutil.iter_modules() if module.name.startswith("lerobot_robot_")]
        for module in (*inside, *plugins):
            try:
                importlib.import_module(module)
            except Exception as error:  # noqa: BLE001  (its own library is missing, say; another robot may be meant)
                broken.append(f"{module}: {one_line(error)}")
    if type_ not in known():
        told = f"; not imported: {'; '.join(broken)}" if broken else ""
        raise ValueError(f"{name}: LeRobot has no such robot; it has {sorted(known())}{told}")
    return known()[type_]
