"""All randomness of one update, drawn from (seed, step) on the CPU, or injected.

Shapes: B batch, K sampled actions per state, A action.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch

from ptr_fast.config import BcConfig, CqlConfig
from ptr_fast.kernels.augment import AugmentParams, draw_augment
from ptr_fast.nets.init import keyed_generator

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


def draw_cql(config: CqlConfig, num_batch: int, action_dim: int, seed: int, step: int) -> Draws:
    """The draws of update ``step``: the same whatever ran before and on whatever device."""
    generator = keyed_generator(seed, "cql", step)
    shape = (num_batch, config.num_action_samples, action_dim)
    return Draws(
        next_eps=torch.randn(shape, generator=generator),
        policy_eps=torch.randn(shape, generator=generator),
        random_actions=2.0 * torch.rand(shape, generator=generator) - 1.0,
        actor_eps=torch.randn(num_batch, action_dim, generator=generator),
        augment=draw_augment(config.augment, num_batch, generator) if config.encoder.sees_images else None,
        next_augment=draw_augment(config.augment, num_batch, generator) if config.encoder.sees_images else None,
    )


def draw_bc(config: BcConfig, num_batch: int, seed: int, step: int) -> BcDraws:
    """The draws of update ``step``."""
    if not config.encoder.sees_images:
        return BcDraws()
    return BcDraws(augment=draw_augment(config.augment, num_batch, keyed_generator(seed, "bc", step)))
