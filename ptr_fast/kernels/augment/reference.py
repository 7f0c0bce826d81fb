"""The definition of the augmentation, one image and one operation at a time; runs in float64.

Source: PTR, ``jaxrl2/agents/drq/augmentations.py`` (random_crop, color_transform) and the truncating cast to uint8 of
``pixel_cql_learner.py``. The conversion to HSV and back is the usual one (Smith 1978), with H in turns.
"""

from __future__ import annotations

import torch

from ptr_fast.kernels.augment.parameters import BRIGHTNESS, CONTRAST, HUE, SATURATION, AugmentParams, JitterParams
from ptr_fast.kernels.augment.yuv420 import rgb_frames

__all__ = ["augment", "crop", "hsv_to_rgb", "jitter", "jitter_operation", "rgb_to_hsv", "supports"]


def supports(images: torch.Tensor, index_B: torch.Tensor | None, dtype: torch.dtype) -> str | None:
    """It always can."""
    return None


def augment(
    images: torch.Tensor,
    params: AugmentParams | None,
    dtype: torch.dtype = torch.float32,
    index_B: torch.Tensor | None = None,
) -> torch.Tensor:
    """See :func:`ptr_fast.kernels.augment.augment`; in float64 where that is wanted, else in float32."""
    images_BHWC = rgb_frames(images, index_B)
    if params is not None and params.crop_offsets is not None:
        images_BHWC = crop(images_BHWC, params.crop_offsets, params.crop_padding)
    working = torch.float64 if dtype == torch.float64 else torch.float32
    floats = images_BHWC.to(working) / 255.0
    if params is not None and params.jitter is not None:
        floats = (jitter(floats, params.jitter) * 255.0).to(torch.uint8).to(working) / 255.0
    return floats.to(dtype).contiguous().permute(0, 3, 1, 2)


def crop(images_BHWC: torch.Tensor, offsets_B2: torch.Tensor, padding: int) -> torch.Tensor:
    """Window of the original size at (row, column) of the image padded by its repeated edge; any dtype."""
    height, width = images_BHWC.shape[1:3]
    out = torch.empty_like(images_BHWC)
    for i, (row, column) in enumerate(offsets_B2.tolist()):
        rows = (torch.arange(height) + row - padding).clamp(0, height - 1)
        columns = (torch.arange(width) + column - padding).clamp(0, width - 1)
        out[i] = images_BHWC[i][rows][:, columns]
    return out


def jitter(images_BHWC: torch.Tensor, params: JitterParams) -> torch.Tensor:
    """The four operations in each image's own order, clipped to [0, 1] after each; floats in [0, 1] in and out."""
    out = images_BHWC.clone()
    factors = torch.stack([params.brightness, params.contrast, params.saturation, params.hue]).to(out.dtype)
    for i, order in enumerate(params.order.tolist()):
        if params.apply[i]:
            for operation in order:
                out[i] = jitter_operation(out[i], operation, factors[operation, i])
    return out


def jitter_operation(image_HWC: torch.Tensor, operation: int, factor: torch.Tensor) -> torch.Tensor:
    """One operation on one image (or on ``[..., H, W, 3]``), clipped to [0, 1]."""
    if operation == BRIGHTNESS:
        out = image_HWC + factor
    elif operation == CONTRAST:
        mean = image_HWC.mean(dim=(-3, -2), keepdim=True)
        out = (image_HWC - mean) * factor + mean
    elif operation in (SATURATION, HUE):
        h, s, v = rgb_to_hsv(image_HWC).unbind(-1)
        if operation == SATURATION:
            s = (s * factor).clamp(0.0, 1.0)
        else:
            h = (h + factor).remainder(1.0)
        out = hsv_to_rgb(torch.stack([h, s, v], dim=-1))
    else:
        raise ValueError(f"jitter: expected an operation of 0 to 3, got {operation}")
    return out.clamp(0.0, 1.0)


def rgb_to_hsv(rgb: torch.Tensor) -> torch.Tensor:
    """``[..., 3]`` RGB in [0, 1] to hue in turns [0, 1), saturation, value."""
    r, g, b = rgb.unbind(-1)
    value = rgb.amax(dim=-1)
    chroma = value - rgb.amin(dim=-1)
    saturation = torch.where(value > 0, chroma / value, torch.zeros_like(value))
    scale = torch.where(chroma > 0, 1.0 / (6.0 * chroma), torch.zeros_like(chroma))
    hue = torch.where(
        r == value,
        scale * (g - b),
        torch.where(g == value, scale * (b - r) + 2.0 / 6.0, scale * (r - g) + 4.0 / 6.0),
    )
    hue = torch.where(chroma > 0, hue, torch.zeros_like(hue))
    return torch.stack([hue + (hue < 0), saturation, value], dim=-1)


def hsv_to_rgb(hsv: torch.Tensor) -> torch.Tensor:
    """The inverse of :func:`rgb_to_hsv`."""
    h, s, v = hsv.unbind(-1)
    chroma = s * v
    low = v - chroma
    sextant = h.remainder(1.0) * 6.0
    middle = chroma * (1.0 - (sextant.remainder(2.0) - 1.0).abs())
    index = sextant.floor().to(torch.int64)
    zero = torch.zeros_like(chroma)

    def channel(full: tuple[int, int], ramp: tuple[int, int]) -> torch.Tensor:
        is_full = (index == full[0]) | (index == full[1])
        is_ramp = (index == ramp[0]) | (index == ramp[1])
        return torch.where(is_full, chroma, torch.where(is_ramp, middle, zero)) + low

    return torch.stack([channel((0, 5), (1, 4)), channel((1, 2), (0, 3)), channel((3, 4), (2, 5))], dim=-1)
