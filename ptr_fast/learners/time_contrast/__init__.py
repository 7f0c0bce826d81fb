"""Time contrast."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from ptr_fast.learners.registry import LearnerKind, register
from ptr_fast.learners.time_contrast.config import TimeContrastConfig
from ptr_fast.learners.time_contrast.traits import traits

if TYPE_CHECKING:
    from ptr_fast.learners.time_contrast.networks import TimeContrastNetworks
    from ptr_fast.learners.time_contrast.update import TimeContrastLearner

__all__ = ["TimeContrastConfig", "TimeContrastLearner", "TimeContrastNetworks"]

_WHERE = {"TimeContrastLearner": "update", "TimeContrastNetworks": "networks"}


def __getattr__(name: str) -> Any:
    """What computes is imported when somebody asks for it."""
    if name in _WHERE:
        return getattr(importlib.import_module(f"{__name__}.{_WHERE[name]}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def _make_learner(*arguments: Any) -> TimeContrastLearner:
    from ptr_fast.learners.time_contrast.update import TimeContrastLearner

    return TimeContrastLearner(*arguments)


def _networks(config: TimeContrastConfig) -> TimeContrastNetworks:
    from ptr_fast.learners.time_contrast.networks import TimeContrastNetworks

    return TimeContrastNetworks(config)


register(
    LearnerKind(
        tag="TimeContrastConfig",
        config_class=TimeContrastConfig,
        traits=traits,
        make_learner=_make_learner,
        networks=_networks,
    )
)
