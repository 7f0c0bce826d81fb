"""One of our robots by LeRobot's interface."""

from __future__ import annotations

from typing import Any, ClassVar

import numpy as np
from lerobot.robots import Robot

from lerobot_robot_ptr.config_ptr import PTRRobotConfig
from ptr_robot.robots import make_robot
from ptr_robot.robots.interface import Robot as OurRobot
from ptr_robot.robots.interface import camera_names

__all__ = ["PTRRobot"]

ENDING = ".pos"
"""LeRobot's programs keep no state and no action of another ending (or ``.vel``)."""


class PTRRobot(Robot):
    """See the module.

    Raises:
        ValueError: an unknown robot, or an option that it does not have.
    """

    config_class = PTRRobotConfig
    name = "ptr"
    connected: ClassVar[PTRRobot | None] = None  # the last one that was, for the operator who looks at it

    def __init__(self, config: PTRRobotConfig) -> None:
        super().__init__(config)
        self.config, self._robot = config, make_robot(config.robot, **config.options)
        # LeRobot asks how many there are; their frames come with the observation.
        self.cameras = dict.fromkeys(camera_names(self._robot))

    @property
    def robot(self) -> OurRobot:
        """The robot behind it."""
        return self._robot

    @property
    def observation_features(self) -> dict[str, Any]:
        features = self._robot.observation_features
        return {key if isinstance(kind, tuple) else key + ENDING: kind for key, kind in features.items()}

    @property
    def action_features(self) -> dict[str, Any]:
        return {key + ENDING: kind for key, kind in self._robot.action_features.items()}

    @property
    def is_connected(self) -> bool:
        return "_robot" in vars(self) and self._robot.is_connected

    @property
    def is_calibrated(self) -> bool:
        return self._robot.is_calibrated

    def calibrate(self) -> None:
        self._robot.calibrate()

    def configure(self) -> None:
        self._robot.configure()

    def connect(self, calibrate: bool = True) -> None:
        """Opens the robot and brings it to the start of a trial."""
        self._robot.connect(calibrate)
        self._robot.reset(self.config.seed)
        PTRRobot.connected = self

    def get_observation(self) -> dict[str, Any]:
        """The newest observation, without the times that it was captured at."""
        observed = self._robot.get_observation()
        features = self._robot.observation_features
        frames = {key: np.asarray(observed[key]) for key in self.cameras}
        states = {key + ENDING: float(observed[key]) for key, kind in features.items() if not isinstance(kind, tuple)}
        return states | frames

    def send_action(self, action: dict[str, Any]) -> dict[str, Any]:
        """Sends an action; returns what was really sent."""
        wanted = {name: float(action[name + ENDING]) for name in self._robot.action_features}
        return {name + ENDING: value for name, value in self._robot.send_action(wanted).items()}

    def disconnect(self) -> None:
        """Stops the arm and closes the devices."""
        PTRRobot.connected = None
        try:
            self._robot.stop()
        finally:
            self._robot.disconnect()
