"""CQL with cloned proposals: a critic chooses among the samples of a clone."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from ptr_fast.learners.cql_proposals.config import CqlProposalsConfig
from ptr_fast.learners.cql_proposals.traits import traits
from ptr_fast.learners.registry import LearnerKind, register

if TYPE_CHECKING:
    from ptr_fast.learners.cql_proposals.networks import CqlProposalsNetworks
    from ptr_fast.learners.cql_proposals.update import CqlProposalsLearner

__all__ = ["CqlProposalsConfig", "CqlProposalsLearner", "CqlProposalsNetworks"]

_WHERE = {"CqlProposalsLearner": "update", "CqlProposalsNetworks": "networks"}


def __getattr__(name: str) -> Any:
    """What computes is imported when somebody asks for it."""
    if name in _WHERE:
        return getattr(importlib.import_module(f"{__name__}.{_WHERE[name]}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def _make_learner(*arguments: Any) -> CqlProposalsLearner:
    from ptr_fast.learners.cql_proposals.update import CqlProposalsLearner

    return CqlProposalsLearner(*arguments)


def _networks(config: CqlProposalsConfig) -> CqlProposalsNetworks:
    from ptr_fast.learners.cql_proposals.networks import CqlProposalsNetworks

    return CqlProposalsNetworks(config)


register(
    LearnerKind(
        tag="CqlProposalsConfig",
        config_class=CqlProposalsConfig,
        traits=traits,
        make_learner=_make_learner,
        networks=_networks,
    )
)
