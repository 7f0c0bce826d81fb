"""One matrix product per channel, with the transposes that channels_last memory needs done once and in bulk."""

from __future__ import annotations

from typing import Any

import torch

__all__ = ["spatial_embedding", "supports"]


def supports(x_BCHW: torch.Tensor, kernel_CPF: torch.Tensor) -> str | None:
    """None: it can always run."""
    return None


def spatial_embedding(x_BCHW: torch.Tensor, kernel_CPF: torch.Tensor) -> torch.Tensor:
    """See :func:`ptr_fast.kernels.spatial_embedding.spatial_embedding`."""
    return _SpatialEmbedding.apply(x_BCHW.to(kernel_CPF.dtype), kernel_CPF)


class _SpatialEmbedding(torch.autograd.Function):
    """Keeps the map as it came (the layer before keeps it too) and transposes it again on the way back."""

    @staticmethod
    def forward(ctx: Any, x_BCHW: torch.Tensor, kernel_CPF: torch.Tensor) -> torch.Tensor:
        ctx.save_for_backward(x_BCHW, kernel_CPF)
        out_CBF = torch.bmm(_channels_first(x_BCHW), kernel_CPF)
        return out_CBF.transpose(0, 1).reshape(x_BCHW.shape[0], -1)

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, grad_out: torch.Tensor) -> tuple[torch.Tensor | None, torch.Tensor | None]:
        x_BCHW, kernel_CPF = ctx.saved_tensors
        num_batch, num_channels, height, width = x_BCHW.shape
        grad_CBF = grad_out.view(num_batch, num_channels, -1).transpose(0, 1).contiguous()
        grad_x = grad_kernel = None
        if ctx.needs_input_grad[0]:
            grad_CBP = torch.bmm(grad_CBF, kernel_CPF.transpose(1, 2))
            if x_BCHW.is_contiguous(memory_format=torch.channels_last):
                grad_x = grad_CBP.view(num_channels, -1).t().contiguous().view(num_batch, height, width, num_channels)
                grad_x = grad_x.permute(0, 3, 1, 2)
            else:
                grad_x = grad_CBP.transpose(0, 1).reshape(x_BCHW.shape)
        if ctx.needs_input_grad[1]:
            grad_kernel = torch.bmm(_channels_first(x_BCHW).transpose(1, 2), grad_CBF)
        return grad_x, grad_kernel


def _channels_first(x_BCHW: torch.Tensor) -> torch.Tensor:
    """``[C, B, P]`` with pixels next to each other in memory."""
    return x_BCHW.contiguous().flatten(2).transpose(0, 1)
