"""Behaviour transformer."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from ptr_fast.learners.bet.config import BetConfig
from ptr_fast.learners.bet.traits import traits
from ptr_fast.learners.registry import LearnerKind, register

if TYPE_CHECKING:
    from ptr_fast.learners.bet.networks import BetNetworks
    from ptr_fast.learners.bet.update import BetLearner

__all__ = ["BetConfig", "BetLearner", "BetNetworks"]

_WHERE = {"BetLearner": "update", "BetNetworks": "networks"}


def __getattr__(name: str) -> Any:
    """What computes is imported when somebody asks for it."""
    if name in _WHERE:
        return getattr(importlib.import_module(f"{__name__}.{_WHERE[name]}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def _make_learner(*arguments: Any) -> BetLearner:
    from ptr_fast.learners.bet.update import BetLearner

    return BetLearner(*arguments)


def _networks(config: BetConfig) -> BetNetworks:
    from ptr_fast.learners.bet.networks import BetNetworks

    return BetNetworks(config)


register(
    LearnerKind(
        tag="BetConfig",
        config_class=BetConfig,
        traits=traits,
        make_learner=_make_learner,
        networks=_networks,
    )
)
