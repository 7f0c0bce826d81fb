"""The options ``--robot.*`` of ``--robot.type=ptr``."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

from lerobot.robots import RobotConfig

__all__ = ["PTRRobotConfig"]


@RobotConfig.register_subclass("ptr")
@dataclass(kw_only=True)
class PTRRobotConfig(RobotConfig):
    """Which robot.

    Attributes:
        robot: as ``ptr-fast rollout --robot`` takes it: simulated, replay, widowx.
        options: of that robot, a JSON object as text.
        seed: of the start.
    """

    robot: str = "simulated"
    options: str = "{}"
    seed: int = 0

    def __post_init__(self) -> None:
        super().__post_init__()
        self.robot_options()

    def robot_options(self) -> dict[str, Any]:
        """The options as a dictionary.

        Raises:
            ValueError: they are no JSON object.
        """
        try:
            options = json.loads(self.options)
        except ValueError as error:
            raise ValueError(f"robot.options: expected a JSON object, got {self.options!r} ({error})") from error
        if not isinstance(options, dict):
            raise ValueError(f"robot.options: expected a JSON object, got {self.options!r}")
        return options
