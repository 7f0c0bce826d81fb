"""A policy that samples by a flow: noise is moved along a learned velocity until it is a chunk of actions.

Shapes: B states, H actions of a chunk, A action, D embedding, S state, N task slots, C hidden units.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import nn
from torch.nn import functional as F

from ptr_fast.nets.dropout import Dropout
from ptr_fast.nets.init import orthogonal_
from ptr_fast.nets.layers import Dense, select_task
from ptr_fast.nets.state_scale import SeesState

__all__ = ["Flow", "FlowPolicy"]


class FlowPolicy(SeesState):
    """The velocity of noised chunks, by an MLP with GELU on (embedding, state, task, noised chunk, time).

    Source: the actor of flow behaviour cloning in FQL (Park et al. 2025). What does not change along the flow is
    computed once for a state. The flow ends at standardised actions, which are of the size of the noise; mean and
    deviation of every axis are fitted to the training data before the first update, until then they are 0 and 1.
    """

    action_mean: torch.Tensor
    action_std: torch.Tensor

    def __init__(
        self,
        embedding_dim: int,
        state_dim: int,
        num_task_slots: int,
        action_dim: int,
        num_actions: int,
        hidden_dims: tuple[int, ...],
    ) -> None:
        super().__init__()
        self.num_dense_inputs, self.num_task_slots = embedding_dim + state_dim, num_task_slots
        chunk_dim = num_actions * action_dim
        self.seen = Dense(self.num_dense_inputs + num_task_slots, hidden_dims[0])
        self.noised = Dense(chunk_dim + 1, hidden_dims[0], bias=False)
        self.layers = nn.ModuleList(Dense(a, b) for a, b in zip(hidden_dims, hidden_dims[1:], strict=False))
        self.velocity_head = Dense(hidden_dims[-1], chunk_dim)
        self.register_buffer("action_mean", torch.zeros(action_dim))
        self.register_buffer("action_std", torch.ones(action_dim))

    def initialise(self, generator: torch.Generator) -> None:
        for layer in (self.seen, self.noised, *self.layers):
            assert isinstance(layer, Dense)
            orthogonal_(layer.weight, 1.0, generator)
            if layer.bias is not None:
                nn.init.zeros_(layer.bias)
        orthogonal_(self.velocity_head.weight, 1e-2, generator)
        nn.init.zeros_(self.velocity_head.bias)

    def forward(self, embedding_BD: torch.Tensor, state_BS: torch.Tensor, task_id_B: torch.Tensor) -> torch.Tensor:
        """What the first layer makes of all that is seen, ``[B, C]``."""
        w_dense, w_task = self.seen.weight.split([self.num_dense_inputs, self.num_task_slots], dim=1)
        inputs = torch.cat([embedding_BD, self.seen_state(state_BS)], dim=1)
        return F.linear(inputs, w_dense, self.seen.bias) + select_task(w_task, 1, task_id_B).t()

    def standardised(self, actions: torch.Tensor) -> torch.Tensor:
        """Scaled actions ``[..., A]`` as the flow knows them."""
        return (actions - self.action_mean) / self.action_std

    def velocity(
        self, seen: torch.Tensor, noised: torch.Tensor, time: torch.Tensor, dropout: Dropout | None = None
    ) -> torch.Tensor:
        """Velocity ``[B, ..., H * A]`` of noised chunks.

        Args:
            seen: of :meth:`forward`, ``[B, ..., C]``.
            noised: ``[B, ..., H * A]``.
            time: in [0, 1], ``[B, ..., 1]``.
        """
        hidden = F.gelu(seen + self.noised(torch.cat([noised, time], dim=-1)))
        for layer in self.layers:
            hidden = F.gelu(layer(hidden if dropout is None else dropout(hidden)))
        return self.velocity_head(hidden if dropout is None else dropout(hidden))


@dataclass(frozen=True)
class Flow:
    """The law of what the flow makes of standard normal noise; it has no density that could be told.

    Attributes:
        policy: of the velocity.
        seen_BC: of :meth:`FlowPolicy.forward`.
        num_actions: H.
        num_flow_steps: Euler steps from noise to chunk.
    """

    policy: FlowPolicy
    seen_BC: torch.Tensor
    num_actions: int
    num_flow_steps: int

    def sample(self, noise: torch.Tensor) -> torch.Tensor:
        """Chunks ``[B, H, A]`` or ``[B, K, H, A]``, clipped to [-1, 1].

        Args:
            noise: standard normal, ``[B, H * A]`` or ``[B, K, H * A]``.
        """
        moved, step = noise, 1.0 / self.num_flow_steps
        seen = self.seen_BC if noise.dim() == 2 else self.seen_BC[:, None]
        for i in range(self.num_flow_steps):
            time = torch.full_like(noise[..., :1], i * step)
            moved = moved + step * self.policy.velocity(seen, moved, time)
        chunk = moved.unflatten(-1, (self.num_actions, -1))
        return (self.policy.action_mean + self.policy.action_std * chunk).clamp(-1.0, 1.0)
