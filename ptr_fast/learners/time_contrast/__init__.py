"""Time contrast."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ptr_fast.learners.registry import LearnerKind, imported_when_asked, imported_when_called, register
from ptr_fast.learners.time_contrast.config import TimeContrastConfig
from ptr_fast.learners.time_contrast.traits import traits

if TYPE_CHECKING:
    from ptr_fast.learners.time_contrast.networks import TimeContrastNetworks
    from ptr_fast.learners.time_contrast.update import TimeContrastLearner

__all__ = ["TimeContrastConfig", "TimeContrastLearner", "TimeContrastNetworks"]

__getattr__ = imported_when_asked(__name__, {"TimeContrastLearner": "update", "TimeContrastNetworks": "networks"})

register(
    LearnerKind(
        tag="TimeContrastConfig",
        config_class=TimeContrastConfig,
        traits=traits,
        make_learner=imported_when_called("ptr_fast.learners.time_contrast.update:TimeContrastLearner"),
        networks=imported_when_called("ptr_fast.learners.time_contrast.networks:TimeContrastNetworks"),
    )
)
