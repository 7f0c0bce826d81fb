"""All randomness of one update, a function of seed, step and the number of each sample, or injected.

A sample's numbers do not depend on the rank, the device or the kind of run (resumed, captured) that draws them.

Shapes: B batch, K sampled actions per state, A action.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch

from ptr_fast.config import BcConfig, CqlConfig
from ptr_fast.kernels import counter_random
from ptr_fast.kernels.augment import NUM_WORDS, AugmentParams, draw_augment
from ptr_fast.kernels.counter_random import Stream

__all__ = ["BcDraws", "Draws", "draw_bc", "draw_cql"]


@dataclass(frozen=True, kw_only=True)
class Draws:
    """Random numbers of one CQL update.

    Attributes:
        next_eps: standard normal ``[B, K, A]``, policy at s' for the target.
        policy_eps: standard normal ``[B, K, A]``, policy at s for the conservative term.
        random_actions: uniform in [-1, 1], ``[B, K, A]``.
        actor_eps: standard normal ``[B, A]``, the actor's own sample.
        augment, next_augment: of the images at s and s'; None says that they are already augmented, or not looked at.
    """

    next_eps: torch.Tensor
    policy_eps: torch.Tensor
    random_actions: torch.Tensor
    actor_eps: torch.Tensor
    augment: AugmentParams | None = None
    next_augment: AugmentParams | None = None

    def to(self, device: torch.device | str) -> Draws:
        """The same numbers on ``device``."""
        return Draws(
            next_eps=self.next_eps.to(device, non_blocking=True),
            policy_eps=self.policy_eps.to(device, non_blocking=True),
            random_actions=self.random_actions.to(device, non_blocking=True),
            actor_eps=self.actor_eps.to(device, non_blocking=True),
            augment=None if self.augment is None else self.augment.to(device),
            next_augment=None if self.next_augment is None else self.next_augment.to(device),
        )


@dataclass(frozen=True, kw_only=True)
class BcDraws:
    """Random numbers of one update of behaviour cloning; None says that the images are already augmented."""

    augment: AugmentParams | None = None

    def to(self, device: torch.device | str) -> BcDraws:
        """The same numbers on ``device``."""
        return BcDraws(augment=None if self.augment is None else self.augment.to(device))


def draw_cql(
    config: CqlConfig,
    samples_B: torch.Tensor | range,
    action_dim: int,
    seed: int,
    step: int | torch.Tensor,
    device: torch.device | str | None = None,
) -> Draws:
    """The draws of update ``step``.

    Args:
        config: sizes and ranges.
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
        words = [counter_random.uniform_bits(seed, s, step, samples_B, NUM_WORDS, device) for s in streams]
        both = draw_augment(config.augment, torch.cat(words))
        augment, next_augment = both[:num_batch], both[num_batch:]
    return Draws(
        next_eps=normal(Stream.NEXT_EPS, num_words).view(shape),
        policy_eps=normal(Stream.POLICY_EPS, num_words).view(shape),
        random_actions=random_actions.mul_(2.0).sub_(1.0).view(shape),
        actor_eps=normal(Stream.ACTOR_EPS, action_dim),
        augment=augment,
        next_augment=next_augment,
    )


def draw_bc(
    config: BcConfig,
    samples_B: torch.Tensor | range,
    seed: int,
    step: int | torch.Tensor,
    device: torch.device | str | None = None,
) -> BcDraws:
    """The draws of update ``step``; arguments of :func:`draw_cql`."""
    if not config.encoder.sees_images:
        return BcDraws()
    words = counter_random.uniform_bits(seed, Stream.AUGMENT, step, samples_B, NUM_WORDS, device)
    return BcDraws(augment=draw_augment(config.augment, words))
