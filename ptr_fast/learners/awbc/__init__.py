"""Behaviour cloning weighted by the advantage that a frozen critic sees."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ptr_fast.learners.awbc.config import AwbcConfig
from ptr_fast.learners.awbc.traits import traits
from ptr_fast.learners.registry import LearnerKind, imported_when_asked, imported_when_called, register

if TYPE_CHECKING:
    from ptr_fast.learners.awbc.update import AwbcLearner

__all__ = ["AwbcConfig", "AwbcLearner"]

__getattr__ = imported_when_asked(__name__, {"AwbcLearner": "update"})

register(
    LearnerKind(
        tag="AwbcConfig",
        config_class=AwbcConfig,
        traits=traits,
        make_learner=imported_when_called("ptr_fast.learners.awbc.update:AwbcLearner"),
        networks=imported_when_called("ptr_fast.learners.bc.networks:BcNetworks"),
    )
)
