"""group_norm_act by csrc/kernels/group_norm_act: CPU, float32, channels_last."""

from __future__ import annotations

from typing import Any

import torch
from torch.utils.dlpack import to_dlpack

from ptr_fast import native

__all__ = ["group_norm_act", "supports"]

_LAST = torch.channels_last


def supports(
    x_BCHW: torch.Tensor,
    weight_C: torch.Tensor,
    bias_C: torch.Tensor,
    num_groups: int,
    eps: float,
    residual_BCHW: torch.Tensor | None,
    activation: str,
    residual_weight_C: torch.Tensor | None = None,
    residual_bias_C: torch.Tensor | None = None,
) -> str | None:
    """None where the native kernel can run, else why not."""
    if native.module() is None:
        return native.why_missing()
    for name, tensor in (("x", x_BCHW), ("weight", weight_C), ("bias", bias_C), ("residual", residual_BCHW)):
        if tensor is None:
            continue
        if tensor.device.type != "cpu":
            return f"{name} is on {tensor.device.type}, the native kernel is for the CPU"
        if tensor.dtype != torch.float32:
            return f"{name} is {str(tensor.dtype).removeprefix('torch.')}, the native kernel is for float32"
    if not x_BCHW.is_contiguous(memory_format=_LAST):
        return f"x has strides {tuple(x_BCHW.stride())}, the native kernel is for channels_last"
    if x_BCHW.numel() == 0:
        return "x is empty"
    return None


def group_norm_act(
    x_BCHW: torch.Tensor,
    weight_C: torch.Tensor,
    bias_C: torch.Tensor,
    num_groups: int,
    eps: float,
    residual_BCHW: torch.Tensor | None,
    activation: str,
    residual_weight_C: torch.Tensor | None = None,
    residual_bias_C: torch.Tensor | None = None,
) -> torch.Tensor:
    if residual_weight_C is not None:
        residual_BCHW = _GroupNormAct.apply(
            residual_BCHW, residual_weight_C, residual_bias_C, num_groups, eps, None, False
        )
    return _GroupNormAct.apply(x_BCHW, weight_C, bias_C, num_groups, eps, residual_BCHW, activation == "relu")


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
    ) -> torch.Tensor:
        y_BCHW = torch.empty_like(x_BCHW, memory_format=_LAST)
        mean_BG = torch.empty((x_BCHW.shape[0], num_groups), dtype=torch.float32)
        rstd_BG = torch.empty_like(mean_BG)
        weight_C, bias_C = weight_C.contiguous(), bias_C.contiguous()
        native.require().group_norm_act_forward(
            to_dlpack(x_BCHW),
            to_dlpack(weight_C),
            to_dlpack(bias_C),
            None if residual_BCHW is None else to_dlpack(residual_BCHW.contiguous(memory_format=_LAST)),
            to_dlpack(y_BCHW),
            to_dlpack(mean_BG),
            to_dlpack(rstd_BG),
            num_groups,
            eps,
            relu,
            torch.get_num_threads(),
        )
        # With a residual, y > 0 is the mask of the activation; without one the kernel finds the mask from x again.
        has_residual = residual_BCHW is not None
        ctx.save_for_backward(x_BCHW, weight_C, bias_C, mean_BG, rstd_BG, y_BCHW if relu and has_residual else None)
        ctx.num_groups, ctx.relu, ctx.has_residual = num_groups, relu, has_residual
        return y_BCHW

    @staticmethod
    def backward(ctx: Any, dy_BCHW: torch.Tensor) -> tuple[torch.Tensor | None, ...]:  # type: ignore[override]
        if torch.is_grad_enabled():  # create_graph=True
            raise RuntimeError(
                "group_norm_act: the native backend has no second derivative; "
                "run the forward pass inside dispatch.use_backend('reference')"
            )
        x_BCHW, weight_C, bias_C, mean_BG, rstd_BG, y_BCHW = ctx.saved_tensors
        dy_BCHW = dy_BCHW.contiguous(memory_format=_LAST)
        dx_BCHW = torch.empty_like(x_BCHW, memory_format=_LAST)
        dweight_C, dbias_C = torch.empty_like(weight_C), torch.empty_like(weight_C)
        # Without an activation the gradient of the residual is dy itself.
        masked = torch.empty_like(dx_BCHW) if ctx.relu and ctx.has_residual and ctx.needs_input_grad[5] else None
        native.require().group_norm_act_backward(
            to_dlpack(dy_BCHW),
            to_dlpack(x_BCHW),
            None if y_BCHW is None else to_dlpack(y_BCHW),
            to_dlpack(weight_C),
            to_dlpack(bias_C),
            to_dlpack(mean_BG),
            to_dlpack(rstd_BG),
            to_dlpack(dx_BCHW),
            to_dlpack(dweight_C),
            to_dlpack(dbias_C),
            None if masked is None else to_dlpack(masked),
            ctx.num_groups,
            ctx.relu,
            torch.get_num_threads(),
        )
        dresidual_BCHW = masked if ctx.relu else dy_BCHW if ctx.has_residual else None
        return dx_BCHW, dweight_C, dbias_C, None, None, dresidual_BCHW, None
