"""The one resize kernel, used when data is converted and when a policy acts, so that both see the same pixels."""

from __future__ import annotations

import functools
from typing import Any

import numpy as np
from PIL import Image

from ptr_fast import native

__all__ = ["RESIZE", "resize", "rows_come_first"]

RESIZE = "lanczos"


def resize(image: np.ndarray, height: int, width: int) -> np.ndarray:
    """Resizes RGB images with Pillow's antialiased Lanczos kernel, bit for bit; the aspect ratio is not kept.

    The native module does it; without it Pillow does, with the same result.

    Args:
        image: uint8 ``[H, W, 3]`` or ``[N, H, W, 3]``.
        height, width: wanted size, pixels.

    Returns:
        uint8 of the same rank; the input itself where it has that size already.

    Source: PTR ``data_processing/generate_npy.py`` (``Image.resize(..., Image.ANTIALIAS)``); Pillow
    ``src/libImaging/Resample.c``.
    """
    if image.dtype != np.uint8 or image.ndim not in (3, 4) or image.shape[-1] != 3:
        raise ValueError(f"image: expected uint8 [H, W, 3] or [N, H, W, 3], got {image.dtype} {list(image.shape)}")
    if height <= 0 or width <= 0:
        raise ValueError(f"height and width must be positive, got {height}x{width}")
    if 0 in image.shape[-3:-1]:
        raise ValueError(f"image: expected pixels, got {list(image.shape)}")
    if image.shape[-3:-1] == (height, width):
        return image
    images = image.reshape(-1, *image.shape[-3:])
    if native.module() is None:
        native.warn_missing()
        out = np.empty((len(images), height, width, 3), np.uint8)
        for index, one in enumerate(images):
            out[index] = _by_pillow(one, height, width)
    else:
        out = _native_resize(*images.shape[1:3], height, width).run(images)
    return out.reshape(*image.shape[:-3], height, width, 3)


def rows_come_first(height_in: int, width_in: int, height_out: int, width_out: int) -> bool:
    """Whether the rows are resized before the columns; it shows, since levels are rounded and clipped in between.

    Source: Pillow 13's rule; older ones began with the columns always. Common cameras begin with them by either.
    """
    return height_in > height_out and height_in - height_out > 2 * (width_in - width_out)


@functools.lru_cache(maxsize=32)
def _native_resize(height_in: int, width_in: int, height_out: int, width_out: int) -> Any:
    """The weights for two sizes: a fifth of a millisecond to make, so they are kept."""
    return native.require().Resize(height_in, width_in, height_out, width_out)


def _by_pillow(image: np.ndarray, height: int, width: int) -> np.ndarray:
    """One axis after the other, in the order of :func:`rows_come_first` whatever the version of Pillow."""
    picture = Image.fromarray(image)
    rows_first = rows_come_first(picture.height, picture.width, height, width)
    between = (picture.width, height) if rows_first else (width, picture.height)
    for size in (between, (width, height)):
        picture = picture.resize(size, Image.Resampling.LANCZOS)
    return np.asarray(picture)
