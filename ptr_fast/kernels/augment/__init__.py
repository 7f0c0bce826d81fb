"""Gather, random crop, colour jitter, scale to [0, 1] and cast: from stored frames to what the nets take, in one pass.

Contract of every implementation: :func:`augment`. ``reference`` is the definition.
"""

from __future__ import annotations

import torch

from ptr_fast.kernels import dispatch, triton_backend
from ptr_fast.kernels.augment import native, planar, reference
from ptr_fast.kernels.augment.parameters import NUM_WORDS, AugmentParams, JitterParams, draw_augment
from ptr_fast.kernels.augment.yuv420 import frame_size
from ptr_fast.native import why_not_on

__all__ = ["NUM_WORDS", "AugmentParams", "JitterParams", "augment", "draw_augment"]

_OP = "augment"
_DTYPES = (torch.float32, torch.bfloat16, torch.float64)


dispatch.register(
    _OP,
    (
        triton_backend.lazy_backend(_OP),
        dispatch.Backend("native", native.augment, native.supports, why_not_on),
        dispatch.Backend("planar", planar.augment, planar.supports),
        dispatch.Backend("reference", reference.augment, reference.supports),
    ),
)


def augment(
    images: torch.Tensor,
    params: AugmentParams | None,
    dtype: torch.dtype = torch.float32,
    index_B: torch.Tensor | None = None,
) -> torch.Tensor:
    """Gather, crop, jitter, truncate to 8 bits as the reference does, scale and cast.

    Args:
        images: uint8 ``[N, H, W, 3]`` RGB, or ``[N, 3 * H / 2, W]`` planes (:mod:`ptr_fast.kernels.augment.yuv420`),
            which are augmented as the RGB frames are that they decode to.
        params: random numbers of the B images, on the images' device; None only scales (acting does this).
        dtype: of the result: float32 or bfloat16 (all arithmetic is float32), or float64.
        index_B: int64 ``[B]``, the frames that are taken; None takes every frame once (B = N). On a GPU an index is
            not read back: one that does not exist is taken for the nearest that does, or stops the kernel.

    Returns:
        ``[B, 3, H, W]`` in [0, 1], channels_last in memory.

    Raises:
        ValueError: images of another dtype or layout, parameters or an index of another shape or device, or a result
            of another dtype.

    Source: PTR, ``jaxrl2/agents/drq/augmentations.py``. Deviation of the fast implementations: saturation and hue are
    changed without the round trip through HSV, equal to within 1e-6 before the truncation.
    """
    frame_size(images)  # refuses what is no image
    if dtype not in _DTYPES:
        raise ValueError(f"augment: expected a result of one of {_DTYPES}, got {dtype}")
    num_images = images.shape[0]
    if index_B is not None:
        if index_B.dtype != torch.int64 or index_B.dim() != 1 or index_B.device != images.device:
            raise ValueError(
                f"augment: expected index int64 [B] on {images.device}, "
                f"got {index_B.dtype} {tuple(index_B.shape)} on {index_B.device}"
            )
        num_images = index_B.shape[0]
    if params is not None:
        _check_params(params, num_images, images.device)
    # Chosen without the parameters: they are small, and every implementation takes any of them.
    return dispatch.select(_OP, images, index_B, dtype).run(images, params, dtype, index_B)


def _check_params(params: AugmentParams, num_images: int, device: torch.device) -> None:
    offsets, jitter = params.crop_offsets, params.jitter
    if offsets is not None and tuple(offsets.shape) != (num_images, 2):
        raise ValueError(f"augment: expected crop_offsets [{num_images}, 2], got {tuple(offsets.shape)}")
    if jitter is not None and tuple(jitter.order.shape) != (num_images, 4):
        raise ValueError(f"augment: expected jitter.order [{num_images}, 4], got {tuple(jitter.order.shape)}")
    for tensor in (offsets, None if jitter is None else jitter.order):
        if tensor is not None and tensor.device != device:
            raise ValueError(f"augment: expected parameters on {device}, got {tensor.device}")
