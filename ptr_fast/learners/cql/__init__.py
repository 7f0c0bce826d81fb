"""Conservative Q-learning as PTR runs it."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from ptr_fast.learners.cql.config import CqlConfig
from ptr_fast.learners.cql.traits import traits
from ptr_fast.learners.registry import LearnerKind, register

if TYPE_CHECKING:
    from ptr_fast.learners.cql.networks import CqlNetworks
    from ptr_fast.learners.cql.terms import CqlTerms
    from ptr_fast.learners.cql.update import CqlLearner
    from ptr_fast.learners.divergence import Remedy

__all__ = ["CqlConfig", "CqlLearner", "CqlNetworks", "CqlTerms"]

_WHERE = {"CqlLearner": "update", "CqlTerms": "terms", "CqlNetworks": "networks"}


def __getattr__(name: str) -> Any:
    """What computes is imported when somebody asks for it."""
    if name in _WHERE:
        return getattr(importlib.import_module(f"{__name__}.{_WHERE[name]}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def _make_learner(*arguments: Any) -> CqlLearner:
    from ptr_fast.learners.cql.update import CqlLearner

    return CqlLearner(*arguments)


def _networks(config: CqlConfig) -> CqlNetworks:
    from ptr_fast.learners.cql.networks import CqlNetworks

    return CqlNetworks(config)


def _remedies(*arguments: Any) -> list[Remedy]:
    from ptr_fast.learners.cql.remedies import remedies

    return remedies(*arguments)


register(
    LearnerKind(
        tag="CqlConfig",
        config_class=CqlConfig,
        traits=traits,
        make_learner=_make_learner,
        networks=_networks,
        remedies=_remedies,
    )
)
