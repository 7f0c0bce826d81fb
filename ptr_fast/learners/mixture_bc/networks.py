"""Networks of cloning by a mixture of Gaussians: how they are made and act."""

from __future__ import annotations

from ptr_fast.config import PolicySpec
from ptr_fast.learners.capabilities import Inputs
from ptr_fast.learners.imitation.networks import ImitationNetworks, observed
from ptr_fast.learners.mixture_bc.config import MixtureBcConfig
from ptr_fast.nets.mixture import Mixture, MixturePolicy
from ptr_fast.nets.policy import Actor

__all__ = ["MixtureBcNetworks"]


class MixtureBcNetworks(ImitationNetworks):
    """See :class:`ptr_fast.learners.imitation.networks.ImitationNetworks`."""

    config: MixtureBcConfig

    def make_policy(self, embedding_dim: int, state_dim: int, num_task_slots: int, action_dim: int) -> MixturePolicy:
        """See :meth:`ImitationNetworks.make_policy`."""
        config = self.config
        sizes = embedding_dim, state_dim, num_task_slots, action_dim
        return MixturePolicy(*sizes, config.hidden_dims, config.num_components, config.min_std)

    def law(self, actor: Actor, inputs: Inputs) -> Mixture:
        """See :meth:`ImitationNetworks.law`."""
        return actor.policy(*observed(actor.encoder, inputs), inputs.task_id)

    def noise_dim(self, spec: PolicySpec) -> int:
        """See :meth:`ImitationNetworks.noise_dim`: one chooses the component, A its sample."""
        return spec.action.dim + 1
