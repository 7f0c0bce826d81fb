"""Masked autoencoder."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from ptr_fast.learners.masked_autoencoder.config import MaskedAutoencoderConfig
from ptr_fast.learners.masked_autoencoder.traits import traits
from ptr_fast.learners.registry import LearnerKind, register

if TYPE_CHECKING:
    from ptr_fast.learners.masked_autoencoder.networks import MaskedAutoencoderNetworks
    from ptr_fast.learners.masked_autoencoder.update import MaskedAutoencoderLearner

__all__ = ["MaskedAutoencoderConfig", "MaskedAutoencoderLearner", "MaskedAutoencoderNetworks"]

_WHERE = {"MaskedAutoencoderLearner": "update", "MaskedAutoencoderNetworks": "networks"}


def __getattr__(name: str) -> Any:
    """What computes is imported when somebody asks for it."""
    if name in _WHERE:
        return getattr(importlib.import_module(f"{__name__}.{_WHERE[name]}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def _make_learner(*arguments: Any) -> MaskedAutoencoderLearner:
    from ptr_fast.learners.masked_autoencoder.update import MaskedAutoencoderLearner

    return MaskedAutoencoderLearner(*arguments)


def _networks(config: MaskedAutoencoderConfig) -> MaskedAutoencoderNetworks:
    from ptr_fast.learners.masked_autoencoder.networks import MaskedAutoencoderNetworks

    return MaskedAutoencoderNetworks(config)


register(
    LearnerKind(
        tag="MaskedAutoencoderConfig",
        config_class=MaskedAutoencoderConfig,
        traits=traits,
        make_learner=_make_learner,
        networks=_networks,
    )
)
