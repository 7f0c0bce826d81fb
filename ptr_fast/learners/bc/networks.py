"""Networks of behaviour cloning: how they are made, act and encode.

Shapes: B states, T observations, H actions of a chunk, A action.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import nn

from ptr_fast.config import ActConfig, PolicySpec
from ptr_fast.learners.bc.config import BcConfig
from ptr_fast.learners.capabilities import Inputs
from ptr_fast.learners.imitation.networks import ImitationNetworks, observed
from ptr_fast.nets.dropout import Dropout
from ptr_fast.nets.encoders import make_encoder
from ptr_fast.nets.init import draw_weights
from ptr_fast.nets.policy import Actor, MeanPolicy, UnitGaussian, UnitLaplace

__all__ = ["BcNetworks", "ChunkActing", "chunk_law", "make_actor"]

LAWS: dict[str, type[UnitGaussian | UnitLaplace]] = {"mse": UnitGaussian, "l1": UnitLaplace}


def make_actor(config: BcConfig, spec: PolicySpec, seed: int = 0) -> Actor:
    """Actor, weights drawn from ``(seed, "actor")``."""
    encoder = make_encoder(config.encoder, spec.cameras)
    num_past, num_outputs = config.num_observations, spec.action.dim * config.num_actions
    policy = MeanPolicy(
        encoder.num_outputs * num_past, spec.state.dim * num_past, spec.tasks.num_slots, num_outputs, config.hidden_dims
    )
    return draw_weights(Actor(encoder, policy), seed, "actor")


def chunk_law(
    actor: Actor, inputs: Inputs, config: BcConfig, dropout: Dropout | None = None
) -> UnitGaussian | UnitLaplace:
    """The law of a chunk, mean ``[B, H, A]``."""
    mean = actor.policy(*observed(actor.encoder, inputs), inputs.task_id, dropout).mean_BA
    return LAWS[config.loss](mean.unflatten(1, (config.num_actions, -1)))


class BcNetworks(ImitationNetworks):
    """See :class:`ptr_fast.learners.imitation.networks.ImitationNetworks`."""

    config: BcConfig

    def make_actor(self, spec: PolicySpec, seed: int = 0) -> Actor:
        """Actor, weights drawn from ``(seed, "actor")``."""
        return make_actor(self.config, spec, seed)

    def noise_shape(self, act: ActConfig, spec: PolicySpec) -> tuple[int, ...] | None:
        """See :class:`~ptr_fast.learners.capabilities.Acts`."""
        return None

    def acting_module(self, networks: Mapping[str, nn.Module], act: ActConfig, spec: PolicySpec) -> nn.Module:
        """See :class:`~ptr_fast.learners.capabilities.Acts`."""
        return ChunkActing(self.actor_of(networks, averaged=act.mode != "mean"), self.config)

    def distribution(
        self, networks: Mapping[str, nn.Module], inputs: Inputs, averaged: bool = False
    ) -> UnitGaussian | UnitLaplace:
        """See :class:`~ptr_fast.learners.capabilities.Acts`."""
        law = chunk_law(self.actor_of(networks, averaged), inputs, self.config)
        return type(law)(law.mean_BA[:, 0])


class ChunkActing(nn.Module):
    """The most likely chunk; see :class:`ptr_fast.learners.capabilities.Acts`."""

    def __init__(self, actor: Actor, config: BcConfig) -> None:
        super().__init__()
        self.actor, self.config = actor, config

    def forward(
        self,
        images: Mapping[str, torch.Tensor],
        state_BTS: torch.Tensor,
        task_id_B: torch.Tensor,
        noise: torch.Tensor | None = None,
    ) -> torch.Tensor:
        """Scaled actions ``[B, H, A]``."""
        return chunk_law(self.actor, Inputs(images, state_BTS, task_id_B), self.config).mode()
