"""Behaviour transformer: focal loss of the nearest cluster, squared error of the offset from its centre.

Source: BeT (Shafiullah et al. 2022), ``models/libraries/mingpt.py``: ``-(1 - p)^gamma log p`` of the nearest cluster,
and the squared error of that cluster's offset, mean over axes. Deviations: the image encoder is trained with it and
actions are scaled; the last observation of every window is answered, not all of them (each step of the data is the last
one of a window); weights of all layers decay, not those of dense ones alone.

Shapes: B batch, K clusters, A action.
"""

from __future__ import annotations

from typing import Any

import torch

from ptr_fast.learners.bet.clusters import k_means
from ptr_fast.learners.bet.config import BetConfig
from ptr_fast.learners.capabilities import Inputs
from ptr_fast.learners.imitation.networks import observed
from ptr_fast.learners.imitation.update import ImitationLearner
from ptr_fast.learners.preparation import TrainingData
from ptr_fast.nets.dropout import Dropout
from ptr_fast.types import Batch

__all__ = ["BetLearner"]


class BetLearner(ImitationLearner):
    """See :class:`ptr_fast.learners.imitation.update.ImitationLearner`."""

    config: BetConfig

    def prepare(self, data: TrainingData) -> None:
        """Fits the centres of the clusters; see :class:`ptr_fast.learners.preparation.Prepares`."""
        centres_KA = torch.from_numpy(k_means(data.actions, self.config.num_bins, self.seed))
        for actor in (self.actor, self.ema_actor):
            actor.policy.centres.copy_(centres_KA)

    def num_dropped(self) -> int:
        """See :meth:`ImitationLearner.num_dropped`."""
        return self.actor.policy.num_dropped

    def loss(
        self, inputs: Inputs, batch: Batch, draws: Any, dropout: Dropout | None
    ) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
        """Focal loss plus weighted error of the offset; see :meth:`ImitationLearner.loss`."""
        law = self.actor.policy(*observed(self.actor.encoder, inputs), inputs.task_id, dropout)
        actions_BA = batch.actions[:, 0]
        nearest_B = law.nearest(actions_BA)
        log_prob_B = law.logits_BK.log_softmax(dim=1).take_along_dim(nearest_B[:, None], dim=1)[:, 0]
        focal = -((1.0 - log_prob_B.exp()).pow(self.config.focal_gamma) * log_prob_B).mean()
        offset_BA = law.offset_BKA.take_along_dim(nearest_B[:, None, None], dim=1)[:, 0]
        wanted_BA = actions_BA - law.centres_KA.index_select(0, nearest_B)
        offset = (offset_BA - wanted_BA).square().mean()
        loss = focal + self.config.offset_weight * offset
        hit = (law.logits_BK.detach().argmax(dim=1) == nearest_B).float().mean()
        numbers = {"train/loss": loss, "train/focal_loss": focal, "actor/offset_mse": offset}
        return loss, {**{name: value.detach() for name, value in numbers.items()}, "actor/cluster_accuracy": hit}
