"""adam_polyak by csrc/kernels/adam_polyak: CPU, float32."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch.utils.dlpack import to_dlpack

from ptr_fast import native
from ptr_fast.kernels.adam_polyak.operands import Operands

__all__ = ["adam_polyak", "supports"]


def supports(operands: Operands) -> str | None:
    """None where the native kernel can run, else why not."""
    if native.module() is None:
        return native.why_missing()
    if operands.device.type != "cpu":
        return f"parameters are on {operands.device.type}, the native kernel is for the CPU"
    if operands.dtype != torch.float32:
        return f"parameters are {str(operands.dtype).removeprefix('torch.')}, the native kernel is for float32"
    if not operands.is_dense:
        return "a parameter is neither contiguous nor channels_last"
    return None


def adam_polyak(
    operands: Operands,
    gradients: Sequence[torch.Tensor | None],
    lr: float | torch.Tensor,
    betas: tuple[float, float],
    eps: float,
    tau: float,
    weight_decay: float,
    max_grad_norm: float,
) -> None:
    laid_out = operands.laid_out(gradients)  # kept until the call is over
    is_regularised = weight_decay or max_grad_norm
    options = {"weight_decay": weight_decay, "max_grad_norm": max_grad_norm} if is_regularised else {}
    native.require().adam_polyak(
        to_dlpack(operands.tables_5N),
        to_dlpack(operands.gradient_addresses_N(laid_out)[0]),
        to_dlpack(operands.steps_N),
        float(lr),
        *betas,
        eps,
        tau,
        torch.get_num_threads(),
        **options,
    )
