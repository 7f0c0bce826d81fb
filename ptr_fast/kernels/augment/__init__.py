"""Random crop, colour jitter and the scale to [0, 1], from stored frames to what the nets take.

Contract of every implementation: :func:`augment`. ``reference`` is the definition; ``planar`` is the fast one.
"""

from __future__ import annotations

import torch

from ptr_fast.kernels.augment import planar, reference
from ptr_fast.kernels.augment.parameters import NUM_WORDS, AugmentParams, JitterParams, concatenate, draw_augment

__all__ = [
    "NUM_WORDS",
    "AugmentParams",
    "JitterParams",
    "augment",
    "concatenate",
    "draw_augment",
    "planar",
    "reference",
]


def augment(
    images_BHWC: torch.Tensor, params: AugmentParams | None, dtype: torch.dtype = torch.float32
) -> torch.Tensor:
    """Crop, jitter, truncate to 8 bits as the reference does, and scale.

    Args:
        images_BHWC: uint8 ``[B, H, W, 3]`` RGB.
        params: random numbers of the B images, on the images' device; None only scales (acting does this).
        dtype: of the result.

    Returns:
        ``[B, 3, H, W]`` in [0, 1], channels_last in memory.

    Raises:
        ValueError: images that are not uint8 ``[B, H, W, 3]``, or parameters of another number of images.

    Source: PTR, ``jaxrl2/agents/drq/augmentations.py``. Deviation of the fast implementation: saturation and hue are
    changed without the round trip through HSV, equal to within 1e-6 before the truncation.
    """
    if images_BHWC.dtype != torch.uint8 or images_BHWC.dim() != 4 or images_BHWC.shape[3] != 3:
        raise ValueError(
            f"augment: expected uint8 images [B, H, W, 3], got {images_BHWC.dtype} {tuple(images_BHWC.shape)}"
        )
    if params is not None:
        _check_params(params, images_BHWC.shape[0])
    if dtype == torch.bfloat16:  # the jitter's arithmetic needs more than 8 bits
        return planar.augment(images_BHWC, params, torch.float32).to(dtype)
    return planar.augment(images_BHWC, params, dtype)


def _check_params(params: AugmentParams, num_images: int) -> None:
    offsets, jitter = params.crop_offsets, params.jitter
    if offsets is not None and tuple(offsets.shape) != (num_images, 2):
        raise ValueError(f"augment: expected crop_offsets [{num_images}, 2], got {tuple(offsets.shape)}")
    if jitter is not None and tuple(jitter.order.shape) != (num_images, 4):
        raise ValueError(f"augment: expected jitter.order [{num_images}, 4], got {tuple(jitter.order.shape)}")
