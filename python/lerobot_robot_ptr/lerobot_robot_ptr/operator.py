"""A model of an operator at the simulated arm, where nobody and no leader arm is there: for ``lerobot-record``."""

from __future__ import annotations

from typing import Any

from lerobot.teleoperators import Teleoperator

from lerobot_robot_ptr.config_operator import PTROperatorConfig
from lerobot_robot_ptr.ptr import ENDING, PTRRobot
from ptr_robot.robots.simulated import SimulatedRobot
from ptr_robot.sim.environment import action_spec

__all__ = ["PTROperator"]


class PTROperator(Teleoperator):
    """Looks at the simulated arm that the same program moves, and says what to do next: see ``sim/operators.py``.

    After the task is done it stands still.
    """

    config_class = PTROperatorConfig
    name = "ptr"

    def __init__(self, config: PTROperatorConfig) -> None:
        super().__init__(config)
        self.config, self._at = config, None

    @property
    def action_features(self) -> dict[str, Any]:
        return {name + ENDING: float for name in action_spec().names}

    @property
    def feedback_features(self) -> dict[str, Any]:
        return {}

    is_connected = False
    is_calibrated = True

    def connect(self, calibrate: bool = True) -> None:
        """Nothing to open."""
        self.is_connected = True

    def calibrate(self) -> None:
        """Nothing to do."""

    def configure(self) -> None:
        """Nothing to do."""

    def get_action(self) -> dict[str, float]:
        """What the operator wants of the arm in this control period.

        Raises:
            RuntimeError: no simulated arm (``--robot.type=ptr``) is connected in this program.
            ValueError: an unknown skill.
        """
        robot = PTRRobot.connected.robot if PTRRobot.connected is not None else None
        if not isinstance(robot, SimulatedRobot):
            raise RuntimeError("teleop ptr: moves a simulated arm of --robot.type=ptr alone, and none is connected")
        wanted = robot.operated(self.config.skill, self.config.seed)
        return {name + ENDING: value for name, value in wanted.items()}

    def send_feedback(self, feedback: dict[str, Any]) -> None:
        """Nothing to feel."""

    def disconnect(self) -> None:
        """Nothing to close."""
        self.is_connected = False
