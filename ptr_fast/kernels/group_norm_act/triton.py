"""group_norm_act by Triton: CUDA GPUs, bfloat16 or float32 activations, channels_last, float32 statistics.

One block of threads per image and group, or per few groups where one is narrower than 64 bytes a pixel. A slab that
fits stays in registers (one read, one write); a larger one is read twice, the second time mostly from the caches.
Backward finds the activation's mask again, and sums over images in a fixed order: the same input gives the same bits.
"""

from __future__ import annotations

from typing import Any

import torch

from ptr_fast.kernels.group_norm_act import triton_kernels as kernels
from ptr_fast.kernels.group_norm_act.slab import plan

__all__ = ["group_norm_act", "supports"]

_LAST = torch.channels_last
_NONE, _ADD, _NORM = kernels.NONE.value, kernels.ADD.value, kernels.NORM.value


def supports(
    x_BCHW: torch.Tensor,
    weight_C: torch.Tensor,
    bias_C: torch.Tensor,
    num_groups: int,
    eps: float,
    residual_BCHW: torch.Tensor | None = None,
    activation: str = "relu",
    residual_weight_C: torch.Tensor | None = None,
    residual_bias_C: torch.Tensor | None = None,
) -> str | None:
    """None where the Triton kernels can run, else why not (where they may run at all is asked before).

    A tensor may start at any address.
    """
    return why_not(x_BCHW, residual_BCHW, weight_C, bias_C, residual_weight_C, residual_bias_C)


def why_not(x_BCHW: torch.Tensor, residual_BCHW: torch.Tensor | None, *channels_C: torch.Tensor | None) -> str | None:
    """Why the kernels do not take tensors of these dtypes and layouts, or None."""
    if x_BCHW.dtype not in (torch.bfloat16, torch.float32):
        return f"x is {_name(x_BCHW)}, the Triton kernels are for bfloat16 and float32"
    if residual_BCHW is not None and residual_BCHW.dtype != x_BCHW.dtype:
        return f"the residual is {_name(residual_BCHW)}, x is {_name(x_BCHW)}"
    for tensor in channels_C:
        if tensor is not None and tensor.dtype != torch.float32:
            return f"weight or bias is {_name(tensor)}, the Triton kernels want float32"
    if not x_BCHW.is_contiguous(memory_format=_LAST):
        return f"x has strides {tuple(x_BCHW.stride())}, the Triton kernels are for channels_last"
    if x_BCHW.numel() == 0:
        return "x is empty"
    if x_BCHW[0].numel() >= 2**31:
        return f"an image has {x_BCHW[0].numel()} elements, offsets inside one are 32-bit"
    return None


def _name(tensor: torch.Tensor) -> str:
    return str(tensor.dtype).removeprefix("torch.")


def group_norm_act(
    x_BCHW: torch.Tensor,
    weight_C: torch.Tensor,
    bias_C: torch.Tensor,
    num_groups: int,
    eps: float,
    residual_BCHW: torch.Tensor | None = None,
    activation: str = "relu",
    residual_weight_C: torch.Tensor | None = None,
    residual_bias_C: torch.Tensor | None = None,
) -> torch.Tensor:
    return _GroupNormAct.apply(
        x_BCHW, weight_C, bias_C, num_groups, eps, residual_BCHW, activation == "relu",
        residual_weight_C, residual_bias_C,
    )  # fmt: skip


class _GroupNormAct(torch.autograd.Function):
    @staticmethod
    def forward(  # type: ignore[override]
        ctx: Any,
        x_BCHW: torch.Tensor,
        weight_C: torch.Tensor,
        bias_C: torch.Tensor,
        num_groups: int,
        eps: float,
        residual_BCHW: torch.Tensor | None,
        relu: bool,
        residual_weight_C: torch.Tensor | None,
        residual_bias_C: torch.Tensor | None,
    ) -> torch.Tensor:
        B, C, H, W = x_BCHW.shape
        mode = _NONE if residual_BCHW is None else _ADD if residual_weight_C is None else _NORM
        launch = plan("forward_norm" if mode == _NORM else "forward", x_BCHW.dtype, H * W, C, num_groups)
        weight_C, bias_C = weight_C.contiguous(), bias_C.contiguous()
        if residual_BCHW is not None:
            residual_BCHW = residual_BCHW.contiguous(memory_format=_LAST)
        if residual_weight_C is not None and residual_bias_C is not None:
            residual_weight_C, residual_bias_C = residual_weight_C.contiguous(), residual_bias_C.contiguous()
        y_BCHW = torch.empty_like(x_BCHW, memory_format=_LAST)
        moments = x_BCHW.new_empty((B, num_groups, 4 if mode == _NORM else 2), dtype=torch.float32)
        kernel = kernels.forward_resident if launch.resident else kernels.forward_streamed
        kernel[(B * launch.blocks_per_image,)](
            x_BCHW,
            weight_C,
            bias_C,
            x_BCHW if residual_BCHW is None else residual_BCHW,
            weight_C if residual_weight_C is None else residual_weight_C,
            bias_C if residual_bias_C is None else residual_bias_C,
            y_BCHW,
            moments,
            eps,
            N=H * W,
            C=C,
            G=num_groups,
            RESIDUAL=mode,
            RELU=relu,
            **launch.tile,
            num_warps=launch.num_warps,
        )
        # With a residual that is only added, y > 0 is the mask; else the kernel finds the mask from what it reads.
        ctx.save_for_backward(
            x_BCHW, weight_C, bias_C, moments, y_BCHW if relu and mode == _ADD else None,
            residual_BCHW if mode == _NORM else None, residual_weight_C, residual_bias_C,
        )  # fmt: skip
        ctx.num_groups, ctx.relu, ctx.mode = num_groups, relu, mode
        return y_BCHW

    @staticmethod
    def backward(ctx: Any, dy_BCHW: torch.Tensor) -> tuple[torch.Tensor | None, ...]:  # type: ignore[override]
        if torch.is_grad_enabled():  # create_graph=True
            raise RuntimeError(
                "group_norm_act: the triton backend has no second derivative; "
                "run the forward pass inside dispatch.use_backend('reference')"
            )
        x_BCHW, weight_C, bias_C, moments, y_BCHW, residual_BCHW, residual_weight_C, residual_bias_C = ctx.saved_tensors
        B, C, H, W = x_BCHW.shape
        norm = ctx.mode == _NORM
        launch = plan("backward_norm" if norm else "backward", x_BCHW.dtype, H * W, C, ctx.num_groups)
        dy_BCHW = dy_BCHW.contiguous(memory_format=_LAST)
        dx_BCHW = torch.empty_like(x_BCHW, memory_format=_LAST)
        # Without an activation the gradient of a residual that is only added is dy itself.
        own = norm or (ctx.mode == _ADD and ctx.relu)
        dresidual_BCHW = torch.empty_like(dx_BCHW) if own else dy_BCHW if ctx.mode == _ADD else None
        partial = x_BCHW.new_empty((B, 3 if norm else 2, C), dtype=torch.float32)
        kernel = kernels.backward_resident if launch.resident else kernels.backward_streamed
        kernel[(B * launch.blocks_per_image,)](
            dy_BCHW,
            x_BCHW,
            weight_C,
            bias_C,
            residual_BCHW if norm else x_BCHW,
            residual_weight_C if norm else weight_C,
            residual_bias_C if norm else bias_C,
            x_BCHW if y_BCHW is None else y_BCHW,
            moments,
            dx_BCHW,
            dresidual_BCHW if own else dx_BCHW,
            partial,
            N=H * W,
            C=C,
            G=ctx.num_groups,
            RESIDUAL=ctx.mode,
            RELU=ctx.relu,
            **launch.tile,
            num_warps=launch.num_warps,
        )
        sums = partial.sum(dim=0)
        dresidual_weight_C = sums[2] if norm else None
        # Both biases see the same gradient; a copy, because the optimiser's gradients must not share memory.
        dresidual_bias_C = sums[1].clone() if norm else None
        return (
            dx_BCHW, sums[0], sums[1], None, None, dresidual_BCHW, None, dresidual_weight_C, dresidual_bias_C,
        )  # fmt: skip
