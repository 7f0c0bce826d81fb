"""A policy of many modes: a mixture of Gaussians over scaled actions.

Shapes: B batch, K samples per state, A action, C components, D embedding, S state, N task slots.

Note "Noise of a sample". A sample takes A + 1 standard normal numbers: the first chooses the component, through the
normal distribution function and the cumulated weights, the others are the deviation from its mean. So whatever draws
noise for a Gaussian draws it for a mixture, in a captured step and in an exported graph.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import nn
from torch.nn import functional as F

from ptr_fast.nets.categorical import choose
from ptr_fast.nets.dropout import Dropout
from ptr_fast.nets.init import orthogonal_
from ptr_fast.nets.layers import Dense
from ptr_fast.nets.policy import PolicyTrunk

__all__ = ["Mixture", "MixturePolicy"]

_HALF_LOG_2PI = 0.5 * math.log(2.0 * math.pi)


@dataclass(frozen=True)
class Mixture:
    """A mixture of Gaussians with independent axes; samples and mode are clipped to the action range [-1, 1].

    Attributes:
        log_weight_BC: normalised, nats.
        mean_BCA, std_BCA: of the components.

    Logarithms and their sums are float32 at least, whatever the trunk computes in.
    """

    log_weight_BC: torch.Tensor
    mean_BCA: torch.Tensor
    std_BCA: torch.Tensor

    @property
    def noise_dim(self) -> int:
        """Standard normal numbers that one sample takes: A + 1 (note "Noise of a sample")."""
        return self.mean_BCA.shape[-1] + 1

    def detach(self) -> Mixture:
        """The same law as a constant."""
        return Mixture(self.log_weight_BC.detach(), self.mean_BCA.detach(), self.std_BCA.detach())

    def mode(self) -> torch.Tensor:
        """Mean of the component of the largest weight, ``[B, A]``: what is done most often, never between two modes."""
        best_B11 = self.log_weight_BC.argmax(dim=1)[:, None, None]
        return self.mean_BCA.take_along_dim(best_B11, dim=1).squeeze(1).clamp(-1.0, 1.0)

    def sample(self, noise: torch.Tensor) -> torch.Tensor:
        """Actions ``[B, A]`` or ``[B, K, A]`` for standard normal noise ``[B, A + 1]`` or ``[B, K, A + 1]``."""
        if noise.dim() == 2:
            return self.sample(noise[:, None]).squeeze(1)
        choice_BK, eps_BKA = noise[..., 0], noise[..., 1:]
        index_BK1 = choose(self.log_weight_BC, choice_BK)[..., None]
        mean_BKA, std_BKA = (each.take_along_dim(index_BK1, dim=1) for each in (self.mean_BCA, self.std_BCA))
        return (mean_BKA + std_BKA * eps_BKA).clamp(-1.0, 1.0)

    def sample_with_log_prob(self, noise: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """:meth:`sample`, and the log density ``[B]`` or ``[B, K]`` of the clipped actions, nats."""
        actions = self.sample(noise)
        return actions, self.log_prob(actions)

    def log_prob(self, actions: torch.Tensor) -> torch.Tensor:
        """Log density ``[B]`` or ``[B, K]`` of actions ``[B, A]`` or ``[B, K, A]`` under the unclipped mixture."""
        if actions.dim() == 2:
            return self.log_prob(actions[:, None]).squeeze(1)
        wide = torch.promote_types(self.mean_BCA.dtype, torch.float32)
        mean, std = self.mean_BCA.to(wide)[:, None], self.std_BCA.to(wide)[:, None]
        eps_BKCA = (actions.to(wide)[:, :, None] - mean) / std
        density_BKC = (-0.5 * eps_BKCA.square() - std.log() - _HALF_LOG_2PI).sum(dim=3)
        return (density_BKC + self.log_weight_BC.to(wide)[:, None]).logsumexp(dim=2)


class MixturePolicy(nn.Module):
    """Weights, means and standard deviations of a mixture, by an MLP on embedding, state and task.

    The means begin apart from each other: their biases are drawn from the action range.

    Args:
        num_components: C.
        min_std: added to the softplus that makes a standard deviation, of the action's half range: it bounds the
            density of actions that repeat exactly, e.g. of a gripper.
        other arguments: as of :class:`ptr_fast.nets.policy.MeanPolicy`.
    """

    def __init__(
        self,
        embedding_dim: int,
        state_dim: int,
        num_task_slots: int,
        action_dim: int,
        hidden_dims: tuple[int, ...],
        num_components: int = 8,
        min_std: float = 0.03,
    ) -> None:
        super().__init__()
        if num_components < 1 or not min_std > 0.0:
            raise ValueError(
                f"mixture: expected at least one component and min_std above 0, got {num_components} and {min_std}"
            )
        self.num_components, self.min_std = num_components, min_std
        self.trunk = PolicyTrunk(embedding_dim, state_dim, num_task_slots, hidden_dims)
        self.weight_logits = Dense(hidden_dims[-1], num_components)
        self.mean = Dense(hidden_dims[-1], num_components * action_dim)
        self.raw_std = Dense(hidden_dims[-1], num_components * action_dim)

    def initialise(self, generator: torch.Generator) -> None:
        self.trunk.initialise(generator)
        for layer in (self.weight_logits, self.mean, self.raw_std):
            orthogonal_(layer.weight, 1e-2, generator)
            nn.init.zeros_(layer.bias)
        nn.init.uniform_(self.mean.bias, -1.0, 1.0, generator=generator)

    def forward(
        self,
        embedding_BD: torch.Tensor,
        state_BS: torch.Tensor,
        task_id_B: torch.Tensor,
        dropout: Dropout | None = None,
    ) -> Mixture:
        hidden = self.trunk(embedding_BD, state_BS, task_id_B, dropout)
        by_component = (self.num_components, -1)
        return Mixture(
            self.weight_logits(hidden).log_softmax(dim=1),
            self.mean(hidden).unflatten(1, by_component),
            self.min_std + F.softplus(self.raw_std(hidden)).unflatten(1, by_component),
        )
