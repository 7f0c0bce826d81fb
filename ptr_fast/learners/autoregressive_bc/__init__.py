"""Autoregressive behaviour cloning."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ptr_fast.learners.autoregressive_bc.config import AutoregressiveBcConfig
from ptr_fast.learners.autoregressive_bc.traits import traits
from ptr_fast.learners.registry import LearnerKind, imported_when_asked, imported_when_called, register

if TYPE_CHECKING:
    from ptr_fast.learners.autoregressive_bc.networks import AutoregressiveBcNetworks
    from ptr_fast.learners.autoregressive_bc.update import AutoregressiveBcLearner

__all__ = ["AutoregressiveBcConfig", "AutoregressiveBcLearner", "AutoregressiveBcNetworks"]

__getattr__ = imported_when_asked(
    __name__, {"AutoregressiveBcLearner": "update", "AutoregressiveBcNetworks": "networks"}
)

register(
    LearnerKind(
        tag="AutoregressiveBcConfig",
        config_class=AutoregressiveBcConfig,
        traits=traits,
        make_learner=imported_when_called("ptr_fast.learners.autoregressive_bc.update:AutoregressiveBcLearner"),
        networks=imported_when_called("ptr_fast.learners.autoregressive_bc.networks:AutoregressiveBcNetworks"),
    )
)
