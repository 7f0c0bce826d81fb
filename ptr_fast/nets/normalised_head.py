"""Q heads with a layer norm in every hidden layer, in plain PyTorch.

Shapes: E ensemble, B batch (states), K actions per state, A action, H hidden.

Note "Why it is no kernel". A layer norm needs the whole row of a layer before its activation, which the tiles of
``cql_head`` never hold at once. So here the layers of all rows are kept, as autograd does; what it costs is a row of
``benchmarks/bench_proposals.py``.
"""

from __future__ import annotations

import dataclasses
from typing import Any

import torch
from torch import nn
from torch.nn import functional as F

from ptr_fast.nets.critic import EnsembleHead, Hoisted

__all__ = ["NormalisedHead"]

EPS = 1e-6


class NormalisedHead(EnsembleHead):
    """E independent Q heads whose hidden layers are ``relu(layer_norm(...))``; see :class:`EnsembleHead`.

    Without it a Q head can raise Q without bound by growing its features; with it the features of every action have
    the same size. Source: Ball et al. 2023 (RLPD), section 4.2.
    """

    def __init__(self, form: str, num_critics: int, *, hidden_dims: tuple[int, ...], **sizes: Any) -> None:
        super().__init__(form, num_critics, hidden_dims=hidden_dims, **sizes)
        self.scales = nn.ParameterList(nn.Parameter(torch.empty(num_critics, width)) for width in hidden_dims)
        self.shifts = nn.ParameterList(nn.Parameter(torch.empty(num_critics, width)) for width in hidden_dims)

    def initialise(self, generator: torch.Generator) -> None:
        """As :class:`EnsembleHead`; scales 1, shifts 0."""
        super().initialise(generator)
        for scale, shift in zip(self.scales, self.shifts, strict=True):
            nn.init.ones_(scale)
            nn.init.zeros_(shift)

    def hoist(self, embedding_BD: torch.Tensor, state_BS: torch.Tensor, task_id_B: torch.Tensor) -> Hoisted:
        """See :meth:`EnsembleHead.hoist`."""
        hoisted = super().hoist(embedding_BD, state_BS, task_id_B)
        norms = list(zip(self.scales, self.shifts, strict=True))
        if not torch.is_grad_enabled():
            norms = [(scale.detach(), shift.detach()) for scale, shift in norms]
        return dataclasses.replace(hoisted, norms=tuple(norms))

    def q(self, hoisted: Hoisted, actions_BKA: torch.Tensor) -> torch.Tensor:
        """See :meth:`EnsembleHead.q`."""
        num_heads, (num_states, num_actions, action_dim) = self.num_critics, actions_BKA.shape
        actions_ERA = actions_BKA.reshape(1, -1, action_dim).expand(num_heads, -1, -1)
        hidden_ERH = out_EBKH = torch.empty(0)
        for i, (term_EBH, action_weight) in enumerate(zip(hoisted.state_terms, hoisted.action_weights, strict=True)):
            out_ERH = None if action_weight is None else torch.bmm(actions_ERA, action_weight)
            if i > 0:
                weight = hoisted.hidden_weights[i - 1]
                out_ERH = torch.bmm(hidden_ERH, weight) if out_ERH is None else out_ERH.baddbmm(hidden_ERH, weight)
            assert out_ERH is not None, "the first layer sees the action"
            out_EBKH = out_ERH.view(num_heads, num_states, num_actions, -1) + term_EBH[:, :, None]
            if i < len(hoisted.norms):
                scale_EH, shift_EH = hoisted.norms[i]
                normed = F.layer_norm(out_EBKH, out_EBKH.shape[-1:], eps=EPS)
                scaled = torch.addcmul(shift_EH[:, None, None], normed, scale_EH[:, None, None])
                hidden_ERH = scaled.relu_().flatten(1, 2)
        return out_EBKH.squeeze(3)

    def q_and_log_sum_exp(
        self, hoisted: Hoisted, actions_BKA: torch.Tensor, log_weight_BK: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """See :meth:`EnsembleHead.q_and_log_sum_exp`."""
        q_EBK = self.q(hoisted, actions_BKA)
        return q_EBK, (q_EBK + log_weight_BK.detach()).logsumexp(dim=2)
