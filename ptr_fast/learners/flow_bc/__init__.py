"""Flow behaviour cloning."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from ptr_fast.learners.flow_bc.config import FlowBcConfig
from ptr_fast.learners.flow_bc.traits import traits
from ptr_fast.learners.registry import LearnerKind, register

if TYPE_CHECKING:
    from ptr_fast.learners.flow_bc.networks import FlowBcNetworks
    from ptr_fast.learners.flow_bc.update import FlowBcLearner

__all__ = ["FlowBcConfig", "FlowBcLearner", "FlowBcNetworks"]

_WHERE = {"FlowBcLearner": "update", "FlowBcNetworks": "networks"}


def __getattr__(name: str) -> Any:
    """What computes is imported when somebody asks for it."""
    if name in _WHERE:
        return getattr(importlib.import_module(f"{__name__}.{_WHERE[name]}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def _make_learner(*arguments: Any) -> FlowBcLearner:
    from ptr_fast.learners.flow_bc.update import FlowBcLearner

    return FlowBcLearner(*arguments)


def _networks(config: FlowBcConfig) -> FlowBcNetworks:
    from ptr_fast.learners.flow_bc.networks import FlowBcNetworks

    return FlowBcNetworks(config)


register(
    LearnerKind(
        tag="FlowBcConfig",
        config_class=FlowBcConfig,
        traits=traits,
        make_learner=_make_learner,
        networks=_networks,
    )
)
