"""From a learner's configuration and a policy's surroundings to its nets."""

from __future__ import annotations

import math

import torch
from torch import nn

from ptr_fast.config import BcConfig, CqlConfig, LearnerConfig, PolicySpec
from ptr_fast.nets.critic import Critic, EnsembleHead
from ptr_fast.nets.encoders import make_encoder
from ptr_fast.nets.init import draw_weights
from ptr_fast.nets.policy import Actor, MeanPolicy, TanhGaussianPolicy

__all__ = ["Temperature", "make_actor", "make_critic"]


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
    return draw_weights(Actor(encoder, policy), seed, "actor")


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
    return draw_weights(Critic(encoder, head), seed, "critic")
