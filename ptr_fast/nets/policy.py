"""Actors: an image encoder, an MLP on embedding, state and task, and a distribution over scaled actions.

Shapes: B batch, K samples per state, A action, D embedding, S state, N task slots.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn
from torch.nn import functional as F

from ptr_fast.nets.dropout import Dropout
from ptr_fast.nets.encoders.base import Encoder
from ptr_fast.nets.init import orthogonal_
from ptr_fast.nets.layers import Dense, select_task
from ptr_fast.nets.state_scale import SeesState

__all__ = ["Actor", "MeanPolicy", "PolicyTrunk", "TanhGaussian", "TanhGaussianPolicy", "UnitGaussian", "UnitLaplace"]

LOG_STD_MIN, LOG_STD_MAX = -5.0, 2.0
_HALF_LOG_2PI = 0.5 * math.log(2.0 * math.pi)


@dataclass(frozen=True)
class TanhGaussian:
    """The law of ``tanh(mean + exp(log_std) * eps)`` with independent standard normal ``eps``.

    Source: distrax ``Transformed(MultivariateNormalDiag, Block(Tanh, 1))`` as the reference uses it; no rescale.

    Attributes:
        mean_BA, log_std_BA: of the Gaussian before the tanh.
    """

    mean_BA: torch.Tensor
    log_std_BA: torch.Tensor

    @property
    def noise_dim(self) -> int:
        """Standard normal numbers that one sample takes: A."""
        return self.mean_BA.shape[-1]

    @property
    def std_BA(self) -> torch.Tensor:
        return self.log_std_BA.exp()

    def detach(self) -> TanhGaussian:
        """The same law as a constant."""
        return TanhGaussian(self.mean_BA.detach(), self.log_std_BA.detach())

    def mode(self) -> torch.Tensor:
        """``tanh(mean)``, ``[B, A]``."""
        return self.mean_BA.tanh()

    def sample(self, eps: torch.Tensor) -> torch.Tensor:
        """Actions for given noise ``[B, A]`` or ``[B, K, A]``."""
        return self._before_tanh(eps).tanh()

    def sample_with_log_prob(self, eps: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Actions for given noise and their log density in nats, exact: never through ``atanh`` of a rounded action.

        Args:
            eps: standard normal noise ``[B, A]`` or ``[B, K, A]``.

        Returns:
            actions shaped like ``eps``, log density ``[B]`` or ``[B, K]``.
        """
        before = self._before_tanh(eps)
        log_std = self.log_std_BA if eps.dim() == 2 else self.log_std_BA[:, None, :]
        log_density = -0.5 * eps.square() - log_std - _HALF_LOG_2PI
        return before.tanh(), (log_density - _log_tanh_slope(before)).sum(dim=-1)

    def log_prob(self, actions_BA: torch.Tensor) -> torch.Tensor:
        """Log density ``[B]`` of given actions inside (-1, 1)."""
        before = torch.atanh(actions_BA)
        eps = (before - self.mean_BA) / self.std_BA
        return (-0.5 * eps.square() - self.log_std_BA - _HALF_LOG_2PI - _log_tanh_slope(before)).sum(dim=-1)

    def _before_tanh(self, eps: torch.Tensor) -> torch.Tensor:
        if eps.dim() == 2:
            return self.mean_BA + self.std_BA * eps
        return self.mean_BA[:, None, :] + self.std_BA[:, None, :] * eps


def _log_tanh_slope(x: torch.Tensor) -> torch.Tensor:
    """``log(1 - tanh(x)^2)`` in the form that does not cancel for large |x|."""
    return 2.0 * (math.log(2.0) - x - F.softplus(-2.0 * x))


@dataclass(frozen=True)
class _UnitLaw(ABC):
    """A law of fixed spread about ``mean``; its mode and samples are clipped to the action range [-1, 1]."""

    mean_BA: torch.Tensor

    @property
    def noise_dim(self) -> int:
        """Standard normal numbers that one sample takes: A."""
        return self.mean_BA.shape[-1]

    def mode(self) -> torch.Tensor:
        """``clip(mean, -1, 1)``, ``[B, A]``."""
        return self.mean_BA.clamp(-1.0, 1.0)

    def sample(self, eps: torch.Tensor) -> torch.Tensor:
        """Actions for standard normal noise ``[B, A]`` or ``[B, K, A]``, clipped to [-1, 1]."""
        mean = self.mean_BA if eps.dim() == 2 else self.mean_BA[:, None, :]
        return (mean + self._deviation(eps)).clamp(-1.0, 1.0)

    @abstractmethod
    def _deviation(self, eps: torch.Tensor) -> torch.Tensor:
        """How far a sample lies from the mean, for standard normal noise."""

    @abstractmethod
    def log_prob(self, actions_BA: torch.Tensor) -> torch.Tensor:
        """Log density ``[B]`` of given actions under the unclipped law."""


class UnitGaussian(_UnitLaw):
    """A Gaussian of unit variance about ``mean``."""

    def _deviation(self, eps: torch.Tensor) -> torch.Tensor:
        return eps

    def log_prob(self, actions_BA: torch.Tensor) -> torch.Tensor:
        """Log density ``[B]`` of given actions under the unclipped Gaussian."""
        return (-0.5 * (actions_BA - self.mean_BA).square() - _HALF_LOG_2PI).sum(dim=-1)


class UnitLaplace(_UnitLaw):
    """Independent Laplace laws of scale 1 about ``mean``: the L1 loss."""

    def _deviation(self, eps: torch.Tensor) -> torch.Tensor:
        size = -torch.special.log_ndtr(-eps.abs()) - math.log(2.0)  # -log P(a normal is larger): exponential of rate 1
        return size * eps.sign()

    def log_prob(self, actions_BA: torch.Tensor) -> torch.Tensor:
        """Log density ``[B]`` of given actions under the unclipped law."""
        return (-(actions_BA - self.mean_BA).abs() - math.log(2.0)).sum(dim=-1)


def _orthogonal(layer: Dense, gain: float, generator: torch.Generator) -> None:
    orthogonal_(layer.weight, gain, generator)
    nn.init.zeros_(layer.bias)


class PolicyTrunk(SeesState):
    """MLP on the concatenation (embedding, state, task one-hot), ReLU after every layer, orthogonal weights.

    The task's one-hot enters as a column of the first weight.
    """

    def __init__(self, embedding_dim: int, state_dim: int, num_task_slots: int, hidden_dims: tuple[int, ...]) -> None:
        super().__init__()
        self.num_dense_inputs, self.num_task_slots = embedding_dim + state_dim, num_task_slots
        widths = (self.num_dense_inputs + num_task_slots, *hidden_dims)
        self.layers = nn.ModuleList(Dense(a, b) for a, b in zip(widths, widths[1:], strict=False))

    def initialise(self, generator: torch.Generator) -> None:
        for layer in self.layers:
            assert isinstance(layer, Dense)
            _orthogonal(layer, 1.0, generator)

    def forward(
        self,
        embedding_BD: torch.Tensor,
        state_BS: torch.Tensor,
        task_id_B: torch.Tensor,
        dropout: Dropout | None = None,
    ) -> torch.Tensor:
        """Units ``[B, H]`` of the last layer; ``dropout`` follows every layer's ReLU."""
        inputs = torch.cat([embedding_BD, self.seen_state(state_BS)], dim=1)
        if inputs.shape[1] != self.num_dense_inputs:
            raise ValueError(
                f"policy: expected embedding and state of {self.num_dense_inputs} values together, got "
                f"{tuple(embedding_BD.shape)} and {tuple(state_BS.shape)}"
            )
        first = self.layers[0]
        assert isinstance(first, Dense)
        w_dense, w_task = first.weight.split([self.num_dense_inputs, self.num_task_slots], dim=1)
        hidden = F.linear(inputs, w_dense, first.bias) + select_task(w_task, 1, task_id_B).t()
        hidden = hidden.relu_()
        for layer in self.layers[1:]:
            hidden = layer(hidden if dropout is None else dropout(hidden)).relu_()
        return hidden if dropout is None else dropout(hidden)


class TanhGaussianPolicy(nn.Module):
    """Mean and state-dependent log standard deviation, clipped to [-5, 2], of a tanh-Gaussian.

    Source: PTR, ``jaxrl2/networks/learned_std_normal_policy.py:LearnedStdTanhNormalPolicy``.
    """

    def __init__(
        self, embedding_dim: int, state_dim: int, num_task_slots: int, action_dim: int, hidden_dims: tuple[int, ...]
    ) -> None:
        super().__init__()
        self.trunk = PolicyTrunk(embedding_dim, state_dim, num_task_slots, hidden_dims)
        self.mean = Dense(hidden_dims[-1], action_dim)
        self.log_std = Dense(hidden_dims[-1], action_dim)

    def initialise(self, generator: torch.Generator) -> None:
        self.trunk.initialise(generator)
        _orthogonal(self.mean, 1e-2, generator)
        _orthogonal(self.log_std, 1e-2, generator)

    def forward(self, embedding_BD: torch.Tensor, state_BS: torch.Tensor, task_id_B: torch.Tensor) -> TanhGaussian:
        hidden = self.trunk(embedding_BD, state_BS, task_id_B)
        return TanhGaussian(self.mean(hidden), self.log_std(hidden).clamp(LOG_STD_MIN, LOG_STD_MAX))


class MeanPolicy(nn.Module):
    """Mean of a Gaussian of unit variance, for behaviour cloning.

    Source: PTR, ``jaxrl2/networks/normal_policy.py:NormalPolicy`` with fixed standard deviation 1.
    """

    def __init__(
        self, embedding_dim: int, state_dim: int, num_task_slots: int, action_dim: int, hidden_dims: tuple[int, ...]
    ) -> None:
        super().__init__()
        self.trunk = PolicyTrunk(embedding_dim, state_dim, num_task_slots, hidden_dims)
        self.mean = Dense(hidden_dims[-1], action_dim)

    def initialise(self, generator: torch.Generator) -> None:
        self.trunk.initialise(generator)
        _orthogonal(self.mean, 1e-2, generator)

    def forward(
        self,
        embedding_BD: torch.Tensor,
        state_BS: torch.Tensor,
        task_id_B: torch.Tensor,
        dropout: Dropout | None = None,
    ) -> UnitGaussian:
        return UnitGaussian(self.mean(self.trunk(embedding_BD, state_BS, task_id_B, dropout)))


class Actor(nn.Module):
    """Image encoder and policy; the one thing that acts, whichever learner trained it.

    Shapes: images by camera name ``[B, 3, H, W]`` float in [0, 1], state ``[B, S]``, task_id ``[B]``; actions
    ``[B, A]`` in [-1, 1].

    Args:
        encoder: of the images.
        policy: a module from embedding, state and task to a law of the action that has ``mode()``, ``sample(noise)``,
            ``log_prob(actions)`` and ``noise_dim``; it draws its weights in ``initialise(generator)``.
    """

    def __init__(self, encoder: Encoder, policy: Any) -> None:
        super().__init__()
        self.encoder, self.policy = encoder, policy

    def initialise(self, generator: torch.Generator) -> None:
        """Encoder, then policy."""
        self.encoder.initialise(generator)
        self.policy.initialise(generator)

    def forward(self, images: Mapping[str, torch.Tensor], state_BS: torch.Tensor, task_id_B: torch.Tensor) -> Any:
        """The policy's law of the action."""
        return self.policy(self.encoder(images, state_BS.shape[0]), state_BS, task_id_B)

    def mean_action(
        self, images: Mapping[str, torch.Tensor], state_BS: torch.Tensor, task_id_B: torch.Tensor
    ) -> torch.Tensor:
        """The action to take: the distribution's mode."""
        return self(images, state_BS, task_id_B).mode()
