"""Networks of behaviour cloning: how they are made, act and encode.

Shapes: B states, T observations, H actions of a chunk, A action.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import cast

from torch import nn

from ptr_fast.learners.bc.config import BcConfig
from ptr_fast.learners.capabilities import Distribution, Inputs
from ptr_fast.learners.imitation.networks import ImitationNetworks, observed
from ptr_fast.nets.dropout import Dropout
from ptr_fast.nets.policy import Actor, MeanPolicy, UnitGaussian, UnitLaplace

__all__ = ["BcNetworks", "chunk_law"]

LAWS: dict[str, type[UnitGaussian | UnitLaplace]] = {"mse": UnitGaussian, "l1": UnitLaplace}


def chunk_law(
    actor: Actor, inputs: Inputs, config: BcConfig, dropout: Dropout | None = None
) -> UnitGaussian | UnitLaplace:
    """The law of a chunk, mean ``[B, H, A]``."""
    mean = actor.policy(*observed(actor.encoder, inputs), inputs.task_id, dropout).mean_BA
    return LAWS[config.loss](mean.unflatten(1, (config.num_actions, -1)))


class BcNetworks(ImitationNetworks):
    """See :class:`ptr_fast.learners.imitation.networks.ImitationNetworks`."""

    config: BcConfig

    def make_policy(self, embedding_dim: int, state_dim: int, num_task_slots: int, action_dim: int) -> MeanPolicy:
        """See :meth:`ImitationNetworks.make_policy`."""
        num_outputs = action_dim * self.config.num_actions
        return MeanPolicy(embedding_dim, state_dim, num_task_slots, num_outputs, self.config.hidden_dims)

    def law(self, actor: Actor, inputs: Inputs) -> UnitGaussian | UnitLaplace:
        """Of a chunk, mean ``[B, H, A]``."""
        return chunk_law(actor, inputs, self.config)

    def distribution(self, networks: Mapping[str, nn.Module], inputs: Inputs, averaged: bool = False) -> Distribution:
        """See :class:`~ptr_fast.learners.capabilities.Acts`."""
        law = self.law(cast(Actor, networks["ema_actor" if averaged else "actor"]), inputs)
        return type(law)(law.mean_BA[:, 0])
