"""Autoregressive behaviour cloning."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from ptr_fast.learners.autoregressive_bc.config import AutoregressiveBcConfig
from ptr_fast.learners.autoregressive_bc.traits import traits
from ptr_fast.learners.registry import LearnerKind, register

if TYPE_CHECKING:
    from ptr_fast.learners.autoregressive_bc.networks import AutoregressiveBcNetworks
    from ptr_fast.learners.autoregressive_bc.update import AutoregressiveBcLearner

__all__ = ["AutoregressiveBcConfig", "AutoregressiveBcLearner", "AutoregressiveBcNetworks"]

_WHERE = {"AutoregressiveBcLearner": "update", "AutoregressiveBcNetworks": "networks"}


def __getattr__(name: str) -> Any:
    """What computes is imported when somebody asks for it."""
    if name in _WHERE:
        return getattr(importlib.import_module(f"{__name__}.{_WHERE[name]}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def _make_learner(*arguments: Any) -> AutoregressiveBcLearner:
    from ptr_fast.learners.autoregressive_bc.update import AutoregressiveBcLearner

    return AutoregressiveBcLearner(*arguments)


def _networks(config: AutoregressiveBcConfig) -> AutoregressiveBcNetworks:
    from ptr_fast.learners.autoregressive_bc.networks import AutoregressiveBcNetworks

    return AutoregressiveBcNetworks(config)


register(
    LearnerKind(
        tag="AutoregressiveBcConfig",
        config_class=AutoregressiveBcConfig,
        traits=traits,
        make_learner=_make_learner,
        networks=_networks,
    )
)
