"""The options ``--teleop.*`` of ``--teleop.type=ptr``."""

from __future__ import annotations

from dataclasses import dataclass

from lerobot.teleoperators import TeleoperatorConfig

__all__ = ["PTROperatorConfig"]


@TeleoperatorConfig.register_subclass("ptr")
@dataclass(kw_only=True)
class PTROperatorConfig(TeleoperatorConfig):
    """How well the operator does.

    Attributes:
        skill: good, average or poor (:data:`ptr_robot.sim.operators.SKILLS`).
        seed: of what the operator does, e.g. pauses and mistakes.
    """

    skill: str = "good"
    seed: int = 0
