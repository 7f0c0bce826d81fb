"""The augmentation in plain PyTorch on colour planes: where neither the Triton nor the native kernel can run.

On a GPU no number may be read back, so each of the four positions evaluates the operations on all images and selects.

Shapes: B images, P pixels of an image, 3 colour planes; planes are ``[3, B, P]``.

Note "Saturation and hue without a round trip". With V and m the largest and smallest channel, HSV writes a channel as
``V - C * t`` with ``C = V - m = S * V``. Scaling S by f at constant H and V scales the distance from V:
``x -> V - (V - x) * min(f, V / C)``, the minimum being the clip of S at 1. Shifting H at constant V and C gives
``m + C * ramp(H)`` with one triangular ramp per channel.
"""

from __future__ import annotations

import torch

from ptr_fast.kernels.augment.parameters import CONTRAST, SATURATION, AugmentParams, JitterParams
from ptr_fast.kernels.augment.yuv420 import rgb_frames

__all__ = ["augment", "crop", "supports"]

_TINY = 1e-30


def supports(images: torch.Tensor, index_B: torch.Tensor | None, dtype: torch.dtype) -> str | None:
    """It always can."""
    return None


@torch.no_grad()
def augment(
    images: torch.Tensor,
    params: AugmentParams | None,
    dtype: torch.dtype = torch.float32,
    index_B: torch.Tensor | None = None,
) -> torch.Tensor:
    """See :func:`ptr_fast.kernels.augment.augment`."""
    images_BHWC = rgb_frames(images, index_B)
    if params is not None and params.crop_offsets is not None:
        images_BHWC = crop(images_BHWC, params.crop_offsets, params.crop_padding)
    working = torch.float64 if dtype == torch.float64 else torch.float32
    if params is None or params.jitter is None:
        return (images_BHWC.to(working) / 255.0).to(dtype).contiguous().permute(0, 3, 1, 2)
    planes = _jitter_by_selection(_to_planes(images_BHWC, working), params.jitter)
    out_BPC = planes.mul_(255.0).floor_().div_(255.0).permute(1, 2, 0).to(dtype).contiguous()
    return out_BPC.view(images_BHWC.shape).permute(0, 3, 1, 2)


def crop(images_BHWC: torch.Tensor, offsets_B2: torch.Tensor, padding: int) -> torch.Tensor:
    """Random crop as one gather of windows."""
    num_images, height, width, num_channels = images_BHWC.shape
    padded = images_BHWC.new_empty(num_images, height + 2 * padding, width + 2 * padding, num_channels)
    inner = slice(padding, padding + width)
    padded[:, padding : padding + height, inner] = images_BHWC
    padded[:, :padding, inner] = images_BHWC[:, :1]
    padded[:, padding + height :, inner] = images_BHWC[:, -1:]
    padded[:, :, :padding] = padded[:, :, padding : padding + 1]
    padded[:, :, padding + width :] = padded[:, :, padding + width - 1 : padding + width]
    sb, sh, sw, sc = padded.stride()
    windows = padded.as_strided(
        (num_images, 2 * padding + 1, 2 * padding + 1, height, width, num_channels), (sb, sh, sw, sh, sw, sc)
    )
    return windows[torch.arange(num_images, device=images_BHWC.device), offsets_B2[:, 0], offsets_B2[:, 1]]


def _to_planes(images_BHWC: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
    planes = images_BHWC.permute(3, 0, 1, 2).to(dtype=dtype, memory_format=torch.contiguous_format)
    return planes.div_(255.0).flatten(2)


def _jitter_by_selection(planes: torch.Tensor, jitter: JitterParams) -> torch.Tensor:
    brightness, contrast, saturation, hue = (
        t.to(planes.dtype)[:, None] for t in (jitter.brightness, jitter.contrast, jitter.saturation, jitter.hue)
    )
    for position in range(4):
        operation = jitter.order[:, position, None]
        is_contrast = operation == CONTRAST
        mean = planes.mean(dim=2, keepdim=True)
        scaled = (planes - mean) * torch.where(is_contrast, contrast, 1.0) + mean
        linear = torch.where(is_contrast, scaled, planes + brightness).clamp_(0.0, 1.0)
        saturated, shifted = planes.clone(), planes.clone()
        _scale_saturation(saturated, saturation)
        _shift_hue(shifted, hue)
        coloured = torch.where(operation == SATURATION, saturated, shifted)
        changed = torch.where(operation <= CONTRAST, linear, coloured)
        planes = torch.where(jitter.apply[:, None], changed, planes)
    return planes


def _scale_saturation(planes: torch.Tensor, factor_B1: torch.Tensor) -> None:
    """In place; see the note. A black pixel has V = C = 0 and stays."""
    value = planes.amax(dim=0)
    chroma = (value - planes.amin(dim=0)).clamp_(min=_TINY)
    scale = torch.minimum(value / chroma, factor_B1)
    torch.addcmul(value, value - planes, scale, value=-1.0, out=planes)
    planes.clamp_(0.0, 1.0)


def _shift_hue(planes: torch.Tensor, shift_B1: torch.Tensor) -> None:
    """In place; see the note. A grey pixel has C = 0 and stays."""
    red, green, blue = planes.unbind(0)
    value, low = planes.amax(dim=0), planes.amin(dim=0)
    chroma = value - low
    # Hue in sextants, times chroma: 0 at red, 2 at green, 4 at blue. Selected by 0 and 1 in floating point: on the CPU
    # a comparison into bool and torch.where take ten times as long as a product.
    is_red = torch.eq(red, value, out=torch.empty_like(value))
    is_green = torch.eq(green, value, out=torch.empty_like(value))
    at_blue = (red - green).add_(chroma, alpha=4.0)
    sextant = (blue - red).add_(chroma, alpha=2.0).sub_(at_blue).mul_(is_green).add_(at_blue)
    sextant.addcmul_(is_red, (green - blue).sub_(sextant))
    sextant.div_(chroma.clamp(min=_TINY)).add_(6.0 * shift_B1)
    sextant.sub_((sextant * (1.0 / 6.0)).floor_(), alpha=6.0)
    for plane, centre in ((red, 3.0), (green, 2.0), (blue, 4.0)):
        ramp = (sextant - centre).abs_()
        ramp = ramp.sub_(1.0) if centre == 3.0 else ramp.neg_().add_(2.0)
        torch.addcmul(low, chroma, ramp.clamp_(0.0, 1.0), out=plane)
