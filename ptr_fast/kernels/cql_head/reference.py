"""cql_head in plain PyTorch: the definition. Runs in any dtype and on any device; autograd keeps every layer."""

from __future__ import annotations

import torch

__all__ = ["cql_head", "supports"]


def supports(
    state_terms: tuple[torch.Tensor, ...],
    action_weights: tuple[torch.Tensor | None, ...],
    hidden_weights: tuple[torch.Tensor, ...],
    actions_BKA: torch.Tensor,
    log_weight_BK: torch.Tensor | None,
) -> str | None:
    """None: the reference can always run."""
    return None


def cql_head(
    state_terms: tuple[torch.Tensor, ...],
    action_weights: tuple[torch.Tensor | None, ...],
    hidden_weights: tuple[torch.Tensor, ...],
    actions_BKA: torch.Tensor,
    log_weight_BK: torch.Tensor | None,
) -> tuple[torch.Tensor, torch.Tensor | None]:
    E, (B, K, A) = state_terms[0].shape[0], actions_BKA.shape
    actions_ERA = actions_BKA.reshape(1, B * K, A).expand(E, -1, -1)
    hidden_ERH = out_EBKH = None
    for i, (term_EBH, action_weight) in enumerate(zip(state_terms, action_weights, strict=True)):
        out_ERH = None
        if action_weight is not None:
            out_ERH = torch.bmm(actions_ERA, action_weight)
        if hidden_ERH is not None:
            weight = hidden_weights[i - 1]
            # In place on a product that no one else has; beside it the action's product is a small one.
            out_ERH = torch.bmm(hidden_ERH, weight) if out_ERH is None else out_ERH.baddbmm_(hidden_ERH, weight)
        assert out_ERH is not None, "the first layer sees the action"
        # Not in place: on a view that would make autograd copy the base.
        out_EBKH = out_ERH.view(E, B, K, term_EBH.shape[2]) + term_EBH.unsqueeze(2)
        if i + 1 < len(state_terms):
            hidden_ERH = out_EBKH.relu_().flatten(1, 2)
    assert out_EBKH is not None
    q_EBK = out_EBKH.squeeze(3)
    if log_weight_BK is None:
        return q_EBK, None
    return q_EBK, _log_sum_exp(q_EBK + log_weight_BK)


def _log_sum_exp(logits_EBK: torch.Tensor) -> torch.Tensor:
    """Over the last axis; minus infinity with the gradient 0 where all are minus infinity."""
    empty_EB = (logits_EBK == -torch.inf).all(dim=2)
    lse_EB = logits_EBK.masked_fill(empty_EB.unsqueeze(2), 0.0).logsumexp(dim=2)
    return lse_EB.masked_fill(empty_EB, -torch.inf)
