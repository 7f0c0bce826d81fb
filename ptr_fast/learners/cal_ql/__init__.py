"""Calibrated Q-learning (Nakamoto et al. 2023, arXiv 2303.05479)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ptr_fast.learners.cal_ql.config import CalQlConfig
from ptr_fast.learners.cal_ql.traits import traits
from ptr_fast.learners.registry import LearnerKind, imported_when_asked, imported_when_called, register

if TYPE_CHECKING:
    from ptr_fast.learners.cal_ql.update import CalQlLearner

__all__ = ["CalQlConfig", "CalQlLearner"]

__getattr__ = imported_when_asked(__name__, {"CalQlLearner": "update"})

register(
    LearnerKind(
        tag="CalQlConfig",
        config_class=CalQlConfig,
        traits=traits,
        make_learner=imported_when_called("ptr_fast.learners.cal_ql.update:CalQlLearner"),
        networks=imported_when_called("ptr_fast.learners.cql.networks:CqlNetworks"),
        remedies=imported_when_called("ptr_fast.learners.cql.remedies:remedies"),
    )
)
