"""A robot that has no camera of its own, with cameras that this machine has."""

from __future__ import annotations

import time
from typing import Any

from ptr_fast.runtime.safety import SafetyLimits
from ptr_robot.cameras import BufferedCamera
from ptr_robot.robots.interface import Robot, camera_names, captured_ns

__all__ = ["WithCameras"]


class WithCameras(Robot):
    """Another robot whose observations carry more cameras; everything else is the robot's own.

    The cameras are opened at once, since a robot tells the size of its frames before it is connected.

    Args:
        robot: not connected yet.
        cameras: name -> camera, not connected yet.

    Raises:
        ValueError: the robot has something of that name already.
        RuntimeError: a camera that does not open.
    """

    def __init__(self, robot: Robot, cameras: dict[str, BufferedCamera]) -> None:
        taken = [name for name in cameras if name in robot.observation_features]
        if taken:
            raise ValueError(f"{robot.name}: has {taken} already; choose another name for the camera")
        self._robot, self._cameras = robot, cameras
        try:
            for camera in cameras.values():
                camera.connect()
        except BaseException:
            self._close_cameras()
            raise
        sizes = {name: (*camera.size, 3) for name, camera in cameras.items()}
        self.observation_features: dict[str, Any] = {**robot.observation_features, **sizes}

        self.name, self.action_features = robot.name, robot.action_features
        self.units, self.control_hz = robot.units, robot.control_hz

    @property
    def is_connected(self) -> bool:  # type: ignore[override]
        return self._robot.is_connected

    def connect(self, calibrate: bool = True) -> None:
        for camera in self._cameras.values():
            if not camera.is_connected:
                camera.connect()
        self._robot.connect(calibrate)

    def reset(self, seed: int) -> None:
        self._robot.reset(seed)

    def get_observation(self) -> dict[str, Any]:
        """The robot's, and the newest frame of each camera with its time; ``captured_ns`` is of the oldest of all.

        Raises:
            RuntimeError: a camera that froze, ended or changed its size.
        """
        asked_ns = time.monotonic_ns()
        observed = dict(self._robot.get_observation())
        times = {name: captured_ns(observed, name, asked_ns) for name in camera_names(self._robot)}
        for name, camera in self._cameras.items():
            observed[name], times[name] = camera.read()
        own = {f"captured_ns.{name}": captured for name, captured in times.items()}
        return {**observed, **own, "captured_ns": min(times.values())}

    def send_action(self, action: dict[str, float]) -> dict[str, float]:
        return self._robot.send_action(action)

    def stop(self) -> None:
        self._robot.stop()

    def success(self) -> bool | None:
        return self._robot.success()

    def limits(self, hz: float) -> SafetyLimits:
        """Of the robot."""
        return self._robot.limits(hz)

    def disconnect(self) -> None:
        try:
            self._robot.disconnect()
        finally:
            self._close_cameras()

    def _close_cameras(self) -> None:
        for camera in self._cameras.values():
            camera.disconnect()
