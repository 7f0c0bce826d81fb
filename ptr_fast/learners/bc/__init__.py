"""Behaviour cloning."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ptr_fast.learners.bc.config import BcConfig
from ptr_fast.learners.bc.traits import traits
from ptr_fast.learners.registry import LearnerKind, imported_when_asked, imported_when_called, register

if TYPE_CHECKING:
    from ptr_fast.learners.bc.networks import BcNetworks
    from ptr_fast.learners.bc.update import BcLearner

__all__ = ["BcConfig", "BcLearner", "BcNetworks"]

__getattr__ = imported_when_asked(__name__, {"BcLearner": "update", "BcNetworks": "networks"})

register(
    LearnerKind(
        tag="BcConfig",
        config_class=BcConfig,
        traits=traits,
        make_learner=imported_when_called("ptr_fast.learners.bc.update:BcLearner"),
        networks=imported_when_called("ptr_fast.learners.bc.networks:BcNetworks"),
    )
)
