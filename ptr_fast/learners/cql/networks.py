"""Networks of conservative Q-learning: how they are made, act, value and encode.

Shapes: B states, K actions per state, A action, E critics, D embedding.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import cast

import torch
from torch import nn

from ptr_fast.config import ActConfig, PolicySpec
from ptr_fast.learners.acting import ModeActing
from ptr_fast.learners.capabilities import Inputs
from ptr_fast.learners.cql.config import CqlConfig
from ptr_fast.nets.build import Temperature
from ptr_fast.nets.build import make_actor as make_actor_of
from ptr_fast.nets.build import make_critic as make_critic_of
from ptr_fast.nets.critic import Critic
from ptr_fast.nets.policy import Actor, TanhGaussian, TanhGaussianPolicy
from ptr_fast.side_stream import SideStream

__all__ = ["CqlNetworks", "CriticNetworks", "SearchActing", "choose", "make_actor", "make_critic"]


def make_actor(config: CqlConfig, spec: PolicySpec, seed: int = 0) -> Actor:
    """Actor, weights drawn from ``(seed, "actor")``."""
    return make_actor_of(config.encoder, TanhGaussianPolicy, config.hidden_dims, spec, seed)


def make_critic(config: CqlConfig, spec: PolicySpec, seed: int = 0) -> Critic:
    """Critic encoder and heads, weights drawn from ``(seed, "critic")``."""
    return make_critic_of(config.encoder, config.critic_head, config.num_critics, config.hidden_dims, spec, seed)


class CriticNetworks:
    """Networks of which one is called ``critic`` and one ``target_critic``: how these value and encode."""

    def make_networks(self, spec: PolicySpec, names: Sequence[str], seed: int = 0) -> dict[str, nn.Module]:
        """See :class:`~ptr_fast.learners.capabilities.MakesNetworks`."""
        return {name: self._make(spec, name, seed) for name in names}

    def _make(self, spec: PolicySpec, name: str, seed: int) -> nn.Module:
        """One network of this name."""
        raise NotImplementedError

    def value_networks(self, averaged: bool = False) -> tuple[str, ...]:
        """See :class:`~ptr_fast.learners.capabilities.Values`."""
        return ("target_critic" if averaged else "critic",)

    def q(
        self, networks: Mapping[str, nn.Module], inputs: Inputs, actions_BKA: torch.Tensor, averaged: bool = False
    ) -> torch.Tensor:
        """See :class:`~ptr_fast.learners.capabilities.Values`."""
        critic = networks[self.value_networks(averaged)[0]]
        return critic(inputs.images, inputs.state[:, -1], inputs.task_id, actions_BKA)

    def encoder_network(self) -> str:
        """See :class:`~ptr_fast.learners.capabilities.Encodes`."""
        return "critic"

    def encoder_of(self, networks: Mapping[str, nn.Module]) -> nn.Module:
        """See :class:`~ptr_fast.learners.capabilities.Encodes`."""
        return cast(Critic, networks["critic"]).encoder

    def embed(self, networks: Mapping[str, nn.Module], images: Mapping[str, torch.Tensor]) -> torch.Tensor:
        """See :class:`~ptr_fast.learners.capabilities.Encodes`."""
        return self.encoder_of(networks)(images, len(next(iter(images.values()))))


class CqlNetworks(CriticNetworks):
    """What the networks of a configuration can do; the protocols of :mod:`ptr_fast.learners.capabilities`."""

    def __init__(self, config: CqlConfig) -> None:
        self.config = config

    def _make(self, spec: PolicySpec, name: str, seed: int) -> nn.Module:
        if name == "temperature":
            return Temperature(self.config.init_temperature)
        return (make_critic if name in ("critic", "target_critic") else make_actor)(self.config, spec, seed)

    def networks_for(self, mode: str) -> tuple[str, ...]:
        """See :class:`~ptr_fast.learners.capabilities.Acts`."""
        return {"mean": ("actor",), "ema_mean": ("ema_actor",), "search": ("ema_actor", "target_critic")}[mode]

    def noise_shape(self, act: ActConfig, spec: PolicySpec) -> tuple[int, ...] | None:
        """See :class:`~ptr_fast.learners.capabilities.Acts`."""
        return (act.num_candidates, spec.action.dim) if act.mode == "search" else None

    def acting_module(self, networks: Mapping[str, nn.Module], act: ActConfig, spec: PolicySpec) -> nn.Module:
        """See :class:`~ptr_fast.learners.capabilities.Acts`."""
        if act.mode != "search":
            return ModeActing(cast(Actor, networks[self.networks_for(act.mode)[0]]))
        actor, critic = cast(Actor, networks["ema_actor"]), cast(Critic, networks["target_critic"])
        return SearchActing(actor, critic, act.num_elites)

    def distribution(self, networks: Mapping[str, nn.Module], inputs: Inputs, averaged: bool = False) -> TanhGaussian:
        """See :class:`~ptr_fast.learners.capabilities.Acts`."""
        return networks["ema_actor" if averaged else "actor"](inputs.images, inputs.state[:, -1], inputs.task_id)


class SearchActing(nn.Module):
    """The mean of the best of the actor's samples by the minimum over the critics.

    Each encoder runs once per state, on a GPU both at once (the critics' on a stream of its own); the K candidates
    meet the critics in one call of ``cql_head``.
    """

    def __init__(self, actor: Actor, critic: Critic, num_elites: int) -> None:
        super().__init__()
        self.actor, self.critic, self.num_elites = actor, critic, num_elites
        self._beside = SideStream()

    def forward(
        self,
        images: Mapping[str, torch.Tensor],
        state_BTS: torch.Tensor,
        task_id_B: torch.Tensor,
        noise_BKA: torch.Tensor,
    ) -> torch.Tensor:
        """Scaled actions ``[B, 1, A]``."""
        with self._beside.fork(state_BTS.device):
            embedding_BD = self.critic.encoder(images, len(state_BTS))
        candidates_BKA = self.main(images, state_BTS, task_id_B, noise_BKA)
        self._beside.join(state_BTS.device)
        return self.join(candidates_BKA, embedding_BD, state_BTS, task_id_B)

    def main(
        self,
        images: Mapping[str, torch.Tensor],
        state_BTS: torch.Tensor,
        task_id_B: torch.Tensor,
        noise_BKA: torch.Tensor,
    ) -> torch.Tensor:
        """Candidates ``[B, K, A]`` of the actor."""
        return self.actor(images, state_BTS[:, -1], task_id_B).sample(noise_BKA)

    def side(self, images: Mapping[str, torch.Tensor]) -> torch.Tensor:
        """Embedding ``[B, D]`` of the critics' encoder."""
        return self.critic.encoder(images, len(next(iter(images.values()))))

    def join(
        self,
        candidates_BKA: torch.Tensor,
        embedding_BD: torch.Tensor,
        state_BTS: torch.Tensor,
        task_id_B: torch.Tensor,
    ) -> torch.Tensor:
        """Scaled actions ``[B, 1, A]``."""
        return choose(self.critic, embedding_BD, state_BTS[:, -1], task_id_B, candidates_BKA, self.num_elites)[:, None]


def choose(
    critic: Critic,
    embedding_BD: torch.Tensor,
    state_BS: torch.Tensor,
    task_id_B: torch.Tensor,
    candidates_BKA: torch.Tensor,
    num_elites: int,
) -> torch.Tensor:
    """The mean ``[B, A]`` of the candidates whose smallest Q is among the largest.

    Args:
        embedding_BD: of the critic's encoder.
    """
    q_EBK = critic.head.q(critic.head.hoist(embedding_BD, state_BS, task_id_B), candidates_BKA)
    best_BK = q_EBK.amin(dim=0).topk(num_elites, dim=1).indices
    return candidates_BKA.take_along_dim(best_BK[..., None], dim=1).mean(dim=1)
