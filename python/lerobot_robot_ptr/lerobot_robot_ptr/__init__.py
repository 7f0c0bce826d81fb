"""ptr-fast's robots as a LeRobot plugin: importing this registers ``--robot.type=ptr``.

With the toy kitchens (``ptr-fast[sim]``) there are ``--env.type=ptr`` for ``lerobot-eval`` and ``--teleop.type=ptr``, a
model of an operator, for ``lerobot-record``.
"""

import importlib.util

from lerobot_robot_ptr.config_ptr import PTRRobotConfig
from lerobot_robot_ptr.ptr import PTRRobot

__all__ = ["PTRRobot", "PTRRobotConfig"]

if importlib.util.find_spec("metaworld") is not None:
    from lerobot_robot_ptr.config_operator import PTROperatorConfig
    from lerobot_robot_ptr.env_ptr import KitchenConfig
    from lerobot_robot_ptr.operator import PTROperator

    __all__ += ["KitchenConfig", "PTROperator", "PTROperatorConfig"]
