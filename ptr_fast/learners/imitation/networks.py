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
from ptr_fast.nets.encoders import Encoder
from ptr_fast.nets.policy import Actor

__all__ = ["ImitationNetworks", "observed"]


def observed(encoder: Encoder, inputs: Inputs) -> tuple[torch.Tensor, torch.Tensor]:
    """Embeddings ``[B, T * D]`` and states ``[B, T * S]``: what is seen of the T observations lies side by side."""
    num_states, num_past = inputs.state.shape[:2]
    embedding = encoder(inputs.images, num_states * num_past)
    return embedding.view(num_states, num_past * encoder.num_outputs), inputs.state.flatten(1)


class ImitationNetworks(ABC):
    """What the networks of a configuration can do; the protocols of :mod:`ptr_fast.learners.capabilities`.

    The trained actor acts in the mode ``mean``, its average in all others.
    """

    def __init__(self, config: Any) -> None:
        self.config = config

    @abstractmethod
    def make_actor(self, spec: PolicySpec, seed: int = 0) -> Actor:
        """Actor, weights drawn from ``(seed, "actor")``."""

    def make_networks(self, spec: PolicySpec, names: Sequence[str], seed: int = 0) -> dict[str, nn.Module]:
        """See :class:`~ptr_fast.learners.capabilities.MakesNetworks`."""
        return {name: self.make_actor(spec, seed) for name in names}

    def networks_for(self, mode: str) -> tuple[str, ...]:
        """See :class:`~ptr_fast.learners.capabilities.Acts`."""
        return ("actor" if mode == "mean" else "ema_actor",)

    def actor_of(self, networks: Mapping[str, nn.Module], averaged: bool) -> Actor:
        """The trained actor, or its average."""
        return cast(Actor, networks["ema_actor" if averaged else "actor"])

    @abstractmethod
    def noise_shape(self, act: ActConfig, spec: PolicySpec) -> tuple[int, ...] | None:
        """See :class:`~ptr_fast.learners.capabilities.Acts`."""

    @abstractmethod
    def acting_module(self, networks: Mapping[str, nn.Module], act: ActConfig, spec: PolicySpec) -> nn.Module:
        """See :class:`~ptr_fast.learners.capabilities.Acts`."""

    @abstractmethod
    def distribution(
        self, networks: Mapping[str, nn.Module], inputs: Inputs, averaged: bool = False
    ) -> Distribution | None:
        """See :class:`~ptr_fast.learners.capabilities.Acts`."""

    def encoder_network(self) -> str:
        """See :class:`~ptr_fast.learners.capabilities.Encodes`."""
        return "actor"

    def encoder_of(self, networks: Mapping[str, nn.Module]) -> nn.Module:
        """See :class:`~ptr_fast.learners.capabilities.Encodes`."""
        return cast(Actor, networks["actor"]).encoder

    def embed(self, networks: Mapping[str, nn.Module], images: Mapping[str, torch.Tensor]) -> torch.Tensor:
        """See :class:`~ptr_fast.learners.capabilities.Encodes`."""
        return self.encoder_of(networks)(images, len(next(iter(images.values()))))
