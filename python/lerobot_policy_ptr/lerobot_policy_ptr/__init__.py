"""ptr-fast's policies as a LeRobot plugin: importing this registers ``--policy.type=ptr``."""

from lerobot_policy_ptr.configuration_ptr import PTRConfig
from lerobot_policy_ptr.modeling_ptr import PTRPolicy
from lerobot_policy_ptr.processor_ptr import make_ptr_pre_post_processors

__all__ = ["PTRConfig", "PTRPolicy", "make_ptr_pre_post_processors"]
