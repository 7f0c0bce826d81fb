"""Cloning by a mixture of Gaussians."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from ptr_fast.learners.mixture_bc.config import MixtureBcConfig
from ptr_fast.learners.mixture_bc.traits import traits
from ptr_fast.learners.registry import LearnerKind, register

if TYPE_CHECKING:
    from ptr_fast.learners.mixture_bc.networks import MixtureBcNetworks
    from ptr_fast.learners.mixture_bc.update import MixtureBcLearner

__all__ = ["MixtureBcConfig", "MixtureBcLearner", "MixtureBcNetworks"]

_WHERE = {"MixtureBcLearner": "update", "MixtureBcNetworks": "networks"}


def __getattr__(name: str) -> Any:
    """What computes is imported when somebody asks for it."""
    if name in _WHERE:
        return getattr(importlib.import_module(f"{__name__}.{_WHERE[name]}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def _make_learner(*arguments: Any) -> MixtureBcLearner:
    from ptr_fast.learners.mixture_bc.update import MixtureBcLearner

    return MixtureBcLearner(*arguments)


def _networks(config: MixtureBcConfig) -> MixtureBcNetworks:
    from ptr_fast.learners.mixture_bc.networks import MixtureBcNetworks

    return MixtureBcNetworks(config)


register(
    LearnerKind(
        tag="MixtureBcConfig",
        config_class=MixtureBcConfig,
        traits=traits,
        make_learner=_make_learner,
        networks=_networks,
    )
)
