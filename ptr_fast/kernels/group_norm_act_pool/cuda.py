"""group_norm_act_pool by csrc/kernels/group_norm_act_pool.cu: CUDA GPUs, bfloat16 or float32, channels_last.

As :mod:`ptr_fast.kernels.group_norm_act.cuda`; a block owns pairs of rows and the windows that begin there. Where a
gradient is wanted the forward pass keeps which tap of each window won, four bits (float32: eight) a channel; in the
backward pass every pixel collects from the windows that cover it: no atomics, the same input gives the same bits.
"""

from __future__ import annotations

from typing import Any

import torch

from ptr_fast import native
from ptr_fast.kernels.cuda_backend import stream
from ptr_fast.kernels.group_norm_act.cuda import address, aligned, launch_shape, why_not
from ptr_fast.kernels.group_norm_act.native import wants_gradient

__all__ = ["group_norm_act_pool", "supports"]

_LAST = torch.channels_last


def supports(
    x_BCHW: torch.Tensor, weight_C: torch.Tensor, bias_C: torch.Tensor, num_groups: int, eps: float
) -> str | None:
    """None where the CUDA kernels can run, else why not (where they may run at all is asked before).

    A tensor may start at any address: one that does not start at a multiple of 16 bytes is copied.
    """
    return why_not(("pool_forward", "pool_backward"), x_BCHW, num_groups, None, weight_C, bias_C)


def group_norm_act_pool(
    x_BCHW: torch.Tensor, weight_C: torch.Tensor, bias_C: torch.Tensor, num_groups: int, eps: float
) -> torch.Tensor:
    if wants_gradient(x_BCHW, weight_C, bias_C):
        return _GroupNormActPool.apply(x_BCHW, weight_C, bias_C, num_groups, eps)
    return _forward(aligned(x_BCHW), weight_C.contiguous(), bias_C.contiguous(), num_groups, eps, keep_taps=False)[0]


def _forward(
    x_BCHW: torch.Tensor, weight_C: torch.Tensor, bias_C: torch.Tensor, num_groups: int, eps: float, keep_taps: bool
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor | None]:
    """y, moments, taps."""
    B, C, H, W = x_BCHW.shape
    HO, WO = (H + 1) // 2, (W + 1) // 2
    y_BCHW = torch.empty((B, C, HO, WO), dtype=x_BCHW.dtype, device=x_BCHW.device, memory_format=_LAST)
    moments = x_BCHW.new_empty((B, num_groups, 2), dtype=torch.float32)
    taps = None
    if keep_taps:  # a word for every 16 bytes of y
        taps = x_BCHW.new_empty((B, HO * WO, C * x_BCHW.element_size() // 16), dtype=torch.int32)
    native.require().group_norm_act_pool_cuda_forward(
        launch_shape("pool_forward", x_BCHW, num_groups),
        address(x_BCHW),
        address(weight_C),
        address(bias_C),
        address(y_BCHW),
        address(taps),
        address(moments),
        eps,
        stream(x_BCHW.device),
    )
    return y_BCHW, moments, taps


class _GroupNormActPool(torch.autograd.Function):
    @staticmethod
    def forward(  # type: ignore[override]
        ctx: Any, x_BCHW: torch.Tensor, weight_C: torch.Tensor, bias_C: torch.Tensor, num_groups: int, eps: float
    ) -> torch.Tensor:
        x_BCHW, weight_C = aligned(x_BCHW), weight_C.contiguous()
        y_BCHW, moments, taps = _forward(x_BCHW, weight_C, bias_C.contiguous(), num_groups, eps, keep_taps=True)
        ctx.save_for_backward(x_BCHW, weight_C, moments, taps)
        ctx.num_groups = num_groups
        return y_BCHW

    @staticmethod
    def backward(ctx: Any, dy_BCHW: torch.Tensor) -> tuple[torch.Tensor | None, ...]:  # type: ignore[override]
        if torch.is_grad_enabled():  # create_graph=True
            raise RuntimeError(
                "group_norm_act_pool: the cuda backend has no second derivative; "
                "run the forward pass inside dispatch.use_backend('reference')"
            )
        x_BCHW, weight_C, moments, taps = ctx.saved_tensors
        dy_BCHW = aligned(dy_BCHW)
        dx_BCHW = torch.empty_like(x_BCHW, memory_format=_LAST)
        partial = x_BCHW.new_empty((x_BCHW.shape[0], 2, x_BCHW.shape[1]), dtype=torch.float32)
        native.require().group_norm_act_pool_cuda_backward(
            launch_shape("pool_backward", x_BCHW, ctx.num_groups),
            address(dy_BCHW),
            address(x_BCHW),
            address(taps),
            address(weight_C),
            address(moments),
            address(dx_BCHW),
            address(partial),
            stream(x_BCHW.device),
        )
        sums = partial.sum(dim=0)
        return dx_BCHW, sums[0], sums[1], None, None
