"""A robot that has no camera of its own, with cameras that this machine has."""

from __future__ import annotations

from typing import Any

from ptr_robot.cameras import BufferedCamera
from ptr_robot.robots.interface import LeRobotShape, Robot

__all__ = ["WithCameras"]


class WithCameras(LeRobotShape):
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

    def __getattr__(self, name: str) -> Any:
        return getattr(self._robot, name)

    def connect(self, calibrate: bool = True) -> None:
        for camera in self._cameras.values():
            if not camera.is_connected:
                camera.connect()
        self._robot.connect(calibrate)

    def get_observation(self) -> dict[str, Any]:
        """The robot's, and the newest frame of each camera; ``captured_ns`` is of the oldest frame there is.

        Raises:
            RuntimeError: a camera that froze, ended or changed its size.
        """
        observed = self._robot.get_observation()
        own = [value for value in self._robot.observation_features.values() if isinstance(value, tuple)]
        times = [observed["captured_ns"]] if own and "captured_ns" in observed else []
        for name, camera in self._cameras.items():
            observed[name], captured_ns = camera.read()
            times.append(captured_ns)
        return {**observed, "captured_ns": min(times)}

    def disconnect(self) -> None:
        try:
            self._robot.disconnect()
        finally:
            self._close_cameras()

    def _close_cameras(self) -> None:
        for camera in self._cameras.values():
            camera.disconnect()
