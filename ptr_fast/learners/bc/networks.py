"""Networks of behaviour cloning: how they are made, act and encode."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import cast

import torch
from torch import nn

from ptr_fast.config import ActConfig, PolicySpec
from ptr_fast.learners.acting import ModeActing
from ptr_fast.learners.bc.config import BcConfig
from ptr_fast.learners.capabilities import Inputs
from ptr_fast.nets.build import make_actor as make_actor_of
from ptr_fast.nets.policy import Actor, MeanPolicy, UnitGaussian

__all__ = ["BcNetworks", "make_actor"]


def make_actor(config: BcConfig, spec: PolicySpec, seed: int = 0) -> Actor:
    """Actor, weights drawn from ``(seed, "actor")``."""
    return make_actor_of(config.encoder, MeanPolicy, config.hidden_dims, spec, seed)


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
        return ModeActing(cast(Actor, networks[self.networks_for(act.mode)[0]]))

    def distribution(self, networks: Mapping[str, nn.Module], inputs: Inputs, averaged: bool = False) -> UnitGaussian:
        """See :class:`~ptr_fast.learners.capabilities.Acts`."""
        return networks["ema_actor" if averaged else "actor"](inputs.images, inputs.state[:, -1], inputs.task_id)

    def encoder_network(self) -> str:
        """See :class:`~ptr_fast.learners.capabilities.Encodes`."""
        return "actor"

    def encoder_of(self, networks: Mapping[str, nn.Module]) -> nn.Module:
        """See :class:`~ptr_fast.learners.capabilities.Encodes`."""
        return cast(Actor, networks["actor"]).encoder

    def embed(self, networks: Mapping[str, nn.Module], images: Mapping[str, torch.Tensor]) -> torch.Tensor:
        """See :class:`~ptr_fast.learners.capabilities.Encodes`."""
        return self.encoder_of(networks)(images, len(next(iter(images.values()))))
