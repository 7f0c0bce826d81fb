"""Implicit Q-learning (Kostrikov, Nair and Levine 2021, arXiv 2110.06169)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ptr_fast.learners.iql.config import IqlConfig
from ptr_fast.learners.iql.traits import traits
from ptr_fast.learners.registry import LearnerKind, imported_when_asked, imported_when_called, register

if TYPE_CHECKING:
    from ptr_fast.learners.iql.networks import IqlNetworks
    from ptr_fast.learners.iql.update import IqlLearner

__all__ = ["IqlConfig", "IqlLearner", "IqlNetworks"]

__getattr__ = imported_when_asked(__name__, {"IqlLearner": "update", "IqlNetworks": "networks"})

register(
    LearnerKind(
        tag="IqlConfig",
        config_class=IqlConfig,
        traits=traits,
        make_learner=imported_when_called("ptr_fast.learners.iql.update:IqlLearner"),
        networks=imported_when_called("ptr_fast.learners.iql.networks:IqlNetworks"),
    )
)
