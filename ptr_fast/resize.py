"""The one resize kernel, used when data is converted and when a policy acts, so that both see the same pixels."""

from __future__ import annotations

import numpy as np
from PIL import Image

__all__ = ["RESIZE", "resize"]

RESIZE = "lanczos"


def resize(image: np.ndarray, height: int, width: int) -> np.ndarray:
    """Resizes RGB images with an antialiased Lanczos kernel (Pillow's); the aspect ratio is not kept.

    Args:
        image: uint8 ``[H, W, 3]`` or ``[N, H, W, 3]``.
        height, width: wanted size, pixels.

    Returns:
        uint8 of the same rank; the input itself where it has that size already.

    Source: PTR ``data_processing/generate_npy.py`` (``Image.resize(..., Image.ANTIALIAS)``).
    """
    if image.dtype != np.uint8 or image.ndim not in (3, 4) or image.shape[-1] != 3:
        raise ValueError(f"image: expected uint8 [H, W, 3] or [N, H, W, 3], got {image.dtype} {list(image.shape)}")
    if height <= 0 or width <= 0:
        raise ValueError(f"height and width must be positive, got {height}x{width}")
    if image.shape[-3:-1] == (height, width):
        return image
    if image.ndim == 3:
        return np.asarray(Image.fromarray(image).resize((width, height), Image.Resampling.LANCZOS))
    out = np.empty((len(image), height, width, 3), np.uint8)
    for index, one in enumerate(image):
        out[index] = resize(one, height, width)
    return out
