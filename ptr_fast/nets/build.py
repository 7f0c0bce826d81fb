"""From a learner's configuration and a policy's surroundings to its nets."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import nn

from ptr_fast.config import BcConfig, CqlConfig, EncoderConfig, LearnerConfig, PolicySpec
from ptr_fast.nets.critic import Critic, EnsembleHead
from ptr_fast.nets.encoder import Encoder, ImageEncoder, NoEncoder, OwnEncoders
from ptr_fast.nets.init import keyed_generator
from ptr_fast.nets.policy import Actor, MeanPolicy, TanhGaussianPolicy
from ptr_fast.types import CameraSpec

__all__ = ["Temperature", "make_actor", "make_critic", "make_encoder"]


class Temperature(nn.Module):
    """The entropy weight ``exp(log_temperature)``, a trained scalar."""

    def __init__(self, initial: float) -> None:
        super().__init__()
        self.log_temperature = nn.Parameter(torch.tensor(math.log(initial)))

    def forward(self) -> torch.Tensor:
        return self.log_temperature.exp()


def make_actor(config: LearnerConfig, spec: PolicySpec, seed: int = 0) -> Actor:
    """The actor of either learner, its weights drawn from ``(seed, "actor")``."""
    if not isinstance(config, CqlConfig | BcConfig):
        raise ValueError(f"actor: expected a CqlConfig or BcConfig, got {type(config).__name__}")
    encoder = make_encoder(config.encoder, [spec.camera])
    kind = TanhGaussianPolicy if isinstance(config, CqlConfig) else MeanPolicy
    policy: TanhGaussianPolicy | MeanPolicy = kind(
        encoder.num_outputs, spec.state.dim, spec.tasks.num_slots, spec.action.dim, config.hidden_dims
    )
    actor, generator = Actor(encoder, policy), keyed_generator(seed, "actor")
    encoder.initialise(generator)
    policy.initialise(generator)
    return actor


def make_critic(config: CqlConfig, spec: PolicySpec, seed: int = 0) -> Critic:
    """Critic encoder and heads, weights drawn from ``(seed, "critic")``."""
    encoder = make_encoder(config.encoder, [spec.camera])
    head = EnsembleHead(
        config.critic_head,
        config.num_critics,
        embedding_dim=encoder.num_outputs,
        state_dim=spec.state.dim,
        num_task_slots=spec.tasks.num_slots,
        action_dim=spec.action.dim,
        hidden_dims=config.hidden_dims,
    )
    critic, generator = Critic(encoder, head), keyed_generator(seed, "critic")
    encoder.initialise(generator)
    head.initialise(generator)
    return critic


def make_encoder(config: EncoderConfig, cameras: Sequence[CameraSpec]) -> Encoder:
    """An encoder of these cameras; its weights are not drawn yet.

    Raises:
        ValueError: cameras of several sizes are to share one encoder.
    """
    if not config.sees_images:
        return NoEncoder()
    if config.cameras == "own" and len(cameras) > 1:
        return OwnEncoders([make_encoder(config, [camera]) for camera in cameras])
    sizes = {(camera.height, camera.width) for camera in cameras}
    if len(sizes) != 1:
        told = ", ".join(f"{camera.name} {camera.height}x{camera.width}" for camera in cameras)
        raise ValueError(f"encoder: cameras that share one encoder must have one size, got {told}; take cameras='own'")
    return ImageEncoder(config, *sizes.pop(), [camera.name for camera in cameras])
