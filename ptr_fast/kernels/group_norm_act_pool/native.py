"""group_norm_act_pool by csrc/kernels/group_norm_act_pool: CPU, float32, channels_last."""

from __future__ import annotations

from typing import Any

import torch
from torch.utils.dlpack import to_dlpack

from ptr_fast import native
from ptr_fast.kernels.group_norm_act import native as norm

__all__ = ["group_norm_act_pool", "supports"]

_LAST = torch.channels_last


def supports(
    x_BCHW: torch.Tensor, weight_C: torch.Tensor, bias_C: torch.Tensor, num_groups: int, eps: float
) -> str | None:
    """None where the native kernel can run, else why not."""
    return norm.supports(x_BCHW, weight_C, bias_C, num_groups, eps, None, "relu")


def group_norm_act_pool(
    x_BCHW: torch.Tensor, weight_C: torch.Tensor, bias_C: torch.Tensor, num_groups: int, eps: float
) -> torch.Tensor:
    if norm.wants_gradient(x_BCHW, weight_C, bias_C):
        return _GroupNormActPool.apply(x_BCHW, weight_C, bias_C, num_groups, eps)
    return _forward(x_BCHW, weight_C, bias_C, num_groups, eps, False)[0]


def _forward(
    x_BCHW: torch.Tensor, weight_C: torch.Tensor, bias_C: torch.Tensor, num_groups: int, eps: float, for_backward: bool
) -> tuple[torch.Tensor, torch.Tensor | None, torch.Tensor | None, torch.Tensor]:
    """y; what the backward pass needs: the x that each maximum came from and its place in the window; statistics."""
    B, C, H, W = x_BCHW.shape
    shape = (B, C, (H + 1) // 2, (W + 1) // 2)
    y_BCHW = torch.empty(shape, dtype=torch.float32, memory_format=_LAST)
    picked = torch.empty_like(y_BCHW) if for_backward else None
    index = torch.empty(shape, dtype=torch.uint8, memory_format=_LAST) if for_backward else None
    statistics = torch.empty((2, B, num_groups), dtype=torch.float32)
    native.require().group_norm_act_pool_forward(
        to_dlpack(x_BCHW),
        to_dlpack(weight_C.contiguous()),
        to_dlpack(bias_C.contiguous()),
        to_dlpack(y_BCHW),
        None if picked is None else to_dlpack(picked),
        None if index is None else to_dlpack(index),
        to_dlpack(statistics),
        num_groups,
        eps,
        torch.get_num_threads(),
    )
    return y_BCHW, picked, index, statistics


class _GroupNormActPool(torch.autograd.Function):
    @staticmethod
    def forward(  # type: ignore[override]
        ctx: Any,
        x_BCHW: torch.Tensor,
        weight_C: torch.Tensor,
        bias_C: torch.Tensor,
        num_groups: int,
        eps: float,
    ) -> torch.Tensor:
        y_BCHW, picked, index, statistics = _forward(x_BCHW, weight_C, bias_C, num_groups, eps, True)
        ctx.save_for_backward(x_BCHW, weight_C, bias_C, picked, index, statistics)
        ctx.num_groups = num_groups
        return y_BCHW

    @staticmethod
    def backward(ctx: Any, dy_BCHW: torch.Tensor) -> tuple[torch.Tensor | None, ...]:  # type: ignore[override]
        if torch.is_grad_enabled():  # create_graph=True
            raise RuntimeError(
                "group_norm_act_pool: the native backend has no second derivative; "
                "run the forward pass inside dispatch.use_backend('reference')"
            )
        x_BCHW, weight_C, bias_C, picked, index, statistics = ctx.saved_tensors
        dx_BCHW = torch.empty_like(x_BCHW, memory_format=_LAST)
        dweight_C, dbias_C = torch.empty_like(weight_C), torch.empty_like(weight_C)
        native.require().group_norm_act_pool_backward(
            to_dlpack(dy_BCHW.contiguous(memory_format=_LAST)),
            to_dlpack(x_BCHW),
            to_dlpack(picked),
            to_dlpack(index),
            to_dlpack(weight_C.contiguous()),
            to_dlpack(bias_C.contiguous()),
            to_dlpack(statistics),
            to_dlpack(dx_BCHW),
            to_dlpack(dweight_C),
            to_dlpack(dbias_C),
            ctx.num_groups,
            torch.get_num_threads(),
        )
        return dx_BCHW, dweight_C, dbias_C, None, None
