"""Learners: one ``update`` each. CQL (the paper's) and behaviour cloning."""

from __future__ import annotations

import torch

from ptr_fast.config import BcConfig, CqlConfig, LearnerConfig, PolicySpec
from ptr_fast.learners.base import Learner
from ptr_fast.learners.bc import BcLearner
from ptr_fast.learners.cql import CqlLearner, CqlTerms
from ptr_fast.learners.distributed import Ranks
from ptr_fast.learners.draws import BcDraws, Draws

__all__ = ["BcDraws", "BcLearner", "CqlLearner", "CqlTerms", "Draws", "Learner", "Ranks", "make_learner"]


def make_learner(
    config: LearnerConfig,
    spec: PolicySpec,
    seed: int = 0,
    device: torch.device | str = "cpu",
    encoder_dtype: torch.dtype | None = None,
    ranks: Ranks | None = None,
) -> CqlLearner | BcLearner:
    """The learner that a configuration describes, with fresh weights drawn from the seed."""
    if isinstance(config, CqlConfig):
        return CqlLearner(config, spec, seed, device, encoder_dtype, ranks)
    if isinstance(config, BcConfig):
        return BcLearner(config, spec, seed, device, encoder_dtype, ranks)
    raise ValueError(f"config: expected a CqlConfig or BcConfig, got {type(config).__name__}")
