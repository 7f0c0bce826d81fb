"""Implicit Q-learning (Kostrikov, Nair and Levine 2021, arXiv 2110.06169)."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from ptr_fast.learners.iql.config import IqlConfig
from ptr_fast.learners.iql.traits import traits
from ptr_fast.learners.registry import LearnerKind, register

if TYPE_CHECKING:
    from ptr_fast.learners.iql.networks import IqlNetworks
    from ptr_fast.learners.iql.update import IqlLearner

__all__ = ["IqlConfig", "IqlLearner", "IqlNetworks"]

_WHERE = {"IqlLearner": "update", "IqlNetworks": "networks"}


def __getattr__(name: str) -> Any:
    """What computes is imported when somebody asks for it."""
    if name in _WHERE:
        return getattr(importlib.import_module(f"{__name__}.{_WHERE[name]}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def _make_learner(*arguments: Any) -> IqlLearner:
    from ptr_fast.learners.iql.update import IqlLearner

    return IqlLearner(*arguments)


def _networks(config: IqlConfig) -> IqlNetworks:
    from ptr_fast.learners.iql.networks import IqlNetworks

    return IqlNetworks(config)


register(
    LearnerKind(tag="IqlConfig", config_class=IqlConfig, traits=traits, make_learner=_make_learner, networks=_networks)
)
