"""group_norm_act by csrc/kernels/group_norm_act: CPU, float32, channels_last.

Note "Little around the kernel". Below about a megabyte the kernel takes tens of microseconds, as long as what surrounds
it: without gradients no autograd function is entered, and what only the kernel needs again stays in the native module.
"""

from __future__ import annotations

from typing import Any

import torch
from torch.utils.dlpack import to_dlpack

from ptr_fast import native

__all__ = ["group_norm_act", "supports", "wants_gradient"]

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
    given = {"x": x_BCHW, "weight": weight_C, "bias": bias_C, "residual": residual_BCHW}
    given |= {"residual_weight": residual_weight_C, "residual_bias": residual_bias_C}
    for name, tensor in given.items():
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
    relu = activation == "relu"
    if residual_BCHW is not None:
        residual_BCHW = residual_BCHW.contiguous(memory_format=_LAST)
    if residual_weight_C is not None and residual_bias_C is not None:
        residual_weight_C, residual_bias_C = residual_weight_C.contiguous(), residual_bias_C.contiguous()
    weight_C, bias_C = weight_C.contiguous(), bias_C.contiguous()
    tensors = (x_BCHW, weight_C, bias_C, residual_BCHW, residual_weight_C, residual_bias_C)
    if wants_gradient(*tensors):
        return _GroupNormAct.apply(*tensors, num_groups, eps, relu)
    return _forward(*tensors, num_groups, eps, relu)[0]


def wants_gradient(*tensors: torch.Tensor | None) -> bool:
    """Whether autograd would record an operation on these tensors."""
    return torch.is_grad_enabled() and any(tensor is not None and tensor.requires_grad for tensor in tensors)


def _forward(
    x_BCHW: torch.Tensor,
    weight_C: torch.Tensor,
    bias_C: torch.Tensor,
    residual_BCHW: torch.Tensor | None,
    residual_weight_C: torch.Tensor | None,
    residual_bias_C: torch.Tensor | None,
    num_groups: int,
    eps: float,
    relu: bool,
    keep_mask: bool = False,
) -> tuple[torch.Tensor, Any]:
    """y, and what the native backward pass keeps: the statistics, with ``keep_mask`` also the bits of y > 0."""
    y_BCHW = torch.empty_like(x_BCHW)
    kept = native.require().group_norm_act_forward(
        to_dlpack(x_BCHW),
        to_dlpack(weight_C),
        to_dlpack(bias_C),
        _capsule(residual_BCHW),
        _capsule(residual_weight_C),
        _capsule(residual_bias_C),
        to_dlpack(y_BCHW),
        keep_mask,
        num_groups,
        eps,
        relu,
        torch.get_num_threads(),
    )
    return y_BCHW, kept


def _capsule(tensor: torch.Tensor | None) -> Any:
    return None if tensor is None else to_dlpack(tensor)


class _GroupNormAct(torch.autograd.Function):
    @staticmethod
    def forward(  # type: ignore[override]
        ctx: Any,
        x_BCHW: torch.Tensor,
        weight_C: torch.Tensor,
        bias_C: torch.Tensor,
        residual_BCHW: torch.Tensor | None,
        residual_weight_C: torch.Tensor | None,
        residual_bias_C: torch.Tensor | None,
        num_groups: int,
        eps: float,
        relu: bool,
    ) -> torch.Tensor:
        # The backward pass needs the mask of the activation. Without a residual it finds it from x again, cheaper than
        # reading anything; with one, a bit per element is a 32nd of reading y (whole bytes need 16 channels).
        needs_mask = relu and residual_BCHW is not None
        bits = needs_mask and x_BCHW.shape[1] % 16 == 0
        y_BCHW, ctx.kept = _forward(
            x_BCHW, weight_C, bias_C, residual_BCHW, residual_weight_C, residual_bias_C, num_groups, eps, relu, bits
        )
        ctx.save_for_backward(
            x_BCHW,
            weight_C,
            bias_C,
            residual_weight_C,
            residual_BCHW if residual_weight_C is not None else None,
            y_BCHW if needs_mask and not bits else None,
        )
        ctx.relu, ctx.has_residual = relu, residual_BCHW is not None
        return y_BCHW

    @staticmethod
    def backward(ctx: Any, dy_BCHW: torch.Tensor) -> tuple[torch.Tensor | None, ...]:  # type: ignore[override]
        if torch.is_grad_enabled():  # create_graph=True
            raise RuntimeError(
                "group_norm_act: the native backend has no second derivative; "
                "run the forward pass inside dispatch.use_backend('reference')"
            )
        x_BCHW, weight_C, bias_C, residual_weight_C, shortcut_BCHW, y_BCHW = ctx.saved_tensors
        dy_BCHW = dy_BCHW.contiguous(memory_format=_LAST)
        dx_BCHW = torch.empty_like(x_BCHW)
        dweight_C, dbias_C = torch.empty_like(weight_C), torch.empty_like(weight_C)
        dresidual_BCHW = dresidual_weight_C = dresidual_bias_C = None
        # Without norm and activation of its own the gradient of the residual is dy itself.
        if shortcut_BCHW is not None:
            dresidual_BCHW = torch.empty_like(dx_BCHW)
            dresidual_weight_C, dresidual_bias_C = torch.empty_like(weight_C), torch.empty_like(weight_C)
        elif ctx.relu and ctx.needs_input_grad[3]:
            dresidual_BCHW = torch.empty_like(dx_BCHW)
        native.require().group_norm_act_backward(
            ctx.kept,
            to_dlpack(dy_BCHW),
            to_dlpack(x_BCHW),
            _capsule(shortcut_BCHW),
            _capsule(y_BCHW),
            to_dlpack(weight_C),
            to_dlpack(bias_C),
            _capsule(residual_weight_C),
            to_dlpack(dx_BCHW),
            _capsule(dresidual_BCHW),
            to_dlpack(dweight_C),
            to_dlpack(dbias_C),
            _capsule(dresidual_weight_C),
            _capsule(dresidual_bias_C),
            ctx.relu,
            torch.get_num_threads(),
        )
        if ctx.has_residual and dresidual_BCHW is None and not ctx.relu:
            dresidual_BCHW = dy_BCHW
        return (
            dx_BCHW, dweight_C, dbias_C, dresidual_BCHW, dresidual_weight_C, dresidual_bias_C, None, None, None
        )  # fmt: skip
