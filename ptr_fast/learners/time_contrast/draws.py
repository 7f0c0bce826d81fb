"""Randomness of one update of time contrast (note in :mod:`ptr_fast.learners.draws`)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch

from ptr_fast.kernels.augment import AugmentParams

__all__ = ["TimeContrastDraws"]


@dataclass(frozen=True, kw_only=True)
class TimeContrastDraws:
    """Random numbers of one update.

    Attributes:
        frames: uniform in [0, 1), ``[B, 3]``: which frames of a window are the earlier, the middle and the later one.
        augment: by camera, the same for all frames of a sample; None says that they are already augmented.
    """

    frames: torch.Tensor
    augment: Mapping[str, AugmentParams] | None = None
