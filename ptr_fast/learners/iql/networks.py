"""Networks of implicit Q-learning: an actor and a critic as CQL has them, and the value of a state.

Shapes: B states, D embedding, S state.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from ptr_fast.config import PolicySpec
from ptr_fast.learners.cql.networks import CqlNetworks
from ptr_fast.learners.iql.config import IqlConfig
from ptr_fast.nets.build import make_actor, make_critic
from ptr_fast.nets.encoders import make_encoder
from ptr_fast.nets.init import draw_weights, orthogonal_
from ptr_fast.nets.layers import Dense
from ptr_fast.nets.policy import PolicyTrunk, TanhGaussianPolicy

__all__ = ["IqlNetworks", "StateValue"]


class StateValue(nn.Module):
    """Value of a state, by an MLP on the critic's embedding, state and task."""

    def __init__(self, embedding_dim: int, state_dim: int, num_task_slots: int, hidden_dims: tuple[int, ...]) -> None:
        super().__init__()
        self.trunk = PolicyTrunk(embedding_dim, state_dim, num_task_slots, hidden_dims)
        self.value = Dense(hidden_dims[-1], 1)

    def initialise(self, generator: torch.Generator) -> None:
        self.trunk.initialise(generator)
        orthogonal_(self.value.weight, 1e-2, generator)
        nn.init.zeros_(self.value.bias)

    def forward(self, embedding_BD: torch.Tensor, state_BS: torch.Tensor, task_id_B: torch.Tensor) -> torch.Tensor:
        """``[B]``, in units of the reward."""
        return self.value(self.trunk(embedding_BD, state_BS, task_id_B)).squeeze(1)


class IqlNetworks(CqlNetworks):
    """What the networks of a configuration can do: all that CQL's can, by the same names."""

    config: Any

    def __init__(self, config: IqlConfig) -> None:
        self.config = config

    def _make(self, spec: PolicySpec, name: str, seed: int) -> nn.Module:
        """Weights of actors, critics and value are drawn from the seed and their name."""
        config = self.config
        if name == "value":
            embedding_dim = make_encoder(config.encoder, spec.cameras).num_outputs
            value = StateValue(embedding_dim, spec.state.dim, spec.tasks.num_slots, config.hidden_dims)
            return draw_weights(value, seed, "value")
        if name in ("critic", "target_critic"):
            return make_critic(config.encoder, config.critic_head, config.num_critics, config.hidden_dims, spec, seed)
        return make_actor(config.encoder, TanhGaussianPolicy, config.hidden_dims, spec, seed)
