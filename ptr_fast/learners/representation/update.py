"""The gradient step of a learner of an image encoder alone: one network, no actor, and a loss of frames.

A subclass of :class:`RepresentationLearner` says how its network is made, what it draws and what its loss is.
"""

from __future__ import annotations

from abc import abstractmethod
from typing import Any, cast

import torch
from torch import nn

from ptr_fast.config import PolicySpec
from ptr_fast.learners import base
from ptr_fast.learners.distributed import Ranks
from ptr_fast.learners.optimizer import AdamPolyak
from ptr_fast.learners.registry import kind_of
from ptr_fast.learners.representation.networks import RepresentationNetworks
from ptr_fast.types import Batch

__all__ = ["RepresentationLearner"]


class RepresentationLearner(base.BaseLearner):
    """One network, one optimiser.

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
        networks = cast(RepresentationNetworks, kind_of(config).networks(config))
        self._name = networks.name
        self.network = networks.make_network(spec, seed).to(self.device)
        self._parameters = self._trained()
        self._dtype = self._encoder_dtype or self._parameters[0].dtype
        self._adam = AdamPolyak(self._parameters, config.lr, weight_decay=config.weight_decay)
        self._backward = self.ranks.backward_of(self._parameters)

    def _trained(self) -> list[nn.Parameter]:
        """The parameters of the network that the loss depends on."""
        return list(self.network.parameters())

    @abstractmethod
    def draw(self, samples: torch.Tensor | range, step: int | torch.Tensor) -> Any:
        """The random numbers of update ``step``, on the device; ``samples`` as in
        :func:`ptr_fast.learners.draws.draw_bc`."""

    @abstractmethod
    def loss(self, batch: Batch, draws: Any) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
        """The loss of a batch, and what else to report."""

    def networks(self) -> dict[str, nn.Module]:
        """The network by its name."""
        return {self._name: self.network}

    def optimizers(self) -> dict[str, torch.optim.Optimizer]:
        """The optimiser by the network's name."""
        return {self._name: self._adam}

    def rate(self, optimizer: str) -> float:
        """See :class:`ptr_fast.learners.base.BaseLearner`."""
        return self.config.lr

    def update(self, batch: Batch, step: int, draws: Any = None) -> dict[str, torch.Tensor]:
        """One gradient step.

        Args:
            batch: this rank's share, on the learner's device.
            step: number of the update, for the draws and the learning rate.
            draws: random numbers to use instead of those of seed, step and position in the whole batch.

        Returns:
            Detached 0-d tensors on the device, of this rank's share.

        Raises:
            ValueError: a batch that does not fit the spec.
        """
        self.begin(batch, step)
        draws = self.draw(self.ranks.samples(len(batch)), step) if draws is None else draws
        loss, info = self.loss(batch, draws)
        self._adam.zero_grad(set_to_none=True)
        self._backward(loss)
        self._adam.step()
        return {name: value.detach() for name, value in info.items()}
