"""Flow behaviour cloning."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ptr_fast.learners.flow_bc.config import FlowBcConfig
from ptr_fast.learners.flow_bc.traits import traits
from ptr_fast.learners.registry import LearnerKind, imported_when_asked, imported_when_called, register

if TYPE_CHECKING:
    from ptr_fast.learners.flow_bc.networks import FlowBcNetworks
    from ptr_fast.learners.flow_bc.update import FlowBcLearner

__all__ = ["FlowBcConfig", "FlowBcLearner", "FlowBcNetworks"]

__getattr__ = imported_when_asked(__name__, {"FlowBcLearner": "update", "FlowBcNetworks": "networks"})

register(
    LearnerKind(
        tag="FlowBcConfig",
        config_class=FlowBcConfig,
        traits=traits,
        make_learner=imported_when_called("ptr_fast.learners.flow_bc.update:FlowBcLearner"),
        networks=imported_when_called("ptr_fast.learners.flow_bc.networks:FlowBcNetworks"),
    )
)
