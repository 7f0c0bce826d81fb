"""The update of learners whose law of the present action has a density: maximum likelihood."""

from __future__ import annotations

from typing import Any

import torch

from ptr_fast import losses
from ptr_fast.learners.capabilities import Inputs
from ptr_fast.learners.imitation.networks import observed
from ptr_fast.learners.imitation.update import ImitationLearner
from ptr_fast.nets.dropout import Dropout
from ptr_fast.types import Batch

__all__ = ["LikelihoodLearner"]


class LikelihoodLearner(ImitationLearner):
    """Minimises the mean negative log density of the recorded action."""

    def loss(
        self, inputs: Inputs, batch: Batch, draws: Any, dropout: Dropout | None
    ) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
        """See :meth:`ImitationLearner.loss`."""
        law = self.actor.policy(*observed(self.actor.encoder, inputs), inputs.task_id, dropout)
        actions_BA = batch.actions[:, 0]
        loss = losses.cloning_loss(law.log_prob(actions_BA))
        with torch.no_grad():
            error = (law.detach().mode() - actions_BA).square()
        return loss, {"train/bc_loss": loss.detach(), "actor/mse": error.mean(), **self.measured(law.detach())}

    def measured(self, law: Any) -> dict[str, torch.Tensor]:
        """Further 0-d numbers to report of the law, a constant."""
        return {}
