"""CQL with cloned proposals: a critic chooses among the samples of a clone."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ptr_fast.learners.cql_proposals.config import CqlProposalsConfig
from ptr_fast.learners.cql_proposals.traits import traits
from ptr_fast.learners.registry import LearnerKind, imported_when_asked, imported_when_called, register

if TYPE_CHECKING:
    from ptr_fast.learners.cql_proposals.networks import CqlProposalsNetworks
    from ptr_fast.learners.cql_proposals.update import CqlProposalsLearner

__all__ = ["CqlProposalsConfig", "CqlProposalsLearner", "CqlProposalsNetworks"]

__getattr__ = imported_when_asked(__name__, {"CqlProposalsLearner": "update", "CqlProposalsNetworks": "networks"})

register(
    LearnerKind(
        tag="CqlProposalsConfig",
        config_class=CqlProposalsConfig,
        traits=traits,
        make_learner=imported_when_called("ptr_fast.learners.cql_proposals.update:CqlProposalsLearner"),
        networks=imported_when_called("ptr_fast.learners.cql_proposals.networks:CqlProposalsNetworks"),
    )
)
