"""Random crop and colour jitter as a PyTorch user would write them well: on whole batches, nothing read back.

The same numbers as :mod:`ptr_fast.kernels.augment.reference`. Every position of an image's order evaluates all four
operations on all images and selects; ``torch.compile`` fuses that into few passes.
"""

from __future__ import annotations

import torch

from ptr_fast.kernels.augment import AugmentParams

__all__ = ["augment"]


def augment(images_BHWC: torch.Tensor, params: AugmentParams | None, dtype: torch.dtype) -> torch.Tensor:
    """``[B, 3, H, W]`` in [0, 1], channels_last, from uint8 frames; None only scales."""
    if params is None:
        return (images_BHWC.to(dtype) / 255.0).permute(0, 3, 1, 2)
    num_images, height, width, _ = images_BHWC.shape
    offsets, padding, jitter = params.crop_offsets, params.crop_padding, params.jitter
    rows = torch.arange(height, device=images_BHWC.device) + offsets[:, :1] - padding
    columns = torch.arange(width, device=images_BHWC.device) + offsets[:, 1:] - padding
    sample = torch.arange(num_images, device=images_BHWC.device)[:, None, None]
    cropped = images_BHWC[sample, rows.clamp(0, height - 1)[:, :, None], columns.clamp(0, width - 1)[:, None, :]]
    x = cropped.permute(3, 0, 1, 2).to(torch.float32) / 255.0
    brightness, contrast, saturation, hue = (
        value.float()[:, None, None] for value in (jitter.brightness, jitter.contrast, jitter.saturation, jitter.hue)
    )
    for position in range(4):
        operation = jitter.order[:, position, None, None]
        mean = x.mean(dim=(2, 3), keepdim=True)
        value, low = x.amax(dim=0), x.amin(dim=0)
        changed = torch.where(operation == 0, x + brightness, (x - mean) * contrast + mean)
        changed = torch.where(operation == 2, _saturate(x, value, low, saturation), changed)
        changed = torch.where(operation == 3, _shift_hue(x, value, low, hue), changed)
        x = torch.where(jitter.apply[:, None, None], changed.clamp(0.0, 1.0), x)
    x = torch.where(jitter.apply[:, None, None], (x * 255.0).floor() / 255.0, x)
    return x.permute(1, 0, 2, 3).to(dtype).contiguous(memory_format=torch.channels_last)


def _saturate(x: torch.Tensor, value: torch.Tensor, low: torch.Tensor, factor: torch.Tensor) -> torch.Tensor:
    """A channel is ``V - C t``: scaling S at constant H and V scales the distance from V, S clipped at 1."""
    scale = torch.minimum(value / (value - low).clamp(min=1e-30), factor)
    return value - (value - x) * scale


def _shift_hue(x: torch.Tensor, value: torch.Tensor, low: torch.Tensor, shift: torch.Tensor) -> torch.Tensor:
    """One triangular ramp of the hue per channel between low and value."""
    red, green, blue = x.unbind(0)
    chroma = value - low
    safe = chroma.clamp(min=1e-30)
    sextant = torch.where(
        red == value,
        (green - blue) / safe,
        torch.where(green == value, (blue - red) / safe + 2.0, (red - green) / safe + 4.0),
    )
    sextant = (sextant + 6.0 * shift).remainder(6.0)
    ramps = (
        (sextant - 3.0).abs() - 1.0,
        2.0 - (sextant - 2.0).abs(),
        2.0 - (sextant - 4.0).abs(),
    )
    return torch.stack([low + chroma * ramp.clamp(0.0, 1.0) for ramp in ramps])
