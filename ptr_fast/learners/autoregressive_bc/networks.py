"""Networks of autoregressive behaviour cloning: how they are made and act."""

from __future__ import annotations

from ptr_fast.learners.autoregressive_bc.config import AutoregressiveBcConfig
from ptr_fast.learners.capabilities import Inputs
from ptr_fast.learners.imitation.networks import ImitationNetworks, observed
from ptr_fast.nets.autoregressive import Autoregressive, AutoregressivePolicy
from ptr_fast.nets.policy import Actor

__all__ = ["AutoregressiveBcNetworks"]


class AutoregressiveBcNetworks(ImitationNetworks):
    """See :class:`ptr_fast.learners.imitation.networks.ImitationNetworks`."""

    config: AutoregressiveBcConfig

    def make_policy(
        self, embedding_dim: int, state_dim: int, num_task_slots: int, action_dim: int
    ) -> AutoregressivePolicy:
        """See :meth:`ImitationNetworks.make_policy`."""
        sizes = embedding_dim, state_dim, num_task_slots, action_dim
        return AutoregressivePolicy(*sizes, self.config.hidden_dims, self.config.num_bins)

    def law(self, actor: Actor, inputs: Inputs) -> Autoregressive:
        """See :meth:`ImitationNetworks.law`."""
        return actor.policy(*observed(actor.encoder, inputs), inputs.task_id)
