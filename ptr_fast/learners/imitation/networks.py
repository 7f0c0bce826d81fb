"""What the networks of all learners that imitate have: an actor and its average.

Shapes: B states, T observations, D embedding, S state.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import Any, cast

import torch
from torch import nn

from ptr_fast.config import ActConfig, PolicySpec
from ptr_fast.learners.capabilities import Distribution, Inputs
from ptr_fast.nets.encoders import Encoder, make_encoder
from ptr_fast.nets.init import draw_weights
from ptr_fast.nets.policy import Actor

__all__ = ["ImitationNetworks", "LawActing", "observed"]


def observed(encoder: Encoder, inputs: Inputs) -> tuple[torch.Tensor, torch.Tensor]:
    """Embeddings ``[B, T * D]`` and states ``[B, T * S]``: what is seen of the T observations lies side by side."""
    num_states, num_past = inputs.state.shape[:2]
    embedding = encoder(inputs.images, num_states * num_past)
    return embedding.view(num_states, num_past * encoder.num_outputs), inputs.state.flatten(1)


class ImitationNetworks(ABC):
    """What the networks of a configuration can do; the protocols of :mod:`ptr_fast.learners.capabilities`.

    The trained actor acts in the mode ``mean``, its average in all others. A method adds its policy and its law.
    """

    def __init__(self, config: Any) -> None:
        self.config = config

    @abstractmethod
    def make_policy(self, embedding_dim: int, state_dim: int, num_task_slots: int, action_dim: int) -> Any:
        """The policy that sees embeddings, states (of T observations side by side) and tasks of these sizes."""

    @abstractmethod
    def law(self, actor: Actor, inputs: Inputs) -> Any:
        """The law of the present action, or of a chunk; what it has of :class:`Distribution` its modes need."""

    def noise_dim(self, spec: PolicySpec) -> int:
        """Standard normal numbers that one sample of the law takes."""
        return spec.action.dim

    def make_actor(self, spec: PolicySpec, seed: int = 0) -> Actor:
        """Actor, weights drawn from ``(seed, "actor")``."""
        encoder, num_past = make_encoder(self.config.encoder, spec.cameras), self.config.num_observations
        sizes = encoder.num_outputs * num_past, spec.state.dim * num_past, spec.tasks.num_slots, spec.action.dim
        return draw_weights(Actor(encoder, self.make_policy(*sizes)), seed, "actor")

    def make_networks(self, spec: PolicySpec, names: Sequence[str], seed: int = 0) -> dict[str, nn.Module]:
        """See :class:`~ptr_fast.learners.capabilities.MakesNetworks`."""
        return {name: self.make_actor(spec, seed) for name in names}

    def networks_for(self, mode: str) -> tuple[str, ...]:
        """See :class:`~ptr_fast.learners.capabilities.Acts`."""
        return ("actor" if mode == "mean" else "ema_actor",)

    def noise_shape(self, act: ActConfig, spec: PolicySpec) -> tuple[int, ...] | None:
        """See :class:`~ptr_fast.learners.capabilities.Acts`."""
        return (self.noise_dim(spec),) if act.mode == "sample" else None

    def acting_module(self, networks: Mapping[str, nn.Module], act: ActConfig, spec: PolicySpec) -> nn.Module:
        """See :class:`~ptr_fast.learners.capabilities.Acts`."""
        return LawActing(self, cast(Actor, networks[self.networks_for(act.mode)[0]]))

    def distribution(
        self, networks: Mapping[str, nn.Module], inputs: Inputs, averaged: bool = False
    ) -> Distribution | None:
        """See :class:`~ptr_fast.learners.capabilities.Acts`."""
        return self.law(cast(Actor, networks["ema_actor" if averaged else "actor"]), inputs)

    def encoder_network(self) -> str:
        """See :class:`~ptr_fast.learners.capabilities.Encodes`."""
        return "actor"

    def encoder_of(self, networks: Mapping[str, nn.Module]) -> nn.Module:
        """See :class:`~ptr_fast.learners.capabilities.Encodes`."""
        return cast(Actor, networks["actor"]).encoder

    def embed(self, networks: Mapping[str, nn.Module], images: Mapping[str, torch.Tensor]) -> torch.Tensor:
        """See :class:`~ptr_fast.learners.capabilities.Encodes`."""
        return self.encoder_of(networks)(images, len(next(iter(images.values()))))


class LawActing(nn.Module):
    """A sample of an actor's law for the noise that is given, else the law's mode.

    See :class:`ptr_fast.learners.capabilities.Acts`.
    """

    def __init__(self, networks: ImitationNetworks, actor: Actor) -> None:
        super().__init__()
        self._networks, self.actor, self.config = networks, actor, networks.config

    def forward(
        self,
        images: Mapping[str, torch.Tensor],
        state_BTS: torch.Tensor,
        task_id_B: torch.Tensor,
        noise: torch.Tensor | None = None,
    ) -> torch.Tensor:
        """Scaled actions ``[B, H, A]``."""
        law = self._networks.law(self.actor, Inputs(images, state_BTS, task_id_B))
        actions = law.mode() if noise is None else law.sample(noise)
        return actions if actions.dim() == 3 else actions[:, None]

    def propose(
        self,
        images: Mapping[str, torch.Tensor],
        state_BTS: torch.Tensor,
        task_id_B: torch.Tensor,
        noise_BKN: torch.Tensor,
    ) -> torch.Tensor:
        """See :class:`ptr_fast.learners.capabilities.Proposes`."""
        actions = self._networks.law(self.actor, Inputs(images, state_BTS, task_id_B)).sample(noise_BKN)
        return actions if actions.dim() == 4 else actions[:, :, None]
