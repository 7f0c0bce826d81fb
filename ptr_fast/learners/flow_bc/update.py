"""Flow behaviour cloning: the velocity from noise to recorded chunks of actions.

Source: flow matching on straight paths (Lipman et al. 2023, Liu et al. 2023), as the behaviour policy of FQL (Park et
al. 2025) and of Q-chunking (Li et al. 2025): ``x_t = (1 - t) noise + t chunk``, target ``chunk - noise``, t uniform.

Shapes: B batch, K noises and times per state, H actions of a chunk, A action.
"""

from __future__ import annotations

import numpy as np
import torch

from ptr_fast.kernels import counter_random
from ptr_fast.kernels.counter_random import Stream
from ptr_fast.learners.capabilities import Inputs
from ptr_fast.learners.flow_bc.config import FlowBcConfig
from ptr_fast.learners.flow_bc.draws import FlowDraws
from ptr_fast.learners.imitation.networks import observed
from ptr_fast.learners.imitation.update import ImitationLearner
from ptr_fast.learners.preparation import TrainingData
from ptr_fast.nets.dropout import Dropout
from ptr_fast.types import Batch

__all__ = ["FlowBcLearner"]


class FlowBcLearner(ImitationLearner):
    """See :class:`ptr_fast.learners.imitation.update.ImitationLearner`."""

    config: FlowBcConfig

    def prepare(self, data: TrainingData) -> None:
        """Fits mean and deviation of every axis of the actions; see :class:`ptr_fast.learners.preparation.Prepares`.

        An axis that never changes keeps its size.
        """
        std_A = data.actions.std(axis=0, dtype=np.float64)
        for actor in (self.actor, self.ema_actor):
            actor.policy.action_mean.copy_(torch.from_numpy(data.actions.mean(axis=0, dtype=np.float64)))
            actor.policy.action_std.copy_(torch.from_numpy(np.where(std_A > 1e-6, std_A, 1.0)))

    def draw(self, samples: torch.Tensor | range, step: int | torch.Tensor) -> FlowDraws:
        """See :meth:`ImitationLearner.draw`."""
        config, drawn = self.config, super().draw(samples, step)
        shape = config.num_flow_samples, config.num_actions, self.spec.action.dim
        num_words = shape[0] * shape[1] * shape[2]
        noise = counter_random.normal(self.seed, Stream.FLOW_NOISE, step, samples, num_words, self.device)
        time = counter_random.uniform(self.seed, Stream.FLOW_TIME, step, samples, shape[0], self.device)
        return FlowDraws(augment=drawn.augment, dropout=drawn.dropout, noise=noise.view(-1, *shape), time=time)

    def num_dropped(self) -> int:
        """See :meth:`ImitationLearner.num_dropped`."""
        return self.config.num_flow_samples * super().num_dropped()

    def loss(
        self, inputs: Inputs, batch: Batch, draws: FlowDraws, dropout: Dropout | None
    ) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
        """Squared error of the velocity, mean over the chunk and the batch; see :meth:`ImitationLearner.loss`."""
        policy = self.actor.policy
        time_BK11, chunk_B1HA = draws.time[..., None, None], policy.standardised(batch.actions)[:, None]
        noised = (1.0 - time_BK11) * draws.noise + time_BK11 * chunk_B1HA
        seen_BC = policy(*observed(self.actor.encoder, inputs), inputs.task_id)
        velocity = policy.velocity(seen_BC[:, None], noised.flatten(2), draws.time[..., None], dropout)
        error_BKHA = (velocity.view_as(noised) - (chunk_B1HA - draws.noise)).square()
        if self.config.num_actions > 1:  # what lies behind the end of an episode counts for nothing
            error_BKHA = error_BKHA * batch.action_mask[:, None, :, None]
        loss = error_BKHA.mean()
        return loss, {"train/flow_loss": loss.detach(), "actor/velocity_abs": velocity.detach().abs().mean()}
