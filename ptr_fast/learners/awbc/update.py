"""Advantage-weighted behaviour cloning: the policy of behaviour cloning, each sample weighted by a frozen critic.

Source: PTR, section on what its Q function has learned, and ``cql_encodersep_parallel_awbc/actor_updater_adv.py``.
Deviations, which make the weights a property of the critic alone: the value of a state is the mean over several
samples of the critic's own policy, where that program takes one sample of the policy that is being trained; the
averaged critics are asked, their minimum counts, and the weights are divided by their mean.
"""

from __future__ import annotations

from typing import Any

import torch

from ptr_fast import losses
from ptr_fast.config import PolicySpec
from ptr_fast.kernels import counter_random
from ptr_fast.kernels.counter_random import Stream
from ptr_fast.learners.awbc.config import AwbcConfig
from ptr_fast.learners.awbc.draws import AwbcDraws
from ptr_fast.learners.awbc.frozen_critic import FrozenCritic
from ptr_fast.learners.bc.update import BcLearner
from ptr_fast.learners.capabilities import Inputs
from ptr_fast.learners.distributed import Ranks
from ptr_fast.nets.dropout import Dropout
from ptr_fast.types import Batch

__all__ = ["AwbcLearner"]


class AwbcLearner(BcLearner):
    """The learner of behaviour cloning, and the critic that weights its samples; a checkpoint does not hold the latter.

    Args:
        config, spec, seed, device, encoder_dtype, ranks: as in :class:`ptr_fast.learners.CqlLearner`.
    """

    config: AwbcConfig

    def __init__(
        self,
        config: AwbcConfig,
        spec: PolicySpec,
        seed: int = 0,
        device: torch.device | str = "cpu",
        encoder_dtype: torch.dtype | None = None,
        ranks: Ranks | None = None,
    ) -> None:
        super().__init__(config, spec, seed, device, encoder_dtype, ranks)
        sees_images = config.encoder.sees_images
        self.critic = FrozenCritic(config.critic, spec, sees_images, config.num_value_samples, self.device)

    def draw(self, samples: torch.Tensor | range, step: int | torch.Tensor) -> AwbcDraws:
        """The random numbers of update ``step``, on the device; ``samples`` as in :func:`draw_bc`."""
        cloning = super().draw(samples, step)
        num_samples, num_numbers = self.critic.noise_shape
        eps = counter_random.normal(
            self.seed, Stream.VALUE_SAMPLES, step, samples, num_samples * num_numbers, self.device
        )
        order = None
        if self.config.weights == "shuffled":
            everybody = range(len(samples) * self.ranks.world_size)
            keys = counter_random.uniform(self.seed, Stream.SHUFFLE, step, everybody, 1, self.device)
            order = keys[:, 0].argsort(stable=True)
        return AwbcDraws(
            augment=cloning.augment,
            dropout=cloning.dropout,
            value_eps=eps.view(-1, num_samples, num_numbers),
            order=order,
        )

    def loss(
        self, inputs: Inputs, batch: Batch, draws: Any, dropout: Dropout | None
    ) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
        """Weighted negative log-likelihood of the recorded chunk; see :meth:`ImitationLearner.loss`."""
        weight_B, told = self._weights(inputs, batch, draws)
        loss, numbers = self.weighted_loss(inputs, batch, dropout, weight_B)
        return loss, {**numbers, **told}

    @torch.no_grad()
    def _weights(
        self, inputs: Inputs, batch: Batch, draws: AwbcDraws
    ) -> tuple[torch.Tensor | None, dict[str, torch.Tensor]]:
        """Weights of this rank's samples, ``[B]``, None where they are all 1, and what is told of the whole batch's."""
        config = self.config
        advantage_B = self.critic.advantage(inputs, batch.actions[:, 0], draws.value_eps)
        weight_B = losses.advantage_weights(advantage_B, config.advantage_temperature, config.max_weight)
        whole_N = self.ranks.gather(weight_B)
        whole_N = whole_N / whole_N.mean()
        ordered_N = whole_N.sort().values
        told = {
            "weights/advantage": advantage_B.mean(),
            "weights/advantage_std": advantage_B.std(correction=0),
            "weights/median": _quantile(ordered_N, 0.5),
            "weights/quantile_90": _quantile(ordered_N, 0.9),
            "weights/weight_max": ordered_N[-1],
        }
        if config.weights == "uniform":
            return None, told
        if draws.order is not None:
            whole_N = whole_N[draws.order]
        mine = self.ranks.samples(len(batch))
        return whole_N[mine.start :: mine.step], told


def _quantile(ordered_N: torch.Tensor, share: float) -> torch.Tensor:
    """The quantile of sorted numbers, linear between two of them; nothing that a captured step cannot hold."""
    place = share * (len(ordered_N) - 1)
    below = int(place)
    above = min(below + 1, len(ordered_N) - 1)
    return torch.lerp(ordered_N[below], ordered_N[above], place - below)
