"""Learners: a folder each, found by their registration (:mod:`ptr_fast.learners.registry`).

Importing this package computes nothing and imports no PyTorch: what acts on a robot asks the registry alone.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import torch

    from ptr_fast.config import LearnerConfig, PolicySpec
    from ptr_fast.learners.base import Learner
    from ptr_fast.learners.bc import BcConfig, BcLearner
    from ptr_fast.learners.cql import CqlConfig, CqlLearner, CqlTerms
    from ptr_fast.learners.distributed import Ranks
    from ptr_fast.learners.draws import BcDraws, Draws

__all__ = [
    "BcConfig",
    "BcDraws",
    "BcLearner",
    "CqlConfig",
    "CqlLearner",
    "CqlTerms",
    "Draws",
    "Learner",
    "Ranks",
    "make_learner",
]

_WHERE = {
    "BcConfig": "bc",
    "BcDraws": "draws",
    "BcLearner": "bc",
    "CqlConfig": "cql",
    "CqlLearner": "cql",
    "CqlTerms": "cql",
    "Draws": "draws",
    "Learner": "base",
    "Ranks": "distributed",
}


def __getattr__(name: str) -> Any:
    """The public names, from the modules that have them."""
    if name in _WHERE:
        return getattr(importlib.import_module(f"{__name__}.{_WHERE[name]}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def make_learner(
    config: LearnerConfig,
    spec: PolicySpec,
    seed: int = 0,
    device: torch.device | str = "cpu",
    encoder_dtype: torch.dtype | None = None,
    ranks: Ranks | None = None,
) -> Learner:
    """The learner that a configuration describes, with fresh weights drawn from the seed.

    Args:
        config: of any registered learner.
        spec: sizes of images, state, action and task table.
        seed: of initial weights and of all draws.
        device: where everything lives.
        encoder_dtype: of the images, and so of the trunks' activations: bfloat16, or None for that of the weights.
        ranks: the processes that train together; None: alone.

    Raises:
        ValueError: nobody has registered this class of configurations.
    """
    from ptr_fast.learners.registry import kind_of

    learner = kind_of(config).make_learner(config, spec, seed, device, encoder_dtype, ranks)
    if config.standardise_state:
        from ptr_fast.nets.state_scale import add_state_scales

        add_state_scales(learner.networks().values(), spec.state.dim)
    return learner
