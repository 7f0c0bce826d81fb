"""Time contrast: embeddings of frames that are near in time are near.

Shapes: B samples, T frames of a window, D embedding.
Source: R3M's objective without its language part (:mod:`ptr_fast.learners.time_contrast.terms`), Adam, one crop for all
frames of an episode. Deviations: our encoders end in a layer norm and tanh, so that embeddings have a bounded size; the
frames come from a window of the episode and not from all of it.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import cast

import torch

from ptr_fast.kernels import counter_random
from ptr_fast.kernels.counter_random import Stream
from ptr_fast.learners import base
from ptr_fast.learners.draws import draw_images
from ptr_fast.learners.representation.update import RepresentationLearner
from ptr_fast.learners.time_contrast.config import TimeContrastConfig
from ptr_fast.learners.time_contrast.draws import TimeContrastDraws
from ptr_fast.learners.time_contrast.networks import Embedding
from ptr_fast.learners.time_contrast.terms import distance, three_frames, time_loss
from ptr_fast.types import Batch, PooledFrames

__all__ = ["TimeContrastLearner"]


class TimeContrastLearner(RepresentationLearner):
    """See :class:`ptr_fast.learners.representation.update.RepresentationLearner`."""

    config: TimeContrastConfig
    network: Embedding

    def draw(self, samples: torch.Tensor | range, step: int | torch.Tensor) -> TimeContrastDraws:
        """See :class:`ptr_fast.learners.representation.update.RepresentationLearner`."""
        where = samples, self.seed, step, self.device
        (augment,) = draw_images(self.config.augment, self._cameras, [Stream.AUGMENT], *where)
        frames = counter_random.uniform(self.seed, Stream.CONTRASTED_FRAMES, step, samples, 3, self.device)
        return TimeContrastDraws(frames=frames, augment=augment)

    def loss(self, batch: Batch, draws: TimeContrastDraws) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
        """Mean of the loss of the samples that have three frames, and the weighted norms of all embeddings."""
        config, num_batch = self.config, len(batch)
        place_B3, enough_B = three_frames(batch.observation_mask, draws.frames)
        chosen = {camera: _at(frames, place_B3) for camera, frames in batch.images.items()}
        images = base.augmented(chosen, cast(Mapping, draws.augment), self._dtype)
        embedding_B3D = self.network(images, 3 * num_batch).unflatten(0, (num_batch, 3))
        mine = slice(self.ranks.rank, None, self.ranks.world_size)
        time_B = time_loss(embedding_B3D, self.ranks.gather(embedding_B3D), mine, config.num_negatives)
        time = (time_B * enough_B).mean()
        l1, l2 = embedding_B3D.abs().sum(dim=2).mean(), distance(embedding_B3D, torch.zeros_like(embedding_B3D)).mean()
        loss = time + config.l1_weight * l1 + config.l2_weight * l2
        with torch.no_grad():
            earlier, middle, later = embedding_B3D.unbind(dim=1)
            across = distance(earlier, later)
            in_order = 0.5 * ((distance(middle, later) < across).float() + (distance(earlier, middle) < across).float())
        return loss, {
            "train/contrast_loss": loss,
            "contrast/time_loss": time,
            "contrast/in_order": (in_order * enough_B).mean(),
            "contrast/three_frames": enough_B.float().mean(),
            "contrast/l1": l1,
            "contrast/l2": l2,
        }


def _at(frames: torch.Tensor | PooledFrames, place_BN: torch.Tensor) -> torch.Tensor | PooledFrames:
    """Those frames ``[B, N, H, W, 3]`` of a window that are named, or their places in the pool."""
    if isinstance(frames, PooledFrames):
        return PooledFrames(frames.pool, frames.index.gather(1, place_BN))
    return frames[torch.arange(len(place_BN), device=frames.device)[:, None], place_BN]
