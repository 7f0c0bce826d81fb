"""Crop and jitter in plain PyTorch as fast as we know how on a CPU: every operation once per image.

Images are brought into the order of their permutation of operations while they are cropped, so that images with one
permutation are neighbours and each operation runs in place on a slice. The formulas are those of
:mod:`ptr_fast.kernels.augment.planar`, which selects instead of sorting (a GPU must not be asked for numbers).

Shapes: B images, P pixels of an image, 3 colour planes; planes are ``[3, B, P]``.
"""

from __future__ import annotations

import torch

from ptr_fast.kernels.augment import AugmentParams, JitterParams, planar
from ptr_fast.kernels.augment.parameters import BRIGHTNESS, CONTRAST, SATURATION

__all__ = ["augment"]


@torch.no_grad()
def augment(images_BHWC: torch.Tensor, params: AugmentParams | None, dtype: torch.dtype) -> torch.Tensor:
    """As :func:`ptr_fast.kernels.augment.augment`."""
    if params is None or params.crop_offsets is None or params.jitter is None:
        return planar.augment(images_BHWC, params, dtype)
    order, slices = _group_by_permutation(params.jitter)
    cropped = planar.crop(images_BHWC[order], params.crop_offsets[order], params.crop_padding)
    planes = planar._to_planes(cropped, torch.float32)
    _jitter_by_slices(planes, slices, params.jitter, order)
    out_BPC = planes.mul_(255.0).floor_().div_(255.0).permute(1, 2, 0).to(dtype).contiguous()
    return out_BPC.index_select(0, order.argsort()).view(images_BHWC.shape).permute(0, 3, 1, 2)


def _group_by_permutation(jitter: JitterParams) -> tuple[torch.Tensor, list[tuple[int, int, list[int]]]]:
    """Order of the images by permutation, and (first, last + 1, permutation) of every group that is jittered."""
    code = jitter.order.long() @ torch.tensor([64, 16, 4, 1])
    code = torch.where(jitter.apply, code, torch.full_like(code, 256))
    ordered, order = code.sort(stable=True)
    values, counts = ordered.unique_consecutive(return_counts=True)
    slices, first = [], 0
    for value, count in zip(values.tolist(), counts.tolist(), strict=True):
        if value < 256:
            slices.append((first, first + count, [value >> 6 & 3, value >> 4 & 3, value >> 2 & 3, value & 3]))
        first += count
    return order, slices


def _jitter_by_slices(
    planes: torch.Tensor, slices: list[tuple[int, int, list[int]]], jitter: JitterParams, order: torch.Tensor
) -> None:
    factors = torch.stack([jitter.brightness, jitter.contrast, jitter.saturation, jitter.hue])[:, order]
    factors = factors.to(planes.dtype)[:, :, None]
    for first, end, permutation in slices:
        part = planes[:, first:end]
        for operation in permutation:
            factor = factors[operation, first:end]
            if operation == BRIGHTNESS:
                part.add_(factor).clamp_(0.0, 1.0)
            elif operation == CONTRAST:
                mean = part.mean(dim=2, keepdim=True)
                part.sub_(mean).mul_(factor).add_(mean).clamp_(0.0, 1.0)
            elif operation == SATURATION:
                planar._scale_saturation(part, factor)
            else:
                planar._shift_hue(part, factor)
