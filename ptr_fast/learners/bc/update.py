"""Behaviour cloning: the mean of a unit Gaussian on the scaled action.

Source: PTR, ``jaxrl2/agents/pixel_bc`` (encoder, bottleneck, MLP, mean head; negative log likelihood; Adam).
"""

from __future__ import annotations

import torch

from ptr_fast import losses
from ptr_fast.learners.bc.config import BcConfig
from ptr_fast.learners.bc.networks import chunk_law
from ptr_fast.learners.capabilities import Inputs
from ptr_fast.learners.draws import BcDraws
from ptr_fast.learners.imitation.update import ImitationLearner
from ptr_fast.nets.dropout import Dropout
from ptr_fast.types import Batch

__all__ = ["BcLearner"]


class BcLearner(ImitationLearner):
    """Actor, its average, and one optimiser.

    Args:
        config, spec, seed, device, encoder_dtype, ranks: as in :class:`ptr_fast.learners.CqlLearner`.
    """

    config: BcConfig

    def loss(
        self, inputs: Inputs, batch: Batch, draws: BcDraws, dropout: Dropout | None
    ) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
        """Negative log-likelihood of the recorded chunk; see :meth:`ImitationLearner.loss`."""
        return self.weighted_loss(inputs, batch, dropout)

    def weighted_loss(
        self, inputs: Inputs, batch: Batch, dropout: Dropout | None, weight_B: torch.Tensor | None = None
    ) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
        """:meth:`loss` where samples count by their weights, constants; None: all alike."""
        config = self.config
        law = chunk_law(self.actor, inputs, config, dropout)
        log_prob_BH = law.log_prob(batch.actions)
        if config.num_actions > 1:  # what lies behind the end of an episode counts for nothing
            log_prob_BH = log_prob_BH * batch.action_mask
        loss = losses.cloning_loss(log_prob_BH, None if weight_B is None else weight_B[:, None])
        mean = law.mean_BA.detach()
        error = (mean - batch.actions).square()
        if config.num_actions > 1:
            error = error * batch.action_mask[..., None]
        return loss, {
            "train/bc_loss": loss.detach(),
            "actor/mse": error.mean(),
            "actor/mse_max": error.max(),
            "actor/mean": mean.mean(),
        }
