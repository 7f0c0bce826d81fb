"""Calibrated Q-learning (Nakamoto et al. 2023, arXiv 2303.05479)."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from ptr_fast.learners.cal_ql.config import CalQlConfig
from ptr_fast.learners.cal_ql.traits import traits
from ptr_fast.learners.registry import LearnerKind, register

if TYPE_CHECKING:
    from ptr_fast.learners.cal_ql.update import CalQlLearner
    from ptr_fast.learners.cql.networks import CqlNetworks
    from ptr_fast.learners.divergence import Remedy

__all__ = ["CalQlConfig", "CalQlLearner"]

_WHERE = {"CalQlLearner": "update"}


def __getattr__(name: str) -> Any:
    """What computes is imported when somebody asks for it."""
    if name in _WHERE:
        return getattr(importlib.import_module(f"{__name__}.{_WHERE[name]}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def _make_learner(*arguments: Any) -> CalQlLearner:
    from ptr_fast.learners.cal_ql.update import CalQlLearner

    return CalQlLearner(*arguments)


def _networks(config: CalQlConfig) -> CqlNetworks:
    from ptr_fast.learners.cql.networks import CqlNetworks

    return CqlNetworks(config)


def _remedies(*arguments: Any) -> list[Remedy]:
    from ptr_fast.learners.cql.remedies import remedies

    return remedies(*arguments)


register(
    LearnerKind(
        tag="CalQlConfig",
        config_class=CalQlConfig,
        traits=traits,
        make_learner=_make_learner,
        networks=_networks,
        remedies=_remedies,
    )
)
