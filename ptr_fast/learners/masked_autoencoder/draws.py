"""Randomness of one update of the masked autoencoder (note in :mod:`ptr_fast.learners.draws`)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch

from ptr_fast.kernels.augment import AugmentParams

__all__ = ["MaskedAutoencoderDraws"]


@dataclass(frozen=True, kw_only=True)
class MaskedAutoencoderDraws:
    """Random numbers of one update, by camera.

    Attributes:
        noise: uniform in [0, 1), ``[B, L]`` of every camera: the patches with the least are seen.
        augment: of the frames; None says that they are already augmented.
    """

    noise: Mapping[str, torch.Tensor]
    augment: Mapping[str, AugmentParams] | None = None
