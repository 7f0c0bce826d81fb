"""The update of all learners that imitate: one actor, its average, and one optimiser."""

from __future__ import annotations

from abc import abstractmethod
from typing import Any, cast

import torch
from torch import nn

from ptr_fast.config import PolicySpec
from ptr_fast.learners import base
from ptr_fast.learners.capabilities import Inputs
from ptr_fast.learners.distributed import Ranks
from ptr_fast.learners.draws import BcDraws, draw_bc
from ptr_fast.learners.imitation.networks import ImitationNetworks
from ptr_fast.learners.optimizer import AdamPolyak
from ptr_fast.learners.registry import kind_of
from ptr_fast.nets.dropout import Dropout
from ptr_fast.types import Batch

__all__ = ["ImitationLearner"]


class ImitationLearner(base.BaseLearner):
    """Actor, its average, and one optimiser; :meth:`loss` is all that a method adds.

    Args:
        config, spec, seed, device, encoder_dtype, ranks: as in :class:`ptr_fast.learners.base.BaseLearner`.
    """

    def __init__(
        self,
        config: Any,
        spec: PolicySpec,
        seed: int = 0,
        device: torch.device | str = "cpu",
        encoder_dtype: torch.dtype | None = None,
        ranks: Ranks | None = None,
    ) -> None:
        super().__init__(config, spec, seed, device, encoder_dtype, ranks)
        networks = cast(ImitationNetworks, kind_of(config).networks(config))
        self.actor = networks.make_actor(spec, seed).to(self.device)
        self.ema_actor = base.averaged_copy(self.actor)
        self._parameters, averages = base.trained(self.actor, self.ema_actor)
        self._adam = AdamPolyak(
            self._parameters, config.lr, averages, config.ema_tau, config.weight_decay, config.max_grad_norm
        )
        self._backward = self.ranks.backward_of(self._parameters)

    @abstractmethod
    def loss(
        self, inputs: Inputs, batch: Batch, draws: Any, dropout: Dropout | None
    ) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
        """What is minimised, 0-d, and further 0-d numbers to report.

        Args:
            inputs: augmented images, states and tasks of the batch.
            draws: of :meth:`draw`.
            dropout: for the hidden units of the policy; None: none is dropped.
        """

    def num_dropped(self) -> int:
        """Hidden units of one sample that dropout concerns."""
        return sum(self.config.hidden_dims)

    def networks(self) -> dict[str, nn.Module]:
        """Every net by name; ``ema_actor`` is the averaged actor."""
        return {"actor": self.actor, "ema_actor": self.ema_actor}

    def optimizers(self) -> dict[str, torch.optim.Optimizer]:
        """Every optimiser by name."""
        return {"actor": self._adam}

    def rate(self, optimizer: str) -> float:
        """See :class:`ptr_fast.learners.base.BaseLearner`."""
        return self.config.lr

    def draw(self, samples: torch.Tensor | range, step: int | torch.Tensor) -> Any:
        """The random numbers of update ``step``, on the device; ``samples`` as in :func:`draw_bc`."""
        return draw_bc(self.config, self._cameras, samples, self.seed, step, self.device, self.num_dropped())

    def update(self, batch: Batch, step: int, draws: BcDraws | None = None) -> dict[str, torch.Tensor]:
        """One gradient step.

        Args:
            batch: this rank's share, on the learner's device; rewards, masks and next frames are not looked at.
            step: number of the update, for the draws and the learning rate.
            draws: random numbers to use instead of those of seed, step and position in the whole batch.

        Returns:
            Detached 0-d tensors on the device, of this rank's share.

        Raises:
            ValueError: a batch that does not fit the spec.
        """
        self.begin(batch, step)
        draws = self.draw(self.ranks.samples(len(batch)), step) if draws is None else draws
        config = self.config
        images = {}
        if config.encoder.sees_images:
            dtype = self._encoder_dtype or self._parameters[0].dtype
            images = base.augmented(batch.images, draws.augment, dtype)
        dropout = None if draws.dropout is None else Dropout(draws.dropout, config.dropout)
        loss, numbers = self.loss(Inputs(images, batch.state, batch.task_id), batch, draws, dropout)
        self._adam.zero_grad(set_to_none=True)
        self._backward(loss)
        self._adam.step()
        return {**numbers, "data/action_abs": batch.actions.abs().mean()}
