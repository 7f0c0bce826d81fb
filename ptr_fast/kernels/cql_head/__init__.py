"""Q of K actions per state by an ensemble of heads, and the log-sum-exp of Q over these actions.

Shapes: E ensemble, B states, K actions per state, A action, H width of a layer (each has its own), R = B * K rows.

Note "Kept or recomputed". The hidden layers of all rows, ``[E, B, K, H]`` each, are E * K times as large as a layer of
the policy. The native implementation keeps them between forward and backward while they take at most 32 MiB; beyond
that, as CUDA and Triton always, it keeps only Q and the log-sum-exp, holds layers for a tile of rows at a time and
computes them again in the backward pass. The reference keeps them, as autograd does.
"""

from __future__ import annotations

import torch

from ptr_fast.kernels import cuda_backend, dispatch, triton_backend
from ptr_fast.kernels.cql_head import native, reference
from ptr_fast.native import warn_missing, why_not_on

__all__ = ["cql_head"]

_OP = "cql_head"
# benchmarks/results/gpu_kernels.jsonl, an H200: CUDA is 1.1 to 160 times as fast as Triton, 1.6 to 4.3 times as fast as
# PyTorch's products forward, 0.95 to 1.35 times with gradients; Triton 0.02 to 2.2 and 0.5 to 1.2 times.
_SLOWER_THAN_CUBLAS = (
    "PyTorch's own products were up to 1.9 times as fast with gradients, 53 times in search, on an H200"
)

dispatch.register(
    _OP,
    (
        cuda_backend.lazy_backend(_OP, slower=cuda_backend.not_captured_yet),
        triton_backend.lazy_backend(_OP, slower=lambda *args: _SLOWER_THAN_CUBLAS),
        dispatch.Backend("native", native.cql_head, native.supports, why_not_on),
        dispatch.Backend("reference", reference.cql_head, reference.supports),
    ),
)


def cql_head(
    state_terms: tuple[torch.Tensor, ...],
    action_weights: tuple[torch.Tensor | None, ...],
    hidden_weights: tuple[torch.Tensor, ...],
    actions_BKA: torch.Tensor,
    log_weight_BK: torch.Tensor | None = None,
) -> tuple[torch.Tensor, torch.Tensor | None]:
    """ReLU networks on actions whose share of the state is computed already, for an ensemble.

    Layer i of head e maps row (b, k) to ``state_terms[i][e, b] + actions[b, k] @ action_weights[i][e] + hidden @
    hidden_weights[i - 1][e]``, where ``hidden`` is the layer before after its ReLU; the last layer has one output, Q.

    Args:
        state_terms: per layer float ``[E, B, H]``, or ``[E, 1, H]`` where all states share it (a bias); the last has
            H = 1.
        action_weights: per layer ``[E, A, H]``; None where a layer does not see the action. The first does.
        hidden_weights: per layer from the second on ``[E, H of the layer before, H]``.
        actions_BKA: scaled actions.
        log_weight_BK: added to Q in the log-sum-exp, nats: minus the log density that an action was drawn with, minus
            infinity for an action that does not take part. A constant: it gets no gradient. None where only Q is
            wanted.

    Returns:
        Q ``[E, B, K]``, and ``log(sum over k of exp(Q + log_weight))`` ``[E, B]`` (None without log_weight; minus
        infinity, without a gradient, where no action takes part). Differentiable once with respect to state terms,
        weights and actions.

    Raises:
        ValueError: shapes that do not fit together.

    Source: PTR, ``jaxrl2/networks/values/state_action_ensemble.py`` and the ``logsumexp`` of
    ``agents/cql_encodersep_parallel/critic_updater.py``, which concatenate and keep everything.
    """
    _check(state_terms, action_weights, hidden_weights, actions_BKA, log_weight_BK)
    if log_weight_BK is not None:
        log_weight_BK = log_weight_BK.detach()
    args = (state_terms, action_weights, hidden_weights, actions_BKA, log_weight_BK)
    backend = dispatch.select(_OP, *args)
    if backend.name == "reference":
        warn_missing()
    return backend.run(*args)


def _check(
    state_terms: tuple[torch.Tensor, ...],
    action_weights: tuple[torch.Tensor | None, ...],
    hidden_weights: tuple[torch.Tensor, ...],
    actions_BKA: torch.Tensor,
    log_weight_BK: torch.Tensor | None,
) -> None:
    num_layers = len(state_terms)
    if num_layers < 2 or len(action_weights) != num_layers or len(hidden_weights) != num_layers - 1:
        raise ValueError(
            f"cql_head: expected two layers or more, as many action_weights and one hidden weight less, got "
            f"{num_layers}, {len(action_weights)} and {len(hidden_weights)}"
        )
    if action_weights[0] is None:
        raise ValueError("cql_head: expected action_weights of the first layer, got None")
    A = action_weights[0].shape[1]
    if actions_BKA.dim() != 3 or actions_BKA.shape[2] != A:
        raise ValueError(f"cql_head: expected actions [B, K, {A}], got {tuple(actions_BKA.shape)}")
    B, K, _ = actions_BKA.shape
    E, before = state_terms[0].shape[0], -1
    for i, term in enumerate(state_terms):
        H = term.shape[-1]
        if term.shape not in ((E, B, H), (E, 1, H)):
            raise ValueError(f"cql_head: expected state_terms[{i}] [{E}, {B} or 1, H], got {tuple(term.shape)}")
        weight = action_weights[i]
        if weight is not None and weight.shape != (E, A, H):
            raise ValueError(f"cql_head: expected action_weights[{i}] [{E}, {A}, {H}], got {tuple(weight.shape)}")
        if i > 0 and hidden_weights[i - 1].shape != (E, before, H):
            got = tuple(hidden_weights[i - 1].shape)
            raise ValueError(f"cql_head: expected hidden_weights[{i - 1}] [{E}, {before}, {H}], got {got}")
        before = H
    if before != 1:
        raise ValueError(f"cql_head: expected one output of the last layer, got {before}")
    if log_weight_BK is not None and log_weight_BK.shape != (B, K):
        raise ValueError(f"cql_head: expected log_weight [{B}, {K}], got {tuple(log_weight_BK.shape)}")
