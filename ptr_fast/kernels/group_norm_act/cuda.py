"""group_norm_act by csrc/kernels/group_norm_act.cu: CUDA GPUs, bfloat16 or float32, channels_last, float32 statistics.

One read and one write of every tensor: slabs stay in shared memory, a cluster of blocks shares those that are larger
(:mod:`ptr_fast.kernels.group_norm_act.blocks`). With a residual the forward pass keeps one bit an element for the mask
of the ReLU; without one the backward pass finds it again. Sums are in a fixed order: the same input, the same bits.
"""

from __future__ import annotations

from typing import Any

import torch

from ptr_fast import native
from ptr_fast.kernels.cuda_backend import stream
from ptr_fast.kernels.group_norm_act.blocks import Blocks, Kind, limits_of, plan
from ptr_fast.kernels.group_norm_act.native import wants_gradient

__all__ = ["address", "aligned", "blocks", "group_norm_act", "launch_shape", "supports", "why_not"]

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
    """None where the CUDA kernels can run, else why not (where they may run at all is asked before).

    A tensor may start at any address: one that does not start at a multiple of 16 bytes is copied.
    """
    norm = residual_weight_C is not None
    kinds: tuple[Kind, ...] = ("forward_norm", "backward_norm") if norm else ("forward", "backward")
    return why_not(kinds, x_BCHW, num_groups, residual_BCHW, weight_C, bias_C, residual_weight_C, residual_bias_C)


def why_not(
    kinds: tuple[Kind, ...],
    x_BCHW: torch.Tensor,
    num_groups: int,
    residual_BCHW: torch.Tensor | None,
    *channels_C: torch.Tensor | None,
) -> str | None:
    """Why the kernels do not take tensors of these shapes, dtypes and layouts on this GPU, or None."""
    if x_BCHW.dtype not in (torch.bfloat16, torch.float32):
        return f"x is {_name(x_BCHW)}, the CUDA kernels are for bfloat16 and float32"
    if residual_BCHW is not None and residual_BCHW.dtype != x_BCHW.dtype:
        return f"the residual is {_name(residual_BCHW)}, x is {_name(x_BCHW)}"
    for tensor in channels_C:
        if tensor is not None and tensor.dtype != torch.float32:
            return f"weight or bias is {_name(tensor)}, the CUDA kernels want float32"
    if not x_BCHW.is_contiguous(memory_format=_LAST):
        return f"x has strides {tuple(x_BCHW.stride())}, the CUDA kernels are for channels_last"
    if x_BCHW.numel() == 0:
        return "x is empty"
    if x_BCHW[0].numel() >= 2**31:
        return f"an image has {x_BCHW[0].numel()} elements, offsets inside one are 32-bit"
    reasons = (_plan(kind, x_BCHW, num_groups) for kind in kinds)
    return next((reason for reason in reasons if isinstance(reason, str)), None)


def _name(tensor: torch.Tensor) -> str:
    return str(tensor.dtype).removeprefix("torch.")


def _plan(kind: Kind, x_BCHW: torch.Tensor, num_groups: int) -> Blocks | str:
    B, C, H, W = x_BCHW.shape
    return plan(kind, x_BCHW.element_size(), B, (H, W), C, num_groups, limits_of(x_BCHW.device))


def blocks(kind: Kind, x_BCHW: torch.Tensor, num_groups: int) -> Blocks:
    """The launch for x, which :func:`why_not` has let through."""
    found = _plan(kind, x_BCHW, num_groups)
    if isinstance(found, str):
        raise RuntimeError(found)
    return found


def launch_shape(kind: Kind, x_BCHW: torch.Tensor, num_groups: int) -> Any:
    """What the native module wants to know of x and of its launch."""
    B, C, H, W = x_BCHW.shape
    chosen = blocks(kind, x_BCHW, num_groups)
    return native.require().GroupNormCudaShape(
        x_BCHW.dtype == torch.bfloat16, B, H, W, C, num_groups, chosen.width, chosen.pixels, chosen.cluster
    )


def aligned(tensor: torch.Tensor) -> torch.Tensor:
    """The tensor in channels_last memory that starts at a multiple of 16 bytes; a copy where it does not."""
    tensor = tensor.contiguous(memory_format=_LAST)
    return tensor if tensor.data_ptr() % 16 == 0 else tensor.clone(memory_format=_LAST)


def address(tensor: torch.Tensor | None) -> int:
    """Where a tensor starts, 0 for none."""
    return 0 if tensor is None else tensor.data_ptr()


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
    tensors = (x_BCHW, weight_C, bias_C, residual_BCHW, residual_weight_C, residual_bias_C)
    if wants_gradient(*tensors):
        return _GroupNormAct.apply(*tensors, num_groups, eps, relu)
    return _forward(*tensors, num_groups, eps, relu, keep_mask=False)[0]


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
    keep_mask: bool,
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor | None, tuple[torch.Tensor | None, ...]]:
    """y, moments, mask, and the tensors as the kernel has read them."""
    B, C, H, W = x_BCHW.shape
    norm = residual_weight_C is not None
    x_BCHW, weight_C, bias_C = aligned(x_BCHW), weight_C.contiguous(), bias_C.contiguous()
    if residual_BCHW is not None:
        residual_BCHW = aligned(residual_BCHW)
    if residual_weight_C is not None and residual_bias_C is not None:
        residual_weight_C, residual_bias_C = residual_weight_C.contiguous(), residual_bias_C.contiguous()
    y_BCHW = torch.empty_like(x_BCHW, memory_format=_LAST)
    moments = x_BCHW.new_empty((B, num_groups, 4 if norm else 2), dtype=torch.float32)
    positive = None
    if keep_mask:  # bits of y > 0, a byte for every 16 bytes of y
        positive = x_BCHW.new_empty((B, H * W, C * x_BCHW.element_size() // 16), dtype=torch.uint8)
    native.require().group_norm_act_cuda_forward(
        launch_shape("forward_norm" if norm else "forward", x_BCHW, num_groups),
        address(x_BCHW),
        address(residual_BCHW),
        address(weight_C),
        address(bias_C),
        address(residual_weight_C),
        address(residual_bias_C),
        address(y_BCHW),
        address(moments),
        address(positive),
        eps,
        relu,
        stream(x_BCHW.device),
    )
    return y_BCHW, moments, positive, (x_BCHW, weight_C, bias_C, residual_BCHW, residual_weight_C)


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
        ctx.num_groups, ctx.relu = num_groups, relu
        ctx.added, ctx.norm = residual_BCHW is not None, residual_weight_C is not None
        y_BCHW, moments, positive, read = _forward(
            x_BCHW, weight_C, bias_C, residual_BCHW, residual_weight_C, residual_bias_C, num_groups, eps, relu,
            keep_mask=relu and ctx.added,
        )  # fmt: skip
        x_BCHW, weight_C, bias_C, residual_BCHW, residual_weight_C = read  # type: ignore[assignment]
        ctx.save_for_backward(
            x_BCHW, weight_C, bias_C, residual_BCHW if ctx.norm else None, residual_weight_C, moments, positive
        )
        return y_BCHW

    @staticmethod
    def backward(ctx: Any, dy_BCHW: torch.Tensor) -> tuple[torch.Tensor | None, ...]:  # type: ignore[override]
        if torch.is_grad_enabled():  # create_graph=True
            raise RuntimeError(
                "group_norm_act: the cuda backend has no second derivative; "
                "run the forward pass inside dispatch.use_backend('reference')"
            )
        x_BCHW, weight_C, bias_C, residual_BCHW, residual_weight_C, moments, positive = ctx.saved_tensors
        dy_BCHW = aligned(dy_BCHW)
        dx_BCHW = torch.empty_like(x_BCHW, memory_format=_LAST)
        # Without an activation the gradient of a residual that is only added is dy itself.
        own = ctx.norm or (ctx.added and ctx.relu)
        dresidual_BCHW = torch.empty_like(dx_BCHW) if own else dy_BCHW if ctx.added else None
        partial = x_BCHW.new_empty((x_BCHW.shape[0], 3 if ctx.norm else 2, x_BCHW.shape[1]), dtype=torch.float32)
        native.require().group_norm_act_cuda_backward(
            launch_shape("backward_norm" if ctx.norm else "backward", x_BCHW, ctx.num_groups),
            ctx.added,
            address(dy_BCHW),
            address(x_BCHW),
            address(residual_BCHW),
            address(weight_C),
            address(bias_C),
            address(residual_weight_C),
            address(moments),
            address(positive),
            address(dx_BCHW),
            address(dresidual_BCHW) if own else 0,
            address(partial),
            ctx.relu,
            stream(x_BCHW.device),
        )
        sums = partial.sum(dim=0)
        dresidual_weight_C = sums[2] if ctx.norm else None
        # Both biases see the same gradient; a copy, because the optimiser's gradients must not share memory.
        dresidual_bias_C = sums[1].clone() if ctx.norm else None
        return (
            dx_BCHW, sums[0], sums[1], dresidual_BCHW, dresidual_weight_C, dresidual_bias_C, None, None, None
        )  # fmt: skip
