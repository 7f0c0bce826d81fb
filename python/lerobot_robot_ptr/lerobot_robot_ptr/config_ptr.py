"""The options ``--robot.*`` of ``--robot.type=ptr``."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from lerobot.robots import RobotConfig

__all__ = ["PTRRobotConfig"]


@RobotConfig.register_subclass("ptr")
@dataclass(kw_only=True)
class PTRRobotConfig(RobotConfig):
    """Which robot.

    Attributes:
        robot: as ``ptr-fast rollout --robot`` takes it: simulated, replay, widowx.
        options: of that robot, e.g. ``--robot.options='{"kitchen": "H"}'``.
        seed: of the start.
    """

    robot: str = "simulated"
    options: dict[str, Any] = field(default_factory=dict)
    seed: int = 0
