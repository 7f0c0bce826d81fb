"""Random numbers of advantage-weighted behaviour cloning.

Shapes: B batch, K samples per state, N numbers of one sample.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch

from ptr_fast.learners.draws import BcDraws

__all__ = ["AwbcDraws"]


@dataclass(frozen=True, kw_only=True)
class AwbcDraws(BcDraws):
    """Random numbers of one update.

    Attributes:
        value_eps: standard normal ``[B, K, N]``, for the samples whose mean Q is the value of a state.
        order: int64 ``[B of all ranks]``, a permutation of the whole batch: which sample's weight each sample gets;
            None: its own.
    """

    value_eps: torch.Tensor
    order: torch.Tensor | None = None
