"""ptr-fast's robots as a LeRobot plugin: importing this registers ``--robot.type=ptr``."""

from lerobot_robot_ptr.config_ptr import PTRRobotConfig
from lerobot_robot_ptr.ptr import PTRRobot

__all__ = ["PTRRobot", "PTRRobotConfig"]
