"""cql_head by csrc/kernels/cql_head: CPU, float32."""

from __future__ import annotations

from typing import Any

import torch
from torch.utils.dlpack import to_dlpack

from ptr_fast import native

__all__ = ["cql_head", "supports"]


def supports(
    state_terms: tuple[torch.Tensor, ...],
    action_weights: tuple[torch.Tensor | None, ...],
    hidden_weights: tuple[torch.Tensor, ...],
    actions_BKA: torch.Tensor,
    log_weight_BK: torch.Tensor | None,
) -> str | None:
    """None where the native kernel can run, else why not."""
    if native.module() is None:
        return native.why_missing()
    for tensor in (actions_BKA, log_weight_BK, *state_terms, *action_weights, *hidden_weights):
        if tensor is None:
            continue
        if tensor.device.type != "cpu":
            return f"a tensor is on {tensor.device.type}, the native kernel is for the CPU"
        if tensor.dtype != torch.float32:
            return f"a tensor is {str(tensor.dtype).removeprefix('torch.')}, the native kernel is for float32"
        if tensor.numel() == 0:
            return "a tensor is empty"
    return None


def cql_head(
    state_terms: tuple[torch.Tensor, ...],
    action_weights: tuple[torch.Tensor | None, ...],
    hidden_weights: tuple[torch.Tensor, ...],
    actions_BKA: torch.Tensor,
    log_weight_BK: torch.Tensor | None,
) -> tuple[torch.Tensor, torch.Tensor | None]:
    tensors = (*state_terms, *action_weights, *hidden_weights)
    keep = torch.is_grad_enabled() and any(t is not None and t.requires_grad for t in (actions_BKA, *tensors))
    return _CqlHead.apply(len(state_terms), keep, actions_BKA, log_weight_BK, *tensors)


class _CqlHead(torch.autograd.Function):
    @staticmethod
    def forward(  # type: ignore[override]
        ctx: Any,
        num_layers: int,
        keep: bool,
        actions_BKA: torch.Tensor,
        log_weight_BK: torch.Tensor | None,
        *layers: Any,
    ) -> tuple[torch.Tensor, torch.Tensor | None]:
        actions_BKA = actions_BKA.contiguous()
        log_weight_BK = None if log_weight_BK is None else log_weight_BK.contiguous()
        terms = [term.contiguous() for term in layers[:num_layers]]
        weights = [None if weight is None else _with_dense_rows(weight) for weight in layers[num_layers:]]
        E, (B, K, _) = terms[0].shape[0], actions_BKA.shape
        q_EBK = torch.empty((E, B, K), dtype=torch.float32)
        lse_EB = None if log_weight_BK is None else torch.empty((E, B), dtype=torch.float32)
        ctx.hidden = native.require().cql_head_forward(
            *_capsules(num_layers, terms, weights),
            to_dlpack(actions_BKA),
            _capsule(log_weight_BK),
            to_dlpack(q_EBK),
            _capsule(lse_EB),
            keep,
            torch.get_num_threads(),
        )
        # Without gradients of the last log-sum-exp neither it nor Q is needed again.
        kept = (q_EBK, lse_EB) if lse_EB is not None else (None, None)
        ctx.save_for_backward(actions_BKA, log_weight_BK, *kept, *terms, *weights)
        ctx.num_layers = num_layers
        ctx.set_materialize_grads(False)
        return q_EBK, lse_EB

    @staticmethod
    def backward(  # type: ignore[override]
        ctx: Any, dq_EBK: torch.Tensor | None, dlse_EB: torch.Tensor | None
    ) -> tuple[torch.Tensor | None, ...]:
        if torch.is_grad_enabled():  # create_graph=True
            raise RuntimeError(
                "cql_head: the native backend has no second derivative; "
                "run the forward pass inside dispatch.use_backend('reference')"
            )
        num_layers = ctx.num_layers
        actions_BKA, log_weight_BK, q_EBK, lse_EB, *layers = ctx.saved_tensors
        if dq_EBK is None and dlse_EB is None:
            return (None,) * (4 + len(layers))
        wanted = ctx.needs_input_grad[4:]
        gradients = [
            torch.empty(tensor.shape, dtype=torch.float32) if need and tensor is not None else None
            for need, tensor in zip(wanted, layers, strict=True)
        ]
        dactions_BKA = torch.empty_like(actions_BKA) if ctx.needs_input_grad[2] else None
        native.require().cql_head_backward(
            *_capsules(num_layers, layers[:num_layers], layers[num_layers:]),
            to_dlpack(actions_BKA),
            _capsule(log_weight_BK),
            _capsule(q_EBK),
            _capsule(lse_EB),
            ctx.hidden,
            None if dq_EBK is None else to_dlpack(dq_EBK.contiguous()),
            None if dlse_EB is None else to_dlpack(dlse_EB.contiguous()),
            *_capsules(num_layers, gradients[:num_layers], gradients[num_layers:]),
            _capsule(dactions_BKA),
            torch.get_num_threads(),
        )
        return None, None, dactions_BKA, None, *gradients


def _with_dense_rows(weight_EIO: torch.Tensor) -> torch.Tensor:
    """The weight itself where the rows of each head are dense, as views into a larger kernel are; else a copy."""
    dense = weight_EIO.stride(2) == 1 and weight_EIO.stride(1) == weight_EIO.shape[2]
    return weight_EIO if dense else weight_EIO.contiguous()


def _capsule(tensor: torch.Tensor | None) -> Any:
    return None if tensor is None else to_dlpack(tensor)


def _capsules(num_layers: int, terms: list[Any], weights: list[Any]) -> tuple[tuple[Any, ...], ...]:
    """State terms, action weights and hidden weights as tuples of DLPack capsules."""
    parts = terms, weights[:num_layers], weights[num_layers:]
    return tuple(tuple(_capsule(tensor) for tensor in part) for part in parts)
