"""group_norm_act_pool by Triton: CUDA GPUs, bfloat16 or float32 activations, channels_last, float32 statistics.

One kernel forward, which writes only the pooled pixels and, where a gradient is wanted, which tap of each window won;
one backward, in which every pixel collects from the windows that cover it: no atomics, the same input gives the same
bits.
"""

from __future__ import annotations

from typing import Any

import torch

from ptr_fast.kernels.group_norm_act.slab import plan
from ptr_fast.kernels.group_norm_act.triton import why_not
from ptr_fast.kernels.group_norm_act_pool import triton_kernels as kernels

__all__ = ["group_norm_act_pool", "supports"]

_LAST = torch.channels_last


def supports(
    x_BCHW: torch.Tensor, weight_C: torch.Tensor, bias_C: torch.Tensor, num_groups: int, eps: float
) -> str | None:
    """None where the Triton kernels can run, else why not (where they may run at all is asked before).

    A tensor may start at any address.
    """
    return why_not(x_BCHW, None, weight_C, bias_C)


def group_norm_act_pool(
    x_BCHW: torch.Tensor, weight_C: torch.Tensor, bias_C: torch.Tensor, num_groups: int, eps: float
) -> torch.Tensor:
    return _GroupNormActPool.apply(x_BCHW, weight_C, bias_C, num_groups, eps)


class _GroupNormActPool(torch.autograd.Function):
    @staticmethod
    def forward(  # type: ignore[override]
        ctx: Any, x_BCHW: torch.Tensor, weight_C: torch.Tensor, bias_C: torch.Tensor, num_groups: int, eps: float
    ) -> torch.Tensor:
        B, C, H, W = x_BCHW.shape
        launch = plan("pool_forward", x_BCHW.dtype, H * W, C, num_groups)
        weight_C, bias_C = weight_C.contiguous(), bias_C.contiguous()
        y_BCHW = torch.empty(
            (B, C, (H + 1) // 2, (W + 1) // 2), dtype=x_BCHW.dtype, device=x_BCHW.device, memory_format=_LAST
        )
        wanted = any(ctx.needs_input_grad)
        argmax_BCHW = torch.empty_like(y_BCHW, dtype=torch.int8) if wanted else None
        moments = x_BCHW.new_empty((B, num_groups, 2), dtype=torch.float32)
        kernels.forward[(B * launch.blocks_per_image,)](
            x_BCHW,
            weight_C,
            bias_C,
            y_BCHW,
            y_BCHW if argmax_BCHW is None else argmax_BCHW,
            moments,
            eps,
            H=H,
            W=W,
            C=C,
            G=num_groups,
            ARGMAX=wanted,
            **launch.tile,
            num_warps=launch.num_warps,
        )
        ctx.save_for_backward(x_BCHW, weight_C, moments, argmax_BCHW)
        ctx.num_groups = num_groups
        return y_BCHW

    @staticmethod
    def backward(ctx: Any, dy_BCHW: torch.Tensor) -> tuple[torch.Tensor | None, ...]:  # type: ignore[override]
        if torch.is_grad_enabled():  # create_graph=True
            raise RuntimeError(
                "group_norm_act_pool: the triton backend has no second derivative; "
                "run the forward pass inside dispatch.use_backend('reference')"
            )
        x_BCHW, weight_C, moments, argmax_BCHW = ctx.saved_tensors
        B, C, H, W = x_BCHW.shape
        launch = plan("pool_backward", x_BCHW.dtype, H * W, C, ctx.num_groups)
        dx_BCHW = torch.empty_like(x_BCHW, memory_format=_LAST)
        partial = x_BCHW.new_empty((B, 2, C), dtype=torch.float32)
        kernels.backward[(B * launch.blocks_per_image,)](
            dy_BCHW.contiguous(memory_format=_LAST),
            argmax_BCHW,
            x_BCHW,
            weight_C,
            moments,
            dx_BCHW,
            partial,
            H=H,
            W=W,
            C=C,
            G=ctx.num_groups,
            **{name: launch.tile[name] for name in ("P", "GB", "DP")},
            num_warps=launch.num_warps,
        )
        sums = partial.sum(dim=0)
        return dx_BCHW, sums[0], sums[1], None, None
