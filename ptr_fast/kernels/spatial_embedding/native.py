"""spatial_embedding by csrc/kernels/spatial_embedding: CPU, float32 (x is converted), channels_last, not transposed."""

from __future__ import annotations

from typing import Any

import torch
from torch.utils.dlpack import to_dlpack

from ptr_fast import native

__all__ = ["spatial_embedding", "supports"]


def supports(x_BCHW: torch.Tensor, kernel_CPF: torch.Tensor) -> str | None:
    """None where the native kernel can run, else why not."""
    if native.module() is None:
        return native.why_missing()
    for name, tensor in (("x", x_BCHW), ("kernel", kernel_CPF)):
        if tensor.device.type != "cpu":
            return f"{name} is on {tensor.device.type}, the native kernel is for the CPU"
        if tensor.dtype != torch.float32 and not (name == "x" and tensor.dtype == torch.bfloat16):
            return f"{name} is {str(tensor.dtype).removeprefix('torch.')}, the native kernel is for float32"
    if not x_BCHW.is_contiguous(memory_format=torch.channels_last):
        return f"x has strides {tuple(x_BCHW.stride())}, the native kernel is for channels_last"
    lanes = native.require().spatial_embedding_lanes()
    if x_BCHW.shape[1] % lanes != 0:
        return f"{x_BCHW.shape[1]} channels, the native kernel is for multiples of {lanes}"
    if x_BCHW.numel() == 0 or kernel_CPF.numel() == 0:
        return "x or kernel is empty"
    return None


def spatial_embedding(x_BCHW: torch.Tensor, kernel_CPF: torch.Tensor) -> torch.Tensor:
    return _SpatialEmbedding.apply(x_BCHW.to(kernel_CPF.dtype), kernel_CPF)


class _SpatialEmbedding(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x_BCHW: torch.Tensor, kernel_CPF: torch.Tensor) -> torch.Tensor:
        kernel_CPF = kernel_CPF.contiguous()
        ctx.save_for_backward(x_BCHW, kernel_CPF)
        out = torch.empty((x_BCHW.shape[0], kernel_CPF.shape[0] * kernel_CPF.shape[2]), dtype=torch.float32)
        native.require().spatial_embedding_forward(
            to_dlpack(x_BCHW), to_dlpack(kernel_CPF), to_dlpack(out), torch.get_num_threads()
        )
        return out

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, grad_out: torch.Tensor) -> tuple[torch.Tensor | None, torch.Tensor | None]:
        x_BCHW, kernel_CPF = ctx.saved_tensors
        dx = torch.empty_like(x_BCHW, memory_format=torch.channels_last) if ctx.needs_input_grad[0] else None
        dkernel = torch.empty_like(kernel_CPF) if ctx.needs_input_grad[1] else None
        native.require().spatial_embedding_backward(
            to_dlpack(grad_out.contiguous()),
            to_dlpack(x_BCHW),
            to_dlpack(kernel_CPF),
            None if dx is None else to_dlpack(dx),
            None if dkernel is None else to_dlpack(dkernel),
            torch.get_num_threads(),
        )
        return dx, dkernel
