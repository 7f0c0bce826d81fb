"""Behaviour transformer."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ptr_fast.learners.bet.config import BetConfig
from ptr_fast.learners.bet.traits import traits
from ptr_fast.learners.registry import LearnerKind, imported_when_asked, imported_when_called, register

if TYPE_CHECKING:
    from ptr_fast.learners.bet.networks import BetNetworks
    from ptr_fast.learners.bet.update import BetLearner

__all__ = ["BetConfig", "BetLearner", "BetNetworks"]

__getattr__ = imported_when_asked(__name__, {"BetLearner": "update", "BetNetworks": "networks"})

register(
    LearnerKind(
        tag="BetConfig",
        config_class=BetConfig,
        traits=traits,
        make_learner=imported_when_called("ptr_fast.learners.bet.update:BetLearner"),
        networks=imported_when_called("ptr_fast.learners.bet.networks:BetNetworks"),
    )
)
