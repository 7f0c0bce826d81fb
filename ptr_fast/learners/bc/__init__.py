"""Behaviour cloning."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from ptr_fast.learners.bc.config import BcConfig
from ptr_fast.learners.bc.traits import traits
from ptr_fast.learners.registry import LearnerKind, register

if TYPE_CHECKING:
    from ptr_fast.learners.bc.networks import BcNetworks
    from ptr_fast.learners.bc.update import BcLearner

__all__ = ["BcConfig", "BcLearner", "BcNetworks"]

_WHERE = {"BcLearner": "update", "BcNetworks": "networks"}


def __getattr__(name: str) -> Any:
    """What computes is imported when somebody asks for it."""
    if name in _WHERE:
        return getattr(importlib.import_module(f"{__name__}.{_WHERE[name]}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def _make_learner(*arguments: Any) -> BcLearner:
    from ptr_fast.learners.bc.update import BcLearner

    return BcLearner(*arguments)


def _networks(config: BcConfig) -> BcNetworks:
    from ptr_fast.learners.bc.networks import BcNetworks

    return BcNetworks(config)


register(
    LearnerKind(tag="BcConfig", config_class=BcConfig, traits=traits, make_learner=_make_learner, networks=_networks)
)
