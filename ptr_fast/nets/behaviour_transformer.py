"""A policy that chooses a cluster of actions by a transformer over past observations, and an offset from its centre.

Shapes: B states, T observations, D embedding, S state, N task slots, C width, K clusters, A action.
Source: BeT (Shafiullah et al. 2022), ``libraries/mingpt/model.py`` and ``models/libraries/mingpt.py``. Deviations:
every token looks at all T observations, as only the answer of the last one is used; attention weights are not dropped;
the first layer is orthogonal, as in other policies, so that states in metres tell something from the start.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import nn
from torch.nn import functional as F

from ptr_fast.nets.categorical import choose
from ptr_fast.nets.dropout import Dropout
from ptr_fast.nets.encoders.vit.trunk import Block
from ptr_fast.nets.init import orthogonal_
from ptr_fast.nets.layers import Dense, LayerNorm, initialise_layers, select_task
from ptr_fast.nets.state_scale import SeesState

__all__ = ["BehaviourTransformer", "ClusteredActions"]


class BehaviourTransformer(SeesState):
    """Logits of the clusters and an offset for each.

    The centres are fitted to the training data before the first update; until then they are 0.
    """

    centres: torch.Tensor

    def __init__(
        self,
        embedding_dim: int,
        state_dim: int,
        num_task_slots: int,
        action_dim: int,
        *,
        num_observations: int,
        num_bins: int,
        num_layers: int,
        num_heads: int,
        width: int,
    ) -> None:
        super().__init__()
        self.num_observations, self.num_bins = num_observations, num_bins
        self.num_dense_inputs, self.num_task_slots = embedding_dim + state_dim, num_task_slots
        self.token = Dense(self.num_dense_inputs + num_task_slots, width)
        self.position = nn.Parameter(torch.empty(num_observations, width))
        self.blocks = nn.ModuleList(Block(width, num_heads) for _ in range(num_layers))
        self.norm = LayerNorm(width)
        self.head = Dense(width, num_bins * (1 + action_dim), bias=False)
        self.register_buffer("centres", torch.zeros(num_bins, action_dim))

    @property
    def num_dropped(self) -> int:
        """Units of one sample that dropout concerns: of the tokens, and of what each half of a block adds to them."""
        return self.position.numel() * (1 + 2 * len(self.blocks))

    def initialise(self, generator: torch.Generator) -> None:
        """Orthogonal first layer, else normal weights of standard deviation 0.02; zero biases; norms: the identity."""
        initialise_layers((module for module in self.modules() if module is not self), generator)
        for module in self.modules():
            if isinstance(module, Dense):
                nn.init.normal_(module.weight, std=0.02, generator=generator)
                if module.bias is not None:
                    nn.init.zeros_(module.bias)
        orthogonal_(self.token.weight, 1.0, generator)
        nn.init.normal_(self.position, std=0.02, generator=generator)

    def forward(
        self,
        embedding: torch.Tensor,
        state: torch.Tensor,
        task_id_B: torch.Tensor,
        dropout: Dropout | None = None,
    ) -> ClusteredActions:
        """The law of the present action, of embeddings ``[B, T * D]`` and states ``[B, T * S]``, the oldest first."""
        drop = dropout or _keep
        by_observation = (self.num_observations, -1)
        seen = self.seen_state(state)
        inputs = torch.cat([embedding.unflatten(1, by_observation), seen.unflatten(1, by_observation)], dim=2)
        w_dense, w_task = self.token.weight.split([self.num_dense_inputs, self.num_task_slots], dim=1)
        task_BC = select_task(w_task, 1, task_id_B).t()
        tokens_BTC = drop(F.linear(inputs, w_dense, self.token.bias) + task_BC[:, None] + self.position)
        for block in self.blocks:
            assert isinstance(block, Block)
            tokens_BTC = tokens_BTC + drop(block.attn(block.norm1(tokens_BTC)))
            tokens_BTC = tokens_BTC + drop(block.mlp(block.norm2(tokens_BTC)))
        answer = self.head(self.norm(tokens_BTC[:, -1]))
        logits_BK, offsets = answer[:, : self.num_bins], answer[:, self.num_bins :]
        return ClusteredActions(logits_BK, offsets.unflatten(1, (self.num_bins, -1)), self.centres)


def _keep(units: torch.Tensor) -> torch.Tensor:
    return units


@dataclass(frozen=True)
class ClusteredActions:
    """One of K answers with given probabilities: a centre and its offset, clipped to [-1, 1]; it has no density.

    Attributes:
        logits_BK: of the clusters.
        offset_BKA: from every centre.
        centres_KA: of the clusters.
    """

    logits_BK: torch.Tensor
    offset_BKA: torch.Tensor
    centres_KA: torch.Tensor

    def nearest(self, actions_BA: torch.Tensor) -> torch.Tensor:
        """The cluster int64 ``[B]`` whose centre is nearest to given actions."""
        return (actions_BA[:, None] - self.centres_KA).square().sum(dim=2).argmin(dim=1)

    def mode(self) -> torch.Tensor:
        """The answer of the most likely cluster, ``[B, A]``."""
        return self._answer(self.logits_BK.argmax(dim=1, keepdim=True))[:, 0]

    def sample(self, noise: torch.Tensor) -> torch.Tensor:
        """Answers ``[B, A]`` or ``[B, N, A]`` for standard normal noise ``[B, 1]`` or ``[B, N, 1]``: of the cluster."""
        if noise.dim() == 2:
            return self.sample(noise[:, None])[:, 0]
        return self._answer(choose(self.logits_BK.log_softmax(dim=1), noise[..., 0]))

    def _answer(self, chosen_BN: torch.Tensor) -> torch.Tensor:
        return (self.centres_KA + self.offset_BKA).take_along_dim(chosen_BN[..., None], dim=1).clamp(-1.0, 1.0)
