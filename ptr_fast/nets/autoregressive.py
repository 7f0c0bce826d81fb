"""A policy that chooses an action axis by axis, each from bins and with the axes before it in view.

Shapes: B states, K samples per state, A action, D embedding, S state, N task slots, C hidden units of an axis, M bins.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import nn

from ptr_fast.nets.categorical import choose
from ptr_fast.nets.dropout import Dropout
from ptr_fast.nets.init import orthogonal_
from ptr_fast.nets.layers import select_task
from ptr_fast.nets.state_scale import SeesState

__all__ = ["Autoregressive", "AutoregressivePolicy", "bin_centres", "bin_of"]


def bin_of(actions: torch.Tensor, num_bins: int) -> torch.Tensor:
    """Number int64 of the bin of every scaled action: M equal ones from -1 to 1."""
    return ((actions + 1.0) * (0.5 * num_bins)).floor().clamp(0, num_bins - 1).long()


def bin_centres(bins: torch.Tensor, num_bins: int, dtype: torch.dtype) -> torch.Tensor:
    """The middles of bins."""
    return (bins.to(dtype) + 0.5) * (2.0 / num_bins) - 1.0


class AutoregressivePolicy(SeesState):
    """Logits of the bins of every axis, by an MLP of its own on embedding, state, task and the axes before it.

    Source: PTR, ``jaxrl2/networks/autoregressive_policy.py``; the MLPs of all axes are computed together. Deviation:
    hidden layers are orthogonal with gain 1, as in the other policies, and only the last layer is small: with the
    reference's gain of 1e-4 in all layers nearly nothing of the input is left at the start.
    """

    earlier: torch.Tensor

    def __init__(
        self,
        embedding_dim: int,
        state_dim: int,
        num_task_slots: int,
        action_dim: int,
        hidden_dims: tuple[int, ...],
        num_bins: int,
    ) -> None:
        super().__init__()
        self.action_dim, self.num_bins = action_dim, num_bins
        self.num_dense_inputs, self.num_task_slots = embedding_dim + state_dim, num_task_slots
        num_inputs = self.num_dense_inputs + num_task_slots
        self.seen = nn.Parameter(torch.empty(action_dim, hidden_dims[0], num_inputs))
        self.before = nn.Parameter(torch.empty(action_dim, hidden_dims[0], action_dim))
        widths = (*hidden_dims, num_bins)
        self.weights = nn.ParameterList(torch.empty(action_dim, b, a) for a, b in zip(widths, widths[1:], strict=False))
        self.biases = nn.ParameterList(torch.empty(action_dim, width) for width in widths)
        self.register_buffer("earlier", torch.ones(action_dim, action_dim).tril(-1), persistent=False)

    def initialise(self, generator: torch.Generator) -> None:
        for weight in (self.seen, self.before, *self.weights[:-1]):
            orthogonal_(weight, 1.0, generator)
        orthogonal_(self.weights[-1], 1e-2, generator)
        for bias in self.biases:
            nn.init.zeros_(bias)

    def forward(
        self,
        embedding_BD: torch.Tensor,
        state_BS: torch.Tensor,
        task_id_B: torch.Tensor,
        dropout: Dropout | None = None,
    ) -> Autoregressive:
        """The law; what the first layers make of all that is seen is computed once."""
        w_dense, w_task = self.seen.flatten(0, 1).split([self.num_dense_inputs, self.num_task_slots], dim=1)
        inputs = torch.cat([embedding_BD, self.seen_state(state_BS)], dim=1)
        seen = torch.addmm(self.biases[0].flatten(), inputs, w_dense.t()) + select_task(w_task, 1, task_id_B).t()
        return Autoregressive(self, seen.view(len(inputs), self.action_dim, -1), dropout)

    def logits(self, seen_BAC: torch.Tensor, known_BA: torch.Tensor, dropout: Dropout | None = None) -> torch.Tensor:
        """Logits ``[B, A, M]`` of every axis, given the axes before it in ``known``; the others are not looked at."""
        before = self.before * self.earlier[:, None, :]
        hidden_ABC = seen_BAC.transpose(0, 1) + torch.matmul(known_BA, before.transpose(1, 2))
        for weight, bias in zip(self.weights, self.biases[1:], strict=True):
            hidden_ABC = hidden_ABC.relu()
            if dropout is not None:
                hidden_ABC = dropout(hidden_ABC.transpose(0, 1)).transpose(0, 1)
            hidden_ABC = torch.baddbmm(bias[:, None, :], hidden_ABC, weight.transpose(1, 2))
        return hidden_ABC.transpose(0, 1)

    def logits_of(self, axis: int, seen_BAC: torch.Tensor, known_Bi: torch.Tensor) -> torch.Tensor:
        """Logits ``[B, M]`` of one axis, given all axes before it."""
        hidden = seen_BAC[:, axis]
        if axis > 0:
            hidden = hidden + known_Bi @ self.before[axis, :, :axis].t()
        for weight, bias in zip(self.weights, self.biases[1:], strict=True):
            hidden = torch.addmm(bias[axis], hidden.relu(), weight[axis].t())
        return hidden


@dataclass(frozen=True)
class Autoregressive:
    """``p(a) = p(a_1) p(a_2 | a_1) ...``, each axis uniform within the bins of [-1, 1]; answers are middles of bins.

    Attributes:
        policy: of the logits.
        seen_BAC: what the first layers make of all that is seen.
        dropout: of the hidden units, in :meth:`log_prob`.
    """

    policy: AutoregressivePolicy
    seen_BAC: torch.Tensor
    dropout: Dropout | None = None

    @property
    def noise_dim(self) -> int:
        """Standard normal numbers that one sample takes: A, each chooses a bin."""
        return self.seen_BAC.shape[1]

    def detach(self) -> Autoregressive:
        """The same law as a constant, without dropout."""
        return Autoregressive(self.policy, self.seen_BAC.detach())

    def mode(self) -> torch.Tensor:
        """Axis by axis the most likely bin, ``[B, A]``."""
        return self._answer(self.seen_BAC, None)

    def sample(self, noise: torch.Tensor) -> torch.Tensor:
        """Actions ``[B, A]`` or ``[B, K, A]`` for standard normal noise of the same shape."""
        if noise.dim() == 2:
            return self._answer(self.seen_BAC, noise)
        seen = self.seen_BAC.repeat_interleave(noise.shape[1], dim=0)
        return self._answer(seen, noise.flatten(0, 1)).view(noise.shape)

    def log_prob(self, actions_BA: torch.Tensor) -> torch.Tensor:
        """Log density ``[B]`` of given actions, nats."""
        policy, bins = self.policy, bin_of(actions_BA, self.policy.num_bins)
        known = bin_centres(bins, policy.num_bins, actions_BA.dtype)
        log_mass_BAM = policy.logits(self.seen_BAC, known, self.dropout).log_softmax(dim=2)
        log_mass_BA = log_mass_BAM.take_along_dim(bins[..., None], dim=2).squeeze(2)
        return (log_mass_BA + math.log(0.5 * policy.num_bins)).sum(dim=1)

    def _answer(self, seen_BAC: torch.Tensor, noise_BA: torch.Tensor | None) -> torch.Tensor:
        known = seen_BAC.new_zeros(len(seen_BAC), 0)
        for axis in range(self.policy.action_dim):
            logits_BM = self.policy.logits_of(axis, seen_BAC, known)
            if noise_BA is None:
                bins_B1 = logits_BM.argmax(dim=1, keepdim=True)
            else:
                bins_B1 = choose(logits_BM.log_softmax(dim=1), noise_BA[:, axis : axis + 1])
            known = torch.cat([known, bin_centres(bins_B1, self.policy.num_bins, known.dtype)], dim=1)
        return known
