"""Networks of CQL with cloned proposals: how they are made, act, value and encode.

Shapes: B states, K actions per state, A action, E critics, D embedding.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import cast

from torch import nn

from ptr_fast.config import ActConfig, PolicySpec
from ptr_fast.learners.acting import ModeActing, SampleActing
from ptr_fast.learners.capabilities import Inputs
from ptr_fast.learners.cql.networks import CriticNetworks, SearchActing
from ptr_fast.learners.cql_proposals.config import CqlProposalsConfig
from ptr_fast.nets import Actor, Critic, Mixture, MixturePolicy, make_actor, make_critic

__all__ = ["CqlProposalsNetworks", "make_clone", "make_critic_of"]


def make_clone(config: CqlProposalsConfig, spec: PolicySpec, seed: int = 0) -> Actor:
    """The clone, weights drawn from ``(seed, "actor")``."""
    policy = partial(MixturePolicy, num_components=config.num_components, min_std=config.min_std)
    return make_actor(config.encoder, policy, config.hidden_dims, spec, seed)


def make_critic_of(config: CqlProposalsConfig, spec: PolicySpec, seed: int = 0) -> Critic:
    """Critic encoder and heads, weights drawn from ``(seed, "critic")``."""
    head = (config.critic_head, config.num_critics, config.hidden_dims)
    return make_critic(config.encoder, *head, spec, seed, config.critic_layer_norm)


class CqlProposalsNetworks(CriticNetworks):
    """What the networks of a configuration can do; the protocols of :mod:`ptr_fast.learners.capabilities`."""

    def __init__(self, config: CqlProposalsConfig) -> None:
        self.config = config

    def _make(self, spec: PolicySpec, name: str, seed: int) -> nn.Module:
        return (make_critic_of if name in ("critic", "target_critic") else make_clone)(self.config, spec, seed)

    def networks_for(self, mode: str) -> tuple[str, ...]:
        """See :class:`~ptr_fast.learners.capabilities.Acts`."""
        return {
            "mean": ("actor",),
            "ema_mean": ("ema_actor",),
            "sample": ("ema_actor",),
            "search": ("ema_actor", "target_critic"),
        }[mode]

    def noise_shape(self, act: ActConfig, spec: PolicySpec) -> tuple[int, ...] | None:
        """See :class:`~ptr_fast.learners.capabilities.Acts`."""
        noise_dim = spec.action.dim + 1  # of a mixture
        return {"sample": (noise_dim,), "search": (act.num_candidates, noise_dim)}.get(act.mode)

    def acting_module(self, networks: Mapping[str, nn.Module], act: ActConfig, spec: PolicySpec) -> nn.Module:
        """See :class:`~ptr_fast.learners.capabilities.Acts`."""
        actor = cast(Actor, networks[self.networks_for(act.mode)[0]])
        if act.mode == "search":
            return SearchActing(actor, cast(Critic, networks["target_critic"]), act.num_elites)
        return SampleActing(actor) if act.mode == "sample" else ModeActing(actor)

    def distribution(self, networks: Mapping[str, nn.Module], inputs: Inputs, averaged: bool = False) -> Mixture:
        """See :class:`~ptr_fast.learners.capabilities.Acts`."""
        return networks["ema_actor" if averaged else "actor"](inputs.images, inputs.state[:, -1], inputs.task_id)
