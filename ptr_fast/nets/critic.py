"""The critic: one image encoder and an ensemble of Q heads, with all that no action changes computed once per state.

Shapes: E ensemble, B batch (states), K actions per state, A action, D embedding, S state, N task slots, H hidden.

Note "Hoisting". A Q head concatenates the action, and in the paper's form also the embedding, to the input of every
layer. A product with a concatenation is a sum of products, so the embedding's, state's and task's shares of every layer
are computed once per state, and the K actions of a state only add their own. The embedding is never tiled.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import nn

from ptr_fast.kernels.cql_head import cql_head
from ptr_fast.nets.encoders.base import Encoder
from ptr_fast.nets.init import orthogonal_
from ptr_fast.nets.layers import select_task
from ptr_fast.nets.state_scale import SeesState

__all__ = ["Critic", "EnsembleHead", "Hoisted"]

# What the first layer and every later layer sees, in the order of the reference's concatenation.
_INPUTS = {
    "reinject_all": (("task", "action", "embedding"), ("hidden", "action", "embedding")),
    "reinject_action": (("embedding", "state", "task", "action"), ("hidden", "action")),
    "plain": (("action", "embedding", "state", "task"), ("hidden",)),
}


@dataclass(frozen=True)
class Hoisted:
    """What one set of states contributes to every layer of a head.

    Attributes:
        state_terms: per layer ``[E, B, H]``: bias and the shares of embedding, state and task.
        action_weights: per layer the kernel's rows for the action, ``[E, A, H]``; None where it does not see it.
        hidden_weights: per layer from the second on the kernel's rows for the layer before, ``[E, H, H]``.

        norms: per hidden layer scale and bias ``[E, H]`` of its layer norm; empty where the head has none.

    Hoisted without gradients, all of it is constant: a gradient then reaches the actions alone.
    """

    state_terms: tuple[torch.Tensor, ...]
    action_weights: tuple[torch.Tensor | None, ...]
    hidden_weights: tuple[torch.Tensor, ...]
    norms: tuple[tuple[torch.Tensor, torch.Tensor], ...] = ()


class EnsembleHead(SeesState):
    """E independent Q heads; kernels ``[E, in, out]`` and biases ``[E, out]``.

    Source: PTR, ``jaxrl2/networks/values/state_action_ensemble.py`` and ``jaxrl2/networks/mlp.py:MLPActionSep``.

    Args:
        form: ``reinject_all``, ``reinject_action`` or ``plain`` (see :mod:`ptr_fast.learners.cql.config`).
        num_critics: E.
        embedding_dim, state_dim, num_task_slots, action_dim: D, S, N, A.
        hidden_dims: widths of the hidden layers.
    """

    def __init__(
        self,
        form: str,
        num_critics: int,
        *,
        embedding_dim: int,
        state_dim: int,
        num_task_slots: int,
        action_dim: int,
        hidden_dims: tuple[int, ...],
    ) -> None:
        super().__init__()
        if form not in _INPUTS:
            raise ValueError(f"critic head: expected one of {sorted(_INPUTS)}, got {form!r}")
        sizes = {"embedding": embedding_dim, "state": state_dim, "task": num_task_slots, "action": action_dim}
        first, later = _INPUTS[form]
        self.form, self.num_critics = form, num_critics
        self.inputs: list[tuple[tuple[str, int], ...]] = []
        self.kernels, self.biases = nn.ParameterList(), nn.ParameterList()
        for i, num_out in enumerate((*hidden_dims, 1)):
            if i > 0:
                sizes["hidden"] = hidden_dims[i - 1]
            parts = tuple((name, sizes[name]) for name in (first if i == 0 else later))
            self.inputs.append(parts)
            self.kernels.append(nn.Parameter(torch.empty(num_critics, sum(size for _, size in parts), num_out)))
            self.biases.append(nn.Parameter(torch.empty(num_critics, num_out)))

    def initialise(self, generator: torch.Generator) -> None:
        """Orthogonal: gain sqrt 2, last layer 0.01; the plain form 1 everywhere (as the reference). Biases 0."""
        for i, kernel in enumerate(self.kernels):
            gain = 1.0 if self.form == "plain" else (1e-2 if i == len(self.kernels) - 1 else math.sqrt(2.0))
            orthogonal_(kernel, gain, generator)
            nn.init.zeros_(self.biases[i])

    def hoist(self, embedding_BD: torch.Tensor, state_BS: torch.Tensor, task_id_B: torch.Tensor) -> Hoisted:
        """Compute all that does not depend on the action (note "Hoisting").

        Args:
            embedding_BD: critic encoder's output.
            state_BS: proprioceptive state (the ``reinject_all`` form does not look at it, as the reference).
            task_id_B: int64 task slots; a task's one-hot enters as a row of the first kernel.

        Raises:
            ValueError: widths that do not fit the head.
        """
        values = {"embedding": embedding_BD, "state": self.seen_state(state_BS)}
        terms, action_weights, hidden_weights = [], [], []
        for parts, kernel_EIO, bias_EO in zip(self.inputs, self.kernels, self.biases, strict=True):
            if not torch.is_grad_enabled():
                kernel_EIO = kernel_EIO.detach()  # parts of a parameter want gradients even where they are off
            rows = dict(zip((name for name, _ in parts), kernel_EIO.split([n for _, n in parts], dim=1), strict=True))
            term_EBO = bias_EO[:, None, :]
            for name, weight_EIO in rows.items():
                if name == "task":
                    term_EBO = term_EBO + select_task(weight_EIO, 1, task_id_B)
                elif name in values:
                    value = values[name]
                    if value.shape[-1] != weight_EIO.shape[1]:
                        raise ValueError(
                            f"critic head: expected {name} [B, {weight_EIO.shape[1]}], got {tuple(value.shape)}"
                        )
                    if value.shape[-1] == 0:  # no encoder, or a policy without proprioception
                        continue
                    value_EBI = value.expand(self.num_critics, *value.shape)
                    term_EBO = torch.baddbmm(term_EBO, value_EBI, weight_EIO)
            terms.append(term_EBO)
            action_weights.append(rows.get("action"))
            if "hidden" in rows:
                hidden_weights.append(rows["hidden"])
        return Hoisted(tuple(terms), tuple(action_weights), tuple(hidden_weights))

    def q(self, hoisted: Hoisted, actions_BKA: torch.Tensor) -> torch.Tensor:
        """Q values ``[E, B, K]`` of K actions for each of B states.

        Args:
            hoisted: of the same B states.
            actions_BKA: scaled actions.
        """
        return cql_head(hoisted.state_terms, hoisted.action_weights, hoisted.hidden_weights, actions_BKA)[0]

    def q_and_log_sum_exp(
        self, hoisted: Hoisted, actions_BKA: torch.Tensor, log_weight_BK: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Q values ``[E, B, K]``, and ``[E, B]`` the log-sum-exp over the K actions of Q + log_weight.

        Args:
            hoisted, actions_BKA: as for :meth:`q`.
            log_weight_BK: see :func:`ptr_fast.kernels.cql_head.cql_head`; minus infinity leaves an action out.
        """
        terms, weights = hoisted.state_terms, (hoisted.action_weights, hoisted.hidden_weights)
        q_EBK, log_sum_exp_EB = cql_head(terms, *weights, actions_BKA, log_weight_BK)
        assert log_sum_exp_EB is not None
        return q_EBK, log_sum_exp_EB


class Critic(nn.Module):
    """Image encoder and Q heads.

    Shapes in and out: images by camera name ``[B, 3, H, W]`` float in [0, 1], state ``[B, S]``, task_id ``[B]``,
    actions ``[B, K, A]``; Q ``[E, B, K]``.
    """

    def __init__(self, encoder: Encoder, head: EnsembleHead) -> None:
        super().__init__()
        self.encoder, self.head = encoder, head

    def initialise(self, generator: torch.Generator) -> None:
        """Encoder, then heads."""
        self.encoder.initialise(generator)
        self.head.initialise(generator)

    def hoist(self, images: Mapping[str, torch.Tensor], state_BS: torch.Tensor, task_id_B: torch.Tensor) -> Hoisted:
        """Encode once; evaluate any number of actions with ``critic.head.q``."""
        return self.head.hoist(self.encoder(images, state_BS.shape[0]), state_BS, task_id_B)

    def forward(
        self,
        images: Mapping[str, torch.Tensor],
        state_BS: torch.Tensor,
        task_id_B: torch.Tensor,
        actions_BKA: torch.Tensor,
    ) -> torch.Tensor:
        return self.head.q(self.hoist(images, state_BS, task_id_B), actions_BKA)
