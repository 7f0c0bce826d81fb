"""What a robot is to the programs here: LeRobot's shape, so that its robots work here and ours work there.

An observation is a flat dictionary: a float per state name, a uint8 ``[H, W, 3]`` RGB array per camera, and times
(``time.monotonic_ns()``) where the robot knows them: ``captured_ns`` of its frames, ``captured_ns.CAMERA`` of one
camera's where they differ, and ``state_captured_ns``; else they count as taken when they were asked for. An action is a
float per action name.

Source: LeRobot ``robots/robot.py``.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import Any, Self

from ptr_fast.config import PolicySpec
from ptr_fast.runtime.safety import SafetyLimits

__all__ = ["Robot", "camera_names", "captured_ns", "check_fits", "match_cameras"]


class Robot(ABC):
    """An arm with its cameras. Python refuses to make a robot of a class that lacks one of the methods below.

    Attributes:
        name: for messages and records.
        observation_features: name -> ``float``, or ``(H, W, 3)`` for a camera.
        action_features: name -> ``float``.
        is_connected: between connect and disconnect.
        units: unit of states and actions, by their names, where they are known.
        control_hz: rate at which it acts; 0 where it takes any.
    """

    name: str
    observation_features: dict[str, Any]
    action_features: dict[str, Any]
    is_connected: bool
    units: Mapping[str, str] = {}
    control_hz: float = 0.0

    @abstractmethod
    def connect(self, calibrate: bool = True) -> None:
        """Opens the devices. Raises RuntimeError naming the device that does not answer."""

    @abstractmethod
    def reset(self, seed: int) -> None:
        """The start of a trial, drawn from the seed where there is a choice."""

    @abstractmethod
    def get_observation(self) -> dict[str, Any]:
        """The newest observation; called over and over by one thread."""

    @abstractmethod
    def send_action(self, action: dict[str, float]) -> dict[str, float]:
        """Sends an action; returns what was really sent."""

    @abstractmethod
    def stop(self) -> None:
        """Brings the arm to rest at once; from any thread, even while another method blocks."""

    @abstractmethod
    def success(self) -> bool | None:
        """Whether the task was done since the reset; None where only a person can tell."""

    @abstractmethod
    def limits(self, hz: float) -> SafetyLimits:
        """Its safety limits at a control rate. Raises ValueError where it has none: then a limits file is needed."""

    @abstractmethod
    def disconnect(self) -> None:
        """Closes the devices. Safe to call twice."""

    # The rest of what LeRobot's programs call on a robot: ours need no calibration.
    @property
    def is_calibrated(self) -> bool:
        return True

    def calibrate(self) -> None:  # noqa: B027  (nothing to do is right for all of ours)
        """Nothing to do."""

    def configure(self) -> None:  # noqa: B027
        """Nothing to do."""

    def __enter__(self) -> Self:
        self.connect()
        return self

    def __exit__(self, *exception: object) -> None:
        self.disconnect()


def camera_names(robot: Robot) -> list[str]:
    """Names of a robot's cameras."""
    return [key for key, feature in robot.observation_features.items() if isinstance(feature, tuple)]


def captured_ns(observed: Mapping[str, Any], camera: str, asked_ns: int) -> int:
    """When the frame of a camera in an observation was captured; ``asked_ns`` where the robot does not know."""
    return int(observed.get(f"captured_ns.{camera}", observed.get("captured_ns", asked_ns)))


def match_cameras(name: str, has: Sequence[str], wanted: Sequence[str], pairs: Sequence[str] = ()) -> dict[str, str]:
    """Which camera of a robot (or kitchen) shows what a checkpoint wants to see.

    A camera that no pair names is the robot's of the same name; a single camera is a single camera whatever its name.

    Args:
        name, has: of the robot, and its cameras.
        wanted: the checkpoint's cameras.
        pairs: ``ROBOT=CHECKPOINT``, of ``--camera-map``.

    Returns:
        Name in the checkpoint -> name at the robot, in the order of ``wanted``.

    Raises:
        ValueError: a camera is missing, unknown, named twice or wanted for two; lists both sides.
    """
    both = f"the checkpoint sees {list(wanted)}, {name} has {list(has)}"
    named: dict[str, str] = {}
    for pair in pairs:
        ours, equals, theirs = pair.partition("=")
        if not equals or ours not in has or theirs not in wanted or theirs in named or ours in named.values():
            raise ValueError(f"{name}: camera-map: expected ROBOT=CHECKPOINT, each once, got {pair!r}: {both}")
        named[theirs] = ours
    if not named and len(has) == len(wanted) == 1:
        return {wanted[0]: has[0]}
    matched = {theirs: named.get(theirs, theirs) for theirs in wanted}
    missing = [theirs for theirs, ours in matched.items() if ours not in has]
    if missing:
        told = f"no camera {', '.join(map(repr, missing))}: {both}; name them with --camera-map ROBOT=CHECKPOINT"
        raise ValueError(f"{name}: {told}")
    twice = next((ours for ours in matched.values() if list(matched.values()).count(ours) > 1), None)
    if twice is not None:
        alike = [theirs for theirs, ours in matched.items() if ours == twice]
        told = f"one camera, {twice!r}, would be {' and '.join(map(repr, alike))}: {both}"
        raise ValueError(f"{name}: camera-map: {told}; name another with --camera-map ROBOT=CHECKPOINT")
    return matched


def check_fits(robot: Robot, spec: PolicySpec, camera_map: Sequence[str] = ()) -> None:
    """Refuses a robot whose cameras, state or actions are not the checkpoint's, before anything moves.

    Raises:
        ValueError: naming the first difference.
    """
    match_cameras(robot.name, camera_names(robot), [camera.name for camera in spec.cameras], camera_map)
    states = [key for key, feature in robot.observation_features.items() if not isinstance(feature, tuple)]
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
            if robot.units.get(name, unit) != unit:
                raise ValueError(
                    f"{robot.name}: {what} {name!r} is in {robot.units[name]!r}, the checkpoint's is in {unit!r}"
                )
    if robot.control_hz not in (0.0, spec.control_hz):
        rates = f"it acts at {robot.control_hz:g} Hz, the checkpoint was trained at {spec.control_hz:g} Hz"
        raise ValueError(f"{robot.name}: {rates}")
