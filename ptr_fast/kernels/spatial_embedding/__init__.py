"""Learned spatial embedding: every channel's map weighed by F learned maps.

``out[b, c * F + f] = sum_p x[b, c, p] * kernel[c, p, f]`` with p running over the pixels row by row.
Source: PTR, ``jaxrl2/networks/encoders/spatial_softmax.py:SpatialLearnedEmbeddings`` (there the kernel is HWCF).
"""

from __future__ import annotations

import torch

from ptr_fast.kernels import dispatch
from ptr_fast.kernels.spatial_embedding import batched, native, reference
from ptr_fast.kernels.triton_backend import lazy_backend
from ptr_fast.native import why_not_on

__all__ = ["batched", "native", "reference", "spatial_embedding"]

_OP = "spatial_embedding"

dispatch.register(
    _OP,
    (
        lazy_backend(_OP),
        dispatch.Backend("native", native.spatial_embedding, native.supports, why_not_on),
        dispatch.Backend("batched", batched.spatial_embedding, batched.supports),
        dispatch.Backend("reference", reference.spatial_embedding, reference.supports),
    ),
)


def spatial_embedding(x_BCHW: torch.Tensor, kernel_CPF: torch.Tensor) -> torch.Tensor:
    """Weighs and sums the pixels of every channel; nothing of size B*P*C*F is ever stored.

    Args:
        x_BCHW: feature map ``[B, C, H, W]``, any memory format; of the kernel's dtype, or bfloat16, which is converted
            to it (on a GPU as it is read). The fast paths want channels_last memory.
        kernel_CPF: ``[C, H * W, F]``, any float dtype; the fast paths want float32.

    Returns:
        ``[B, C * F]`` of the kernel's dtype, channel-major. Differentiable once with respect to both.

    Raises:
        ValueError: the map does not fit the kernel.
    """
    _, num_channels, height, width = x_BCHW.shape
    if kernel_CPF.shape[:2] != (num_channels, height * width):
        raise ValueError(
            f"spatial_embedding: expected a kernel [{num_channels}, {height * width}, F] for a map "
            f"{tuple(x_BCHW.shape)}, got {tuple(kernel_CPF.shape)}"
        )
    return dispatch.select(_OP, x_BCHW, kernel_CPF).run(x_BCHW, kernel_CPF)
