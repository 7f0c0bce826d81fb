"""Networks of behaviour cloning: how they are made, act and encode.

Shapes: B states, T observations, H actions of a chunk, A action.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import cast

import torch
from torch import nn

from ptr_fast.config import ActConfig, PolicySpec
from ptr_fast.learners.bc.config import BcConfig
from ptr_fast.learners.capabilities import Inputs
from ptr_fast.nets.encoders import make_encoder
from ptr_fast.nets.init import draw_weights
from ptr_fast.nets.policy import Actor, MeanPolicy, UnitGaussian

__all__ = ["BcNetworks", "ChunkActing", "chunk_law", "make_actor"]


def make_actor(config: BcConfig, spec: PolicySpec, seed: int = 0) -> Actor:
    """Actor, weights drawn from ``(seed, "actor")``."""
    encoder = make_encoder(config.encoder, spec.cameras)
    num_past, num_outputs = config.num_observations, spec.action.dim * config.num_actions
    policy = MeanPolicy(
        encoder.num_outputs * num_past, spec.state.dim * num_past, spec.tasks.num_slots, num_outputs, config.hidden_dims
    )
    return draw_weights(Actor(encoder, policy), seed, "actor")


def chunk_law(actor: Actor, inputs: Inputs, num_actions: int) -> UnitGaussian:
    """The law of a chunk, mean ``[B, H, A]``: what is seen of the T observations lies side by side."""
    num_states, num_past = inputs.state.shape[:2]
    embedding = actor.encoder(inputs.images, num_states * num_past)
    embedding = embedding.view(num_states, num_past * actor.encoder.num_outputs)
    mean = actor.policy(embedding, inputs.state.flatten(1), inputs.task_id).mean_BA
    return UnitGaussian(mean.unflatten(1, (num_actions, -1)))


class BcNetworks:
    """What the networks of a configuration can do; the protocols of :mod:`ptr_fast.learners.capabilities`."""

    def __init__(self, config: BcConfig) -> None:
        self.config = config

    def make_networks(self, spec: PolicySpec, names: Sequence[str], seed: int = 0) -> dict[str, nn.Module]:
        """See :class:`~ptr_fast.learners.capabilities.MakesNetworks`."""
        return {name: make_actor(self.config, spec, seed) for name in names}

    def networks_for(self, mode: str) -> tuple[str, ...]:
        """See :class:`~ptr_fast.learners.capabilities.Acts`."""
        return {"mean": ("actor",), "ema_mean": ("ema_actor",)}[mode]

    def noise_shape(self, act: ActConfig, spec: PolicySpec) -> tuple[int, ...] | None:
        """See :class:`~ptr_fast.learners.capabilities.Acts`."""
        return None

    def acting_module(self, networks: Mapping[str, nn.Module], act: ActConfig, spec: PolicySpec) -> nn.Module:
        """See :class:`~ptr_fast.learners.capabilities.Acts`."""
        return ChunkActing(cast(Actor, networks[self.networks_for(act.mode)[0]]), self.config.num_actions)

    def distribution(self, networks: Mapping[str, nn.Module], inputs: Inputs, averaged: bool = False) -> UnitGaussian:
        """See :class:`~ptr_fast.learners.capabilities.Acts`."""
        actor = cast(Actor, networks["ema_actor" if averaged else "actor"])
        return UnitGaussian(chunk_law(actor, inputs, self.config.num_actions).mean_BA[:, 0])

    def encoder_network(self) -> str:
        """See :class:`~ptr_fast.learners.capabilities.Encodes`."""
        return "actor"

    def encoder_of(self, networks: Mapping[str, nn.Module]) -> nn.Module:
        """See :class:`~ptr_fast.learners.capabilities.Encodes`."""
        return cast(Actor, networks["actor"]).encoder

    def embed(self, networks: Mapping[str, nn.Module], images: Mapping[str, torch.Tensor]) -> torch.Tensor:
        """See :class:`~ptr_fast.learners.capabilities.Encodes`."""
        return self.encoder_of(networks)(images, len(next(iter(images.values()))))


class ChunkActing(nn.Module):
    """The most likely chunk; see :class:`ptr_fast.learners.capabilities.Acts`."""

    def __init__(self, actor: Actor, num_actions: int) -> None:
        super().__init__()
        self.actor, self.num_actions = actor, num_actions

    def forward(
        self,
        images: Mapping[str, torch.Tensor],
        state_BTS: torch.Tensor,
        task_id_B: torch.Tensor,
        noise: torch.Tensor | None = None,
    ) -> torch.Tensor:
        """Scaled actions ``[B, H, A]``."""
        return chunk_law(self.actor, Inputs(images, state_BTS, task_id_B), self.num_actions).mode()
