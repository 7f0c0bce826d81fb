"""All randomness of one update, a function of seed, step and the number of each sample, or injected.

A sample's numbers do not depend on the rank, the device or the kind of run (resumed, captured) that draws them.

Shapes: B batch, K sampled actions per state, A action.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch

from ptr_fast.config import AugmentConfig, CqlConfig
from ptr_fast.kernels import counter_random
from ptr_fast.kernels.augment import NUM_WORDS, AugmentParams, draw_augment
from ptr_fast.kernels.counter_random import Stream
from ptr_fast.learners.imitation.config import ImitationConfig

__all__ = ["BcDraws", "Draws", "draw_bc", "draw_cql", "draw_images"]


@dataclass(frozen=True, kw_only=True)
class Draws:
    """Random numbers of one CQL update.

    Attributes:
        next_eps: standard normal ``[B, K, A]``, policy at s' for the target.
        policy_eps: standard normal ``[B, K, A]``, policy at s for the conservative term.
        random_actions: uniform in [-1, 1], ``[B, K, A]``.
        actor_eps: standard normal ``[B, A]``, the actor's own sample.
        augment, next_augment: by camera, of the images at s and s'; None says that they are already augmented, or not
            looked at.
    """

    next_eps: torch.Tensor
    policy_eps: torch.Tensor
    random_actions: torch.Tensor
    actor_eps: torch.Tensor
    augment: dict[str, AugmentParams] | None = None
    next_augment: dict[str, AugmentParams] | None = None

    def to(self, device: torch.device | str) -> Draws:
        """The same numbers on ``device``."""
        return Draws(
            next_eps=self.next_eps.to(device, non_blocking=True),
            policy_eps=self.policy_eps.to(device, non_blocking=True),
            random_actions=self.random_actions.to(device, non_blocking=True),
            actor_eps=self.actor_eps.to(device, non_blocking=True),
            augment=_moved(self.augment, device),
            next_augment=_moved(self.next_augment, device),
        )


@dataclass(frozen=True, kw_only=True)
class BcDraws:
    """Random numbers of one update of a learner that imitates.

    Attributes:
        augment: by camera, of the images; None: they are already augmented, or not looked at.
        dropout: uniform in [0, 1), ``[B, W]`` for W hidden units of a sample; None: none is dropped.
    """

    augment: dict[str, AugmentParams] | None = None
    dropout: torch.Tensor | None = None

    def to(self, device: torch.device | str) -> BcDraws:
        """The same numbers on ``device``."""
        dropout = None if self.dropout is None else self.dropout.to(device, non_blocking=True)
        return BcDraws(augment=_moved(self.augment, device), dropout=dropout)


def _moved(params: dict[str, AugmentParams] | None, device: torch.device | str) -> dict[str, AugmentParams] | None:
    return None if params is None else {camera: mine.to(device) for camera, mine in params.items()}


def draw_images(
    config: AugmentConfig,
    cameras: Sequence[str],
    streams: Sequence[Stream],
    samples_B: torch.Tensor | range,
    seed: int,
    step: int | torch.Tensor,
    device: torch.device | str | None = None,
) -> list[dict[str, AugmentParams]]:
    """The augmentation of every stream by camera; each camera has words of its own, the first one the first of them."""
    num_batch, num_words = len(samples_B), len(cameras) * NUM_WORDS
    words_SBW = torch.cat(
        [counter_random.uniform_bits(seed, stream, step, samples_B, num_words, device) for stream in streams]
    )
    words = words_SBW.view(-1, len(cameras), NUM_WORDS).transpose(0, 1).reshape(-1, NUM_WORDS)
    params = draw_augment(config, words)
    slices = [slice(first, first + num_batch) for first in range(0, len(words), num_batch)]
    return [
        {camera: params[slices[c * len(streams) + s]] for c, camera in enumerate(cameras)} for s in range(len(streams))
    ]


def draw_cql(
    config: CqlConfig,
    cameras: Sequence[str],
    samples_B: torch.Tensor | range,
    action_dim: int,
    seed: int,
    step: int | torch.Tensor,
    device: torch.device | str | None = None,
) -> Draws:
    """The draws of update ``step``.

    Args:
        config: sizes and ranges.
        cameras: names of the policy's cameras, in order.
        samples_B: numbers of the samples in the batch over all ranks, int64 ``[B]`` or a range.
        action_dim: A.
        seed: of all draws.
        step: number of the update; a 0-d int64 tensor on the device is not read back.
        device: of the draws; default: that of ``samples_B``, or the CPU.

    Returns:
        The draws, on the device.
    """
    num_batch, num_words = len(samples_B), config.num_action_samples * action_dim
    shape = (num_batch, config.num_action_samples, action_dim)

    def normal(stream: Stream, words: int) -> torch.Tensor:
        return counter_random.normal(seed, stream, step, samples_B, words, device)

    random_actions = counter_random.uniform(seed, Stream.RANDOM_ACTIONS, step, samples_B, num_words, device)
    augment = next_augment = None
    if config.encoder.sees_images:
        streams = (Stream.AUGMENT, Stream.NEXT_AUGMENT)
        augment, next_augment = draw_images(config.augment, cameras, streams, samples_B, seed, step, device)
    return Draws(
        next_eps=normal(Stream.NEXT_EPS, num_words).view(shape),
        policy_eps=normal(Stream.POLICY_EPS, num_words).view(shape),
        random_actions=random_actions.mul_(2.0).sub_(1.0).view(shape),
        actor_eps=normal(Stream.ACTOR_EPS, action_dim),
        augment=augment,
        next_augment=next_augment,
    )


def draw_bc(
    config: ImitationConfig,
    cameras: Sequence[str],
    samples_B: torch.Tensor | range,
    seed: int,
    step: int | torch.Tensor,
    device: torch.device | str | None = None,
    num_dropped: int = 0,
) -> BcDraws:
    """The draws of update ``step``; arguments of :func:`draw_cql`, and how many units of a sample may be dropped."""
    augment = dropout = None
    if config.encoder.sees_images:
        (augment,) = draw_images(config.augment, cameras, [Stream.AUGMENT], samples_B, seed, step, device)
    if config.dropout > 0.0:
        dropout = counter_random.uniform(seed, Stream.DROPOUT, step, samples_B, num_dropped, device)
    return BcDraws(augment=augment, dropout=dropout)
