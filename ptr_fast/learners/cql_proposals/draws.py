"""All randomness of one update of CQL with cloned proposals.

Shapes: B batch, K sampled actions per state, A action.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch

from ptr_fast.kernels import counter_random
from ptr_fast.kernels.augment import AugmentParams
from ptr_fast.kernels.counter_random import Stream
from ptr_fast.learners.cql_proposals.config import CqlProposalsConfig
from ptr_fast.learners.draws import draw_images

__all__ = ["ProposalDraws", "draw_proposals"]


@dataclass(frozen=True, kw_only=True)
class ProposalDraws:
    """Random numbers of one update.

    Attributes:
        next_noise: standard normal ``[B, K, A + 1]``, proposals of the averaged clone at s' for the target.
        proposal_noise: standard normal ``[B, K, A + 1]``, proposals at s for the conservative term.
        random_actions: uniform in [-1, 1], ``[B, K, A]``.
        augment, next_augment: by camera, of the images at s and s'; None says that they are already augmented, or not
            looked at.
    """

    next_noise: torch.Tensor
    proposal_noise: torch.Tensor
    random_actions: torch.Tensor
    augment: dict[str, AugmentParams] | None = None
    next_augment: dict[str, AugmentParams] | None = None


def draw_proposals(
    config: CqlProposalsConfig,
    cameras: Sequence[str],
    samples_B: torch.Tensor | range,
    action_dim: int,
    seed: int,
    step: int | torch.Tensor,
    device: torch.device | str | None = None,
) -> ProposalDraws:
    """The draws of update ``step``; arguments of :func:`ptr_fast.learners.draws.draw_cql`."""
    num_samples = config.num_action_samples

    def normal(stream: Stream) -> torch.Tensor:
        words = num_samples * (action_dim + 1)
        drawn = counter_random.normal(seed, stream, step, samples_B, words, device)
        return drawn.unflatten(1, (num_samples, action_dim + 1))

    words = num_samples * action_dim
    random_actions = counter_random.uniform(seed, Stream.RANDOM_ACTIONS, step, samples_B, words, device)
    augment = next_augment = None
    if config.encoder.sees_images:
        streams = (Stream.AUGMENT, Stream.NEXT_AUGMENT)
        augment, next_augment = draw_images(config.augment, cameras, streams, samples_B, seed, step, device)
    return ProposalDraws(
        next_noise=normal(Stream.NEXT_PROPOSALS),
        proposal_noise=normal(Stream.PROPOSALS),
        random_actions=random_actions.mul_(2.0).sub_(1.0).unflatten(1, (num_samples, action_dim)),
        augment=augment,
        next_augment=next_augment,
    )
