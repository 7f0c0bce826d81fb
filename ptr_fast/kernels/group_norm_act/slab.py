"""Building blocks of the Triton kernels that normalise: the slab, its tile, its launch parameters, its moments.

A slab is what one block of threads owns: all pixels of one image and ``GB`` neighbouring groups of channels. In
channels_last memory its rows (one pixel, ``GB * D`` channels) are contiguous. Tiles are ``[P, GB, DP]``: pixels,
groups, and the channels of a group padded to a power of two.

Shapes: B batch, C channels, G groups, D = C / G channels of a group, N pixels (height times width).
"""

from __future__ import annotations

import functools
from dataclasses import dataclass

import torch
import triton
import triton.language as tl

__all__ = [
    "Launch",
    "channel_sum",
    "channel_tile",
    "channels_inside",
    "group_sum",
    "input_gradient",
    "load_moments",
    "load_tile",
    "normalise",
    "plan",
    "relu",
    "resident_moments",
    "store_moments",
    "store_tile",
    "streamed_moments",
    "tile_inside",
    "tile_offsets",
]

_MIN_ROW_BYTES = 64  # a row of 32 bytes is a whole sector, but half of what memory hands out at once

_BF16, _FP32 = torch.bfloat16, torch.float32

# Slabs of at most so many elements stay in registers -> warps. ``_norm``: two slabs, the shortcut has its own norm.
_RESIDENT: dict[tuple[str, torch.dtype], dict[int, int]] = {
    ("forward", _BF16): {1024: 1, 2048: 2, 4096: 4, 8192: 8, 16384: 16, 32768: 32},
    ("forward", _FP32): {1024: 1, 2048: 2, 4096: 4, 8192: 8, 16384: 16, 32768: 32},
    ("forward_norm", _BF16): {1024: 1, 2048: 2, 4096: 4, 8192: 8},
    ("forward_norm", _FP32): {1024: 1, 2048: 2, 4096: 4, 8192: 8, 16384: 32},
    ("backward", _BF16): {1024: 1, 2048: 2, 4096: 4, 8192: 8, 16384: 16},
    ("backward", _FP32): {1024: 2, 2048: 4, 4096: 8, 8192: 16},
    ("backward_norm", _BF16): {1024: 2, 2048: 4, 4096: 8, 8192: 16},
    ("backward_norm", _FP32): {1024: 2, 2048: 4, 4096: 8, 8192: 16},
}
# Larger ones are read twice, in tiles of so many elements, by so many warps.
_STREAMED: dict[tuple[str, torch.dtype], tuple[int, int]] = {
    ("forward", _BF16): (4096, 16),
    ("forward", _FP32): (4096, 8),
    ("forward_norm", _BF16): (2048, 8),
    ("forward_norm", _FP32): (4096, 8),
    ("backward", _BF16): (4096, 8),
    ("backward", _FP32): (4096, 8),
    ("backward_norm", _BF16): (2048, 8),
    ("backward_norm", _FP32): (2048, 8),
    ("pool_forward", _BF16): (4096, 16),
    ("pool_forward", _FP32): (2048, 16),
    ("pool_backward", _BF16): (4096, 16),
    ("pool_backward", _FP32): (2048, 16),
}


@dataclass(frozen=True, kw_only=True)
class Launch:
    """How a slab is laid over a block of threads.

    Attributes:
        resident: the tile covers the slab and stays in registers; otherwise the slab is read twice, tile by tile.
        tile: compile-time arguments ``P``, ``GB``, ``DP`` (shape of the tile) and ``EXACT`` (no mask is needed).
        blocks_per_image: blocks of threads that share an image.
        num_warps: warps of a block.
    """

    resident: bool
    tile: dict[str, int]
    blocks_per_image: int
    num_warps: int


@functools.cache
def plan(kind: str, dtype: torch.dtype, num_pixels: int, num_channels: int, num_groups: int) -> Launch:
    """Tile and launch parameters for one slab; ``kind`` is a key of the tables above.

    The tables follow from the registers of the compiled code (65536 a multiprocessor): a slab stays in registers as
    long as nothing spills under Triton 3.6 and later, in as many blocks a multiprocessor as that allows. They have not
    been measured on a GPU.
    """
    D = num_channels // num_groups
    DP = triton.next_power_of_2(D)
    GB = min(triton.next_power_of_2(num_groups), max(1, _MIN_ROW_BYTES // (DP * dtype.itemsize)))
    P = triton.next_power_of_2(num_pixels)
    fitting = [warps for elements, warps in _RESIDENT.get((kind, dtype), {}).items() if elements >= P * GB * DP]
    if fitting:
        num_warps = fitting[0]
    else:
        elements, num_warps = _STREAMED[kind, dtype]
        P = min(P, max(1, elements // (GB * DP)))
    return Launch(
        resident=bool(fitting),
        tile={"P": P, "GB": GB, "DP": DP, "EXACT": num_pixels % P == 0 and num_groups % GB == 0 and D == DP},
        blocks_per_image=triton.cdiv(num_groups, GB),
        num_warps=num_warps,
    )


@triton.jit
def tile_offsets(
    first_pixel, first_group,
    C: tl.constexpr, D: tl.constexpr, P: tl.constexpr, GB: tl.constexpr, DP: tl.constexpr,
):  # fmt: skip
    """Offsets of a tile from the start of its image -> [P, GB, DP]."""
    pixel = first_pixel + tl.arange(0, P)
    group = first_group + tl.arange(0, GB)
    return pixel[:, None, None] * C + (group[None, :, None] * D + tl.arange(0, DP)[None, None, :])


@triton.jit
def tile_inside(
    first_pixel, first_group,
    N: tl.constexpr, G: tl.constexpr, D: tl.constexpr, P: tl.constexpr, GB: tl.constexpr, DP: tl.constexpr,
):  # fmt: skip
    """Which elements of a tile are in the slab -> [P, GB, DP]."""
    pixel = first_pixel + tl.arange(0, P) < N
    group = first_group + tl.arange(0, GB) < G
    channel = tl.arange(0, DP) < D
    return pixel[:, None, None] & group[None, :, None] & channel[None, None, :]


@triton.jit
def channel_tile(first_group, D: tl.constexpr, GB: tl.constexpr, DP: tl.constexpr):
    """Channel numbers -> [GB, DP]."""
    return (first_group + tl.arange(0, GB))[:, None] * D + tl.arange(0, DP)[None, :]


@triton.jit
def channels_inside(first_group, G: tl.constexpr, D: tl.constexpr, GB: tl.constexpr, DP: tl.constexpr):
    """Which channels there are -> [GB, DP]."""
    return (first_group + tl.arange(0, GB) < G)[:, None] & (tl.arange(0, DP) < D)[None, :]


@triton.jit
def load_tile(pointer, offsets, inside, EXACT: tl.constexpr):
    if EXACT:
        return tl.load(pointer + offsets)
    else:
        return tl.load(pointer + offsets, mask=inside, other=0.0)


@triton.jit
def store_tile(pointer, offsets, value, inside, EXACT: tl.constexpr):
    if EXACT:
        tl.store(pointer + offsets, value.to(pointer.dtype.element_ty))
    else:
        tl.store(pointer + offsets, value.to(pointer.dtype.element_ty), mask=inside)


@triton.jit
def channel_sum(x_PGD):
    """Sum over the pixels -> [GB, DP]."""
    return tl.sum(x_PGD, axis=0)


@triton.jit
def group_sum(x_PGD):
    """Sum over pixels and channels -> [GB]; pixels first, most of which lie in one thread's registers."""
    return tl.sum(tl.sum(x_PGD, axis=0), axis=1)


@triton.jit
def resident_moments(x_PGD, inside, eps, COUNT: tl.constexpr, EXACT: tl.constexpr):
    """Mean and 1 / sqrt(variance + eps) of a slab in registers (float32, 0 outside) -> [GB], [GB]; exact two passes."""
    mean = group_sum(x_PGD) / COUNT
    deviation = x_PGD - mean[None, :, None]
    if not EXACT:
        deviation = tl.where(inside, deviation, 0.0)
    return mean, tl.rsqrt(group_sum(deviation * deviation) / COUNT + eps)


@triton.jit
def streamed_moments(
    image_ptr, first_group, eps,
    N: tl.constexpr, C: tl.constexpr, G: tl.constexpr, P: tl.constexpr, GB: tl.constexpr, DP: tl.constexpr,
    EXACT: tl.constexpr,
):  # fmt: skip
    """The same of a slab in memory, read once, tile by tile.

    Sums are taken about the first tile's mean. That tile is a share P / N of the slab, so its mean is at most
    sqrt(N / P) standard deviations from the slab's: the difference of the sums loses log2(N / P) bits at worst.
    """
    D: tl.constexpr = C // G
    COUNT: tl.constexpr = N * D
    HEAD: tl.constexpr = P if P < N else N
    inside = tile_inside(0, first_group, N, G, D, P, GB, DP)
    x = load_tile(image_ptr, tile_offsets(0, first_group, C, D, P, GB, DP), inside, EXACT).to(tl.float32)
    pivot = group_sum(x) / (HEAD * D)
    deviation = x - pivot[None, :, None]
    if not EXACT:
        deviation = tl.where(inside, deviation, 0.0)
    sums = deviation
    squares = deviation * deviation
    for first in tl.range(P, N, P, loop_unroll_factor=4):  # four loads of every thread under way
        inside = tile_inside(first, first_group, N, G, D, P, GB, DP)
        x = load_tile(image_ptr, tile_offsets(first, first_group, C, D, P, GB, DP), inside, EXACT).to(tl.float32)
        deviation = x - pivot[None, :, None]
        if not EXACT:
            deviation = tl.where(inside, deviation, 0.0)
        sums += deviation
        squares += deviation * deviation
    shift = group_sum(sums) / COUNT
    variance = group_sum(squares) / COUNT - shift * shift
    variance = tl.where(variance < 0.0, 0.0, variance)
    return pivot + shift, tl.rsqrt(variance + eps)


@triton.jit
def store_moments(
    moments_ptr, image, first_group, mean, rstd,
    FIRST: tl.constexpr, NUM: tl.constexpr, G: tl.constexpr, GB: tl.constexpr,
):  # fmt: skip
    """Writes mean and rstd [GB] to columns FIRST and FIRST + 1 of moments [B, G, NUM]."""
    group = first_group + tl.arange(0, GB)
    row = moments_ptr + (image * G + group) * NUM + FIRST
    tl.store(row, mean, mask=group < G)
    tl.store(row + 1, rstd, mask=group < G)


@triton.jit
def load_moments(
    moments_ptr, image, first_group,
    FIRST: tl.constexpr, NUM: tl.constexpr, G: tl.constexpr, GB: tl.constexpr,
):  # fmt: skip
    group = first_group + tl.arange(0, GB)
    row = moments_ptr + (image * G + group) * NUM + FIRST
    return tl.load(row, mask=group < G, other=0.0), tl.load(row + 1, mask=group < G, other=0.0)


@triton.jit
def normalise(x_PGD, mean_G, rstd_G, weight_GD, bias_GD):
    """weight * (x - mean) * rstd + bias; the mean goes first, so that a mean far from zero costs no digits."""
    scale_GD = rstd_G[:, None] * weight_GD
    return (x_PGD - mean_G[None, :, None]) * scale_GD[None, :, :] + bias_GD[None, :, :]


@triton.jit
def relu(y):
    """max(y, 0); a NaN stays a NaN."""
    return tl.where(y <= 0.0, 0.0, y)


@triton.jit
def input_gradient(dz_PGD, deviation_PGD, rstd_G, weight_GD, dweight_GD, dbias_GD, COUNT: tl.constexpr):
    """rstd * (w dz - mean(w dz) - xhat mean(w dz xhat)), the means taken from the sums over the pixels."""
    of_dz = rstd_G * tl.sum(weight_GD * dbias_GD, axis=1) / COUNT
    of_dz_xhat = rstd_G * rstd_G * tl.sum(weight_GD * dweight_GD, axis=1) / COUNT
    scale_GD = rstd_G[:, None] * weight_GD
    return dz_PGD * scale_GD[None, :, :] - of_dz[None, :, None] - deviation_PGD * of_dz_xhat[None, :, None]
