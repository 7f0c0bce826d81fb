"""Conservative Q-learning as PTR runs it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ptr_fast.learners.cql.config import CqlConfig
from ptr_fast.learners.cql.traits import traits
from ptr_fast.learners.registry import LearnerKind, imported_when_asked, imported_when_called, register

if TYPE_CHECKING:
    from ptr_fast.learners.cql.networks import CqlNetworks
    from ptr_fast.learners.cql.terms import CqlTerms
    from ptr_fast.learners.cql.update import CqlLearner

__all__ = ["CqlConfig", "CqlLearner", "CqlNetworks", "CqlTerms"]

__getattr__ = imported_when_asked(__name__, {"CqlLearner": "update", "CqlTerms": "terms", "CqlNetworks": "networks"})

register(
    LearnerKind(
        tag="CqlConfig",
        config_class=CqlConfig,
        traits=traits,
        make_learner=imported_when_called("ptr_fast.learners.cql.update:CqlLearner"),
        networks=imported_when_called("ptr_fast.learners.cql.networks:CqlNetworks"),
        remedies=imported_when_called("ptr_fast.learners.cql.remedies:remedies"),
    )
)
