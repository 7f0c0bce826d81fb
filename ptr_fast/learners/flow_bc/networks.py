"""Networks of flow behaviour cloning: how they are made and act."""

from __future__ import annotations

from ptr_fast.config import PolicySpec
from ptr_fast.learners.capabilities import Inputs
from ptr_fast.learners.flow_bc.config import FlowBcConfig
from ptr_fast.learners.imitation.networks import ImitationNetworks, observed
from ptr_fast.nets.flow import Flow, FlowPolicy
from ptr_fast.nets.policy import Actor

__all__ = ["FlowBcNetworks"]


class FlowBcNetworks(ImitationNetworks):
    """See :class:`ptr_fast.learners.imitation.networks.ImitationNetworks`."""

    config: FlowBcConfig

    def make_policy(self, embedding_dim: int, state_dim: int, num_task_slots: int, action_dim: int) -> FlowPolicy:
        """See :meth:`ImitationNetworks.make_policy`."""
        sizes = embedding_dim, state_dim, num_task_slots, action_dim
        return FlowPolicy(*sizes, self.config.num_actions, self.config.hidden_dims)

    def law(self, actor: Actor, inputs: Inputs) -> Flow:
        """See :meth:`ImitationNetworks.law`."""
        seen_BC = actor.policy(*observed(actor.encoder, inputs), inputs.task_id)
        return Flow(actor.policy, seen_BC, self.config.num_actions, self.config.num_flow_steps)

    def noise_dim(self, spec: PolicySpec) -> int:
        """See :meth:`ImitationNetworks.noise_dim`."""
        return self.config.num_actions * spec.action.dim

    def distribution(self, *_: object, **__: object) -> None:
        """It has no law whose density could be told; see :class:`~ptr_fast.learners.capabilities.Acts`."""
