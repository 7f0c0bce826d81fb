"""Behaviour cloning weighted by the advantage that a frozen critic sees."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from ptr_fast.learners.awbc.config import AwbcConfig
from ptr_fast.learners.awbc.traits import traits
from ptr_fast.learners.registry import LearnerKind, register

if TYPE_CHECKING:
    from ptr_fast.learners.awbc.update import AwbcLearner
    from ptr_fast.learners.bc.networks import BcNetworks

__all__ = ["AwbcConfig", "AwbcLearner"]

_WHERE = {"AwbcLearner": "update"}


def __getattr__(name: str) -> Any:
    """What computes is imported when somebody asks for it."""
    if name in _WHERE:
        return getattr(importlib.import_module(f"{__name__}.{_WHERE[name]}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def _make_learner(*arguments: Any) -> AwbcLearner:
    from ptr_fast.learners.awbc.update import AwbcLearner

    return AwbcLearner(*arguments)


def _networks(config: AwbcConfig) -> BcNetworks:
    from ptr_fast.learners.bc.networks import BcNetworks

    return BcNetworks(config)


register(
    LearnerKind(
        tag="AwbcConfig", config_class=AwbcConfig, traits=traits, make_learner=_make_learner, networks=_networks
    )
)
