"""The definition: a broadcast product, summed over the map. Runs in any dtype; needs B*H*W*C*F elements of memory."""

from __future__ import annotations

import torch

__all__ = ["spatial_embedding", "supports"]


def supports(x_BCHW: torch.Tensor, kernel_CPF: torch.Tensor) -> str | None:
    """None: the reference can always run."""
    return None


def spatial_embedding(x_BCHW: torch.Tensor, kernel_CPF: torch.Tensor) -> torch.Tensor:
    """See :func:`ptr_fast.kernels.spatial_embedding.spatial_embedding`."""
    x_BCP = x_BCHW.flatten(2).to(kernel_CPF.dtype)
    return (x_BCP[..., None] * kernel_CPF).sum(dim=2).flatten(1)
