"""From the configuration of nets and a policy's surroundings to the nets that learners share."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import nn

from ptr_fast.config import CriticHead, EncoderConfig, PolicySpec
from ptr_fast.nets.critic import Critic, EnsembleHead
from ptr_fast.nets.encoders import make_encoder
from ptr_fast.nets.init import draw_weights
from ptr_fast.nets.normalised_head import NormalisedHead
from ptr_fast.nets.policy import Actor

__all__ = ["Temperature", "make_actor", "make_critic"]


class Temperature(nn.Module):
    """The entropy weight ``exp(log_temperature)``, a trained scalar."""

    def __init__(self, initial: float) -> None:
        super().__init__()
        self.log_temperature = nn.Parameter(torch.tensor(math.log(initial)))

    def forward(self) -> torch.Tensor:
        return self.log_temperature.exp()


def make_actor(
    encoder: EncoderConfig,
    policy: Callable[..., nn.Module],
    hidden_dims: tuple[int, ...],
    spec: PolicySpec,
    seed: int = 0,
) -> Actor:
    """An actor whose policy a class makes of the nets' sizes, its weights drawn from ``(seed, "actor")``."""
    images = make_encoder(encoder, spec.cameras)
    head = policy(images.num_outputs, spec.state.dim, spec.tasks.num_slots, spec.action.dim, hidden_dims)
    return draw_weights(Actor(images, head), seed, "actor")


def make_critic(
    encoder: EncoderConfig,
    form: CriticHead,
    num_critics: int,
    hidden_dims: tuple[int, ...],
    spec: PolicySpec,
    seed: int = 0,
    layer_norm: bool = False,
) -> Critic:
    """A critic's encoder and heads, with or without layer norms, the weights drawn from ``(seed, "critic")``."""
    images = make_encoder(encoder, spec.cameras)
    head = (NormalisedHead if layer_norm else EnsembleHead)(
        form,
        num_critics,
        embedding_dim=images.num_outputs,
        state_dim=spec.state.dim,
        num_task_slots=spec.tasks.num_slots,
        action_dim=spec.action.dim,
        hidden_dims=hidden_dims,
    )
    return draw_weights(Critic(images, head), seed, "critic")
