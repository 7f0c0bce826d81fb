"""Networks of the behaviour transformer: how they are made and act."""

from __future__ import annotations

from ptr_fast.config import PolicySpec
from ptr_fast.learners.bet.config import BetConfig
from ptr_fast.learners.capabilities import Inputs
from ptr_fast.learners.imitation.networks import ImitationNetworks, observed
from ptr_fast.nets.behaviour_transformer import BehaviourTransformer, ClusteredActions
from ptr_fast.nets.policy import Actor

__all__ = ["BetNetworks"]


class BetNetworks(ImitationNetworks):
    """See :class:`ptr_fast.learners.imitation.networks.ImitationNetworks`."""

    config: BetConfig

    def make_policy(
        self, embedding_dim: int, state_dim: int, num_task_slots: int, action_dim: int
    ) -> BehaviourTransformer:
        """See :meth:`ImitationNetworks.make_policy`; the sizes of one observation are a T-th of those of all."""
        config = self.config
        num_past = config.num_observations
        return BehaviourTransformer(
            embedding_dim // num_past,
            state_dim // num_past,
            num_task_slots,
            action_dim,
            num_observations=num_past,
            num_bins=config.num_bins,
            num_layers=config.num_layers,
            num_heads=config.num_heads,
            width=config.width,
        )

    def law(self, actor: Actor, inputs: Inputs) -> ClusteredActions:
        """See :meth:`ImitationNetworks.law`."""
        return actor.policy(*observed(actor.encoder, inputs), inputs.task_id)

    def noise_dim(self, spec: PolicySpec) -> int:
        """See :meth:`ImitationNetworks.noise_dim`: one number chooses the cluster."""
        return 1

    def distribution(self, *_: object, **__: object) -> None:
        """It has no law with a density; see :class:`~ptr_fast.learners.capabilities.Acts`."""
