"""What a robot is to the programs here: LeRobot's shape, so that its robots work here and ours work there.

An observation is a flat dictionary: a float per state name, a uint8 ``[H, W, 3]`` RGB array per camera, and
``captured_ns`` and ``state_captured_ns`` (``time.monotonic_ns()`` of the frame and of the state) where the robot knows
them; else they count as taken when they were asked for. An action is a float per action name.

Robots may also have, looked up where they are needed: ``stop()`` (bring to rest, from any thread, at once),
``reset(seed)`` (the start of a trial), ``success()`` (True, False, or None where only a person can tell) and
``limits(hz)`` (:class:`ptr_fast.runtime.safety.SafetyLimits`; a robot without them needs a limits file).

Source: LeRobot ``robots/robot.py``.
"""

from __future__ import annotations

from typing import Any, Protocol, Self

from ptr_fast.config import PolicySpec

__all__ = ["LeRobotShape", "Robot", "camera_of", "check_fits"]


class Robot(Protocol):
    """An arm with its cameras.

    Attributes:
        name: for messages and records.
        observation_features: name -> ``float``, or ``(H, W, 3)`` for a camera.
        action_features: name -> ``float``.
        is_connected: between connect and disconnect.
    """

    name: str
    observation_features: dict[str, Any]
    action_features: dict[str, Any]
    is_connected: bool

    def connect(self, calibrate: bool = True) -> None:
        """Opens the devices. Raises RuntimeError naming the device that does not answer."""

    def get_observation(self) -> dict[str, Any]:
        """The newest observation; called over and over by one thread."""

    def send_action(self, action: dict[str, float]) -> dict[str, float]:
        """Sends an action; returns what was really sent."""

    def disconnect(self) -> None:
        """Closes the devices. Safe to call twice."""


class LeRobotShape:
    """The rest of what LeRobot's programs call on a robot: ours need no calibration."""

    @property
    def is_calibrated(self) -> bool:
        return True

    def calibrate(self) -> None:
        """Nothing to do."""

    def configure(self) -> None:
        """Nothing to do."""

    def __enter__(self) -> Self:
        self.connect()  # type: ignore[attr-defined]
        return self

    def __exit__(self, *exception: object) -> None:
        self.disconnect()  # type: ignore[attr-defined]


def camera_of(robot: Robot, name: str = "") -> str:
    """The camera to look through: the named one, or the only one.

    Raises:
        ValueError: no such camera, or several and none named.
    """
    cameras = [key for key, feature in robot.observation_features.items() if isinstance(feature, tuple)]
    if name and name not in cameras:
        raise ValueError(f"{robot.name}: no camera {name!r}; it has {cameras}")
    if not name and len(cameras) != 1:
        raise ValueError(f"{robot.name}: name the camera, it has {cameras}")
    return name or cameras[0]


def check_fits(robot: Robot, spec: PolicySpec, camera: str = "") -> None:
    """Refuses a robot whose state or actions are not the checkpoint's, before anything moves.

    Raises:
        ValueError: naming the first difference.
    """
    camera_of(robot, camera)
    states = [key for key, feature in robot.observation_features.items() if not isinstance(feature, tuple)]
    units = getattr(robot, "units", {})
    for what, wanted, wanted_units, got in (
        ("state", spec.state.names, spec.state.units, states),
        ("action", spec.action.names, spec.action.units, list(robot.action_features)),
    ):
        missing, extra = [n for n in wanted if n not in got], [n for n in got if n not in wanted]
        if missing or extra:
            raise ValueError(
                f"{robot.name}: {what} does not fit the checkpoint: it needs {list(wanted)}, the robot has {got}"
            )
        for name, unit in zip(wanted, wanted_units, strict=True):
            if name in units and units[name] != unit:
                raise ValueError(
                    f"{robot.name}: {what} {name!r} is in {units[name]!r}, the checkpoint's is in {unit!r}"
                )
    hz = getattr(robot, "control_hz", spec.control_hz)
    if hz != spec.control_hz:
        raise ValueError(f"{robot.name}: it acts at {hz:g} Hz, the checkpoint was trained at {spec.control_hz:g} Hz")
