"""Random numbers of one update of flow behaviour cloning.

Shapes: B batch, K noises and times per state, H actions of a chunk, A action.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch

from ptr_fast.learners.draws import BcDraws

__all__ = ["FlowDraws"]


@dataclass(frozen=True, kw_only=True)
class FlowDraws(BcDraws):
    """Besides augmentation and dropout:

    Attributes:
        noise: standard normal ``[B, K, H, A]``, where the flow begins.
        time: uniform in [0, 1), ``[B, K]``, of the flow.
    """

    noise: torch.Tensor
    time: torch.Tensor
