"""The random numbers of one update from PyTorch's own generator, on the device: what a PyTorch user writes."""

from __future__ import annotations

import torch

from ptr_fast.config import AugmentConfig, CqlConfig
from ptr_fast.kernels.augment import AugmentParams, JitterParams
from ptr_fast.learners import Draws

__all__ = ["draw"]

CAMERA = "image_0"


def draw(config: CqlConfig, num_batch: int, action_dim: int, device: torch.device) -> Draws:
    """Draws of the same laws as our learner's."""
    shape = (num_batch, config.num_action_samples, action_dim)
    return Draws(
        next_eps=torch.randn(shape, device=device),
        policy_eps=torch.randn(shape, device=device),
        random_actions=torch.rand(shape, device=device) * 2.0 - 1.0,
        actor_eps=torch.randn(num_batch, action_dim, device=device),
        augment={CAMERA: _draw_augment(config.augment, num_batch, device)},
        next_augment={CAMERA: _draw_augment(config.augment, num_batch, device)},
    )


def _draw_augment(config: AugmentConfig, num_images: int, device: torch.device) -> AugmentParams:
    def symmetric(half_width: float) -> torch.Tensor:
        return (2.0 * torch.rand(num_images, device=device) - 1.0) * half_width

    return AugmentParams(
        crop_offsets=torch.randint(0, 2 * config.crop_padding + 1, (num_images, 2), device=device),
        crop_padding=config.crop_padding,
        jitter=JitterParams(
            apply=torch.rand(num_images, device=device) < config.jitter_probability,
            order=torch.rand(num_images, 4, device=device).argsort(dim=1),
            brightness=symmetric(config.brightness),
            contrast=1.0 + symmetric(config.contrast),
            saturation=1.0 + symmetric(config.saturation),
            hue=symmetric(config.hue),
        ),
    )
