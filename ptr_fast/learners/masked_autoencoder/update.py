"""Masked autoencoder: paint the hidden patches of a frame from the seen ones.

Shapes: B frames of a camera, L patches, P pixels of a patch times 3.
Source: He et al. 2022, "Masked autoencoders are scalable vision learners": mean squared error over the pixels of a
patch, mean over hidden patches alone; AdamW. Deviations: Adam's second momentum is 0.999 (theirs 0.95), there is no
warm-up, and the frames are shifted (crop) and not zoomed or flipped.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import cast

import torch
from torch import nn

from ptr_fast.kernels import counter_random
from ptr_fast.kernels.counter_random import Stream
from ptr_fast.learners import base
from ptr_fast.learners.draws import draw_images
from ptr_fast.learners.masked_autoencoder.config import MaskedAutoencoderConfig
from ptr_fast.learners.masked_autoencoder.draws import MaskedAutoencoderDraws
from ptr_fast.learners.masked_autoencoder.networks import (
    Autoencoder,
    patch_targets,
    rows_of,
    seen_and_hidden,
)
from ptr_fast.learners.representation.update import RepresentationLearner
from ptr_fast.types import Batch

__all__ = ["MaskedAutoencoderLearner"]


class MaskedAutoencoderLearner(RepresentationLearner):
    """See :class:`ptr_fast.learners.representation.update.RepresentationLearner`."""

    config: MaskedAutoencoderConfig
    network: Autoencoder

    def _trained(self) -> list[nn.Parameter]:
        return [p for part in (*self.network.trunks(), self.network.decoders) for p in part.parameters()]

    def draw(self, samples: torch.Tensor | range, step: int | torch.Tensor) -> MaskedAutoencoderDraws:
        """See :class:`ptr_fast.learners.representation.update.RepresentationLearner`."""
        where = samples, self.seed, step, self.device
        (augment,) = draw_images(self.config.augment, self._cameras, [Stream.AUGMENT], *where)
        grids = [self.network.of_camera(number)[0].grid for number in range(len(self._cameras))]
        nums = [rows * columns for rows, columns in grids]
        noise = counter_random.uniform(self.seed, Stream.MASKED_PATCHES, step, samples, sum(nums), self.device)
        return MaskedAutoencoderDraws(
            noise=dict(zip(self._cameras, noise.split(nums, dim=1), strict=True)), augment=augment
        )

    def loss(self, batch: Batch, draws: MaskedAutoencoderDraws) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
        """Mean over the cameras of the error of the hidden patches."""
        frames = base.augmented(batch.images, cast(Mapping, draws.augment), self._parameters[0].dtype)
        errors, guesses = [], []
        for number, camera in enumerate(self._cameras):
            images, trunk = frames[camera], self.network.of_camera(number)[0]
            seen_BV, hidden_BM = seen_and_hidden(draws.noise[camera], self.config.mask_ratio)
            target_BLP = patch_targets(trunk.patches(images), self.config.normalise_patches)
            painted_BLP = self.network.painted(number, images.to(self._dtype), seen_BV, hidden_BM)
            wanted_BMP = rows_of(target_BLP, hidden_BM)
            errors.append((rows_of(painted_BLP, hidden_BM).to(wanted_BMP.dtype) - wanted_BMP).square().mean())
            mean_B1P = rows_of(target_BLP, seen_BV).mean(dim=1, keepdim=True)
            guesses.append((mean_B1P - wanted_BMP).square().mean())
        loss = torch.stack(errors).mean()
        return loss, {"train/mae_loss": loss, "mae/mean_patch_error": torch.stack(guesses).mean()}
