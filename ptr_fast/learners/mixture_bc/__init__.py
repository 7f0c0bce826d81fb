"""Cloning by a mixture of Gaussians."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ptr_fast.learners.mixture_bc.config import MixtureBcConfig
from ptr_fast.learners.mixture_bc.traits import traits
from ptr_fast.learners.registry import LearnerKind, imported_when_asked, imported_when_called, register

if TYPE_CHECKING:
    from ptr_fast.learners.mixture_bc.networks import MixtureBcNetworks
    from ptr_fast.learners.mixture_bc.update import MixtureBcLearner

__all__ = ["MixtureBcConfig", "MixtureBcLearner", "MixtureBcNetworks"]

__getattr__ = imported_when_asked(__name__, {"MixtureBcLearner": "update", "MixtureBcNetworks": "networks"})

register(
    LearnerKind(
        tag="MixtureBcConfig",
        config_class=MixtureBcConfig,
        traits=traits,
        make_learner=imported_when_called("ptr_fast.learners.mixture_bc.update:MixtureBcLearner"),
        networks=imported_when_called("ptr_fast.learners.mixture_bc.networks:MixtureBcNetworks"),
    )
)
