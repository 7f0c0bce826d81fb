"""Masked autoencoder."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ptr_fast.learners.masked_autoencoder.config import MaskedAutoencoderConfig
from ptr_fast.learners.masked_autoencoder.traits import traits
from ptr_fast.learners.registry import LearnerKind, imported_when_asked, imported_when_called, register

if TYPE_CHECKING:
    from ptr_fast.learners.masked_autoencoder.networks import MaskedAutoencoderNetworks
    from ptr_fast.learners.masked_autoencoder.update import MaskedAutoencoderLearner

__all__ = ["MaskedAutoencoderConfig", "MaskedAutoencoderLearner", "MaskedAutoencoderNetworks"]

__getattr__ = imported_when_asked(
    __name__, {"MaskedAutoencoderLearner": "update", "MaskedAutoencoderNetworks": "networks"}
)

register(
    LearnerKind(
        tag="MaskedAutoencoderConfig",
        config_class=MaskedAutoencoderConfig,
        traits=traits,
        make_learner=imported_when_called("ptr_fast.learners.masked_autoencoder.update:MaskedAutoencoderLearner"),
        networks=imported_when_called("ptr_fast.learners.masked_autoencoder.networks:MaskedAutoencoderNetworks"),
    )
)
