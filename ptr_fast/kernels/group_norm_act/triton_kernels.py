"""The Triton kernels of group_norm_act: forward and backward, with the slab in registers or read twice.

``RESIDUAL`` is NONE, ADD (a tensor to add) or NORM (a shortcut's output that gets its own norm first). Pointers that a
variant does not use are never read. Columns of ``moments [B, G, NUM]``: mean, rstd, then those of the residual.
"""

from __future__ import annotations

import triton
import triton.language as tl

from ptr_fast.kernels.group_norm_act.slab import (
    channel_sum,
    channel_tile,
    channels_inside,
    input_gradient,
    load_moments,
    load_tile,
    normalise,
    relu,
    resident_moments,
    store_moments,
    store_tile,
    streamed_moments,
    tile_inside,
    tile_offsets,
)

__all__ = ["ADD", "NONE", "NORM", "backward_resident", "backward_streamed", "forward_resident", "forward_streamed"]

NONE = tl.constexpr(0)
ADD = tl.constexpr(1)
NORM = tl.constexpr(2)


@triton.jit
def forward_resident(
    x_ptr, weight_ptr, bias_ptr, residual_ptr, residual_weight_ptr, residual_bias_ptr, y_ptr, moments_ptr, eps,
    N: tl.constexpr, C: tl.constexpr, G: tl.constexpr, RESIDUAL: tl.constexpr, RELU: tl.constexpr,
    P: tl.constexpr, GB: tl.constexpr, DP: tl.constexpr, EXACT: tl.constexpr,
):  # fmt: skip
    """One read of x (and of the residual), one write of y."""
    D: tl.constexpr = C // G
    NUM: tl.constexpr = 4 if RESIDUAL == NORM else 2
    BLOCKS: tl.constexpr = (G + GB - 1) // GB
    image = (tl.program_id(0) // BLOCKS).to(tl.int64)
    first_group = tl.program_id(0) % BLOCKS * GB
    offsets = tile_offsets(0, first_group, C, D, P, GB, DP)
    inside = tile_inside(0, first_group, N, G, D, P, GB, DP)
    channels = channel_tile(first_group, D, GB, DP)
    known = channels_inside(first_group, G, D, GB, DP)

    x = load_tile(x_ptr + image * N * C, offsets, inside, EXACT)
    if RESIDUAL == NORM:
        residual = load_tile(residual_ptr + image * N * C, offsets, inside, EXACT)
    mean, rstd = resident_moments(x.to(tl.float32), inside, eps, N * D, EXACT)
    store_moments(moments_ptr, image, first_group, mean, rstd, 0, NUM, G, GB)
    weight = tl.load(weight_ptr + channels, mask=known, other=0.0)
    bias = tl.load(bias_ptr + channels, mask=known, other=0.0)
    y = normalise(x.to(tl.float32), mean, rstd, weight, bias)
    if RESIDUAL == ADD:
        y += load_tile(residual_ptr + image * N * C, offsets, inside, EXACT).to(tl.float32)
    if RESIDUAL == NORM:
        residual_weight = tl.load(residual_weight_ptr + channels, mask=known, other=0.0)
        residual_bias = tl.load(residual_bias_ptr + channels, mask=known, other=0.0)
        mean, rstd = resident_moments(residual.to(tl.float32), inside, eps, N * D, EXACT)
        store_moments(moments_ptr, image, first_group, mean, rstd, 2, NUM, G, GB)
        y += normalise(residual.to(tl.float32), mean, rstd, residual_weight, residual_bias)
    if RELU:
        y = relu(y)
    store_tile(y_ptr + image * N * C, offsets, y, inside, EXACT)


@triton.jit
def forward_streamed(
    x_ptr, weight_ptr, bias_ptr, residual_ptr, residual_weight_ptr, residual_bias_ptr, y_ptr, moments_ptr, eps,
    N: tl.constexpr, C: tl.constexpr, G: tl.constexpr, RESIDUAL: tl.constexpr, RELU: tl.constexpr,
    P: tl.constexpr, GB: tl.constexpr, DP: tl.constexpr, EXACT: tl.constexpr,
):  # fmt: skip
    """The slab is read twice; the second time backwards, so that what was read last is still near."""
    D: tl.constexpr = C // G
    NUM: tl.constexpr = 4 if RESIDUAL == NORM else 2
    BLOCKS: tl.constexpr = (G + GB - 1) // GB
    LAST: tl.constexpr = (N - 1) // P * P
    image = (tl.program_id(0) // BLOCKS).to(tl.int64)
    first_group = tl.program_id(0) % BLOCKS * GB
    x_ptr += image * N * C
    residual_ptr += image * N * C
    y_ptr += image * N * C
    channels = channel_tile(first_group, D, GB, DP)
    known = channels_inside(first_group, G, D, GB, DP)

    mean, rstd = streamed_moments(x_ptr, first_group, eps, N, C, G, P, GB, DP, EXACT)
    store_moments(moments_ptr, image, first_group, mean, rstd, 0, NUM, G, GB)
    if RESIDUAL == NORM:
        residual_mean, residual_rstd = streamed_moments(residual_ptr, first_group, eps, N, C, G, P, GB, DP, EXACT)
        store_moments(moments_ptr, image, first_group, residual_mean, residual_rstd, 2, NUM, G, GB)
        residual_weight = tl.load(residual_weight_ptr + channels, mask=known, other=0.0)
        residual_bias = tl.load(residual_bias_ptr + channels, mask=known, other=0.0)
    weight = tl.load(weight_ptr + channels, mask=known, other=0.0)
    bias = tl.load(bias_ptr + channels, mask=known, other=0.0)
    for done in range(0, N, P):
        offsets = tile_offsets(LAST - done, first_group, C, D, P, GB, DP)
        inside = tile_inside(LAST - done, first_group, N, G, D, P, GB, DP)
        y = normalise(load_tile(x_ptr, offsets, inside, EXACT).to(tl.float32), mean, rstd, weight, bias)
        if RESIDUAL != NONE:
            residual = load_tile(residual_ptr, offsets, inside, EXACT).to(tl.float32)
            if RESIDUAL == NORM:
                residual = normalise(residual, residual_mean, residual_rstd, residual_weight, residual_bias)
            y += residual
        if RELU:
            y = relu(y)
        store_tile(y_ptr, offsets, y, inside, EXACT)


@triton.jit
def _masked(
    dy, x, residual, y, mean, rstd, weight, bias, residual_mean, residual_rstd, residual_weight, residual_bias,
    RESIDUAL: tl.constexpr, RELU: tl.constexpr,
):  # fmt: skip
    """The gradient behind the ReLU: where its input, found again (ADD: its saved output), was positive or NaN."""
    if RELU:
        if RESIDUAL != ADD:
            y = normalise(x, mean, rstd, weight, bias)
        if RESIDUAL == NORM:
            y += normalise(residual, residual_mean, residual_rstd, residual_weight, residual_bias)
        return tl.where(y <= 0.0, 0.0, dy)
    else:
        return dy


@triton.jit
def backward_resident(
    dy_ptr, x_ptr, weight_ptr, bias_ptr, residual_ptr, residual_weight_ptr, residual_bias_ptr, y_ptr, moments_ptr,
    dx_ptr, dresidual_ptr, partial_ptr,
    N: tl.constexpr, C: tl.constexpr, G: tl.constexpr, RESIDUAL: tl.constexpr, RELU: tl.constexpr,
    P: tl.constexpr, GB: tl.constexpr, DP: tl.constexpr, EXACT: tl.constexpr,
):  # fmt: skip
    """One read of dy and x (ADD: y, NORM: residual), one write of dx (and dresidual).

    ``partial [B, 2, C]``: dweight and dbias of every image; NORM: ``[B, 3, C]``, then the residual's dweight.
    """
    D: tl.constexpr = C // G
    COUNT: tl.constexpr = N * D
    NUM: tl.constexpr = 4 if RESIDUAL == NORM else 2
    ROWS: tl.constexpr = 3 if RESIDUAL == NORM else 2
    BLOCKS: tl.constexpr = (G + GB - 1) // GB
    image = (tl.program_id(0) // BLOCKS).to(tl.int64)
    first_group = tl.program_id(0) % BLOCKS * GB
    offsets = tile_offsets(0, first_group, C, D, P, GB, DP)
    inside = tile_inside(0, first_group, N, G, D, P, GB, DP)
    channels = channel_tile(first_group, D, GB, DP)
    known = channels_inside(first_group, G, D, GB, DP)

    dy = load_tile(dy_ptr + image * N * C, offsets, inside, EXACT)
    x = load_tile(x_ptr + image * N * C, offsets, inside, EXACT)
    y = x
    residual = x
    if RESIDUAL == ADD and RELU:
        y = load_tile(y_ptr + image * N * C, offsets, inside, EXACT)
    if RESIDUAL == NORM:
        residual = load_tile(residual_ptr + image * N * C, offsets, inside, EXACT)
    weight = tl.load(weight_ptr + channels, mask=known, other=0.0)
    bias = tl.load(bias_ptr + channels, mask=known, other=0.0)
    mean, rstd = load_moments(moments_ptr, image, first_group, 0, NUM, G, GB)
    residual_mean, residual_rstd, residual_weight, residual_bias = mean, rstd, weight, bias
    if RESIDUAL == NORM:
        residual_mean, residual_rstd = load_moments(moments_ptr, image, first_group, 2, NUM, G, GB)
        residual_weight = tl.load(residual_weight_ptr + channels, mask=known, other=0.0)
        residual_bias = tl.load(residual_bias_ptr + channels, mask=known, other=0.0)

    dz = _masked(
        dy.to(tl.float32), x.to(tl.float32), residual.to(tl.float32), y.to(tl.float32), mean, rstd, weight, bias,
        residual_mean, residual_rstd, residual_weight, residual_bias, RESIDUAL, RELU,
    )  # fmt: skip
    if RESIDUAL == ADD and RELU:
        store_tile(dresidual_ptr + image * N * C, offsets, dz, inside, EXACT)
    deviation = x.to(tl.float32) - mean[None, :, None]
    dbias = channel_sum(dz)
    dweight = channel_sum(dz * deviation) * rstd[:, None]
    partial = partial_ptr + image * ROWS * C + channels
    tl.store(partial, dweight, mask=known)
    tl.store(partial + C, dbias, mask=known)
    dx = input_gradient(dz, deviation, rstd, weight, dweight, dbias, COUNT)
    store_tile(dx_ptr + image * N * C, offsets, dx, inside, EXACT)
    if RESIDUAL == NORM:
        deviation = residual.to(tl.float32) - residual_mean[None, :, None]
        dweight = channel_sum(dz * deviation) * residual_rstd[:, None]
        tl.store(partial + 2 * C, dweight, mask=known)
        dresidual = input_gradient(dz, deviation, residual_rstd, residual_weight, dweight, dbias, COUNT)
        store_tile(dresidual_ptr + image * N * C, offsets, dresidual, inside, EXACT)


@triton.jit
def backward_streamed(
    dy_ptr, x_ptr, weight_ptr, bias_ptr, residual_ptr, residual_weight_ptr, residual_bias_ptr, y_ptr, moments_ptr,
    dx_ptr, dresidual_ptr, partial_ptr,
    N: tl.constexpr, C: tl.constexpr, G: tl.constexpr, RESIDUAL: tl.constexpr, RELU: tl.constexpr,
    P: tl.constexpr, GB: tl.constexpr, DP: tl.constexpr, EXACT: tl.constexpr,
):  # fmt: skip
    """The same with the slab read twice: sums first, gradients second and backwards."""
    D: tl.constexpr = C // G
    COUNT: tl.constexpr = N * D
    NUM: tl.constexpr = 4 if RESIDUAL == NORM else 2
    ROWS: tl.constexpr = 3 if RESIDUAL == NORM else 2
    BLOCKS: tl.constexpr = (G + GB - 1) // GB
    LAST: tl.constexpr = (N - 1) // P * P
    image = (tl.program_id(0) // BLOCKS).to(tl.int64)
    first_group = tl.program_id(0) % BLOCKS * GB
    dy_ptr += image * N * C
    x_ptr += image * N * C
    y_ptr += image * N * C
    residual_ptr += image * N * C
    dx_ptr += image * N * C
    dresidual_ptr += image * N * C
    channels = channel_tile(first_group, D, GB, DP)
    known = channels_inside(first_group, G, D, GB, DP)
    weight = tl.load(weight_ptr + channels, mask=known, other=0.0)
    bias = tl.load(bias_ptr + channels, mask=known, other=0.0)
    mean, rstd = load_moments(moments_ptr, image, first_group, 0, NUM, G, GB)
    residual_mean, residual_rstd, residual_weight, residual_bias = mean, rstd, weight, bias
    if RESIDUAL == NORM:
        residual_mean, residual_rstd = load_moments(moments_ptr, image, first_group, 2, NUM, G, GB)
        residual_weight = tl.load(residual_weight_ptr + channels, mask=known, other=0.0)
        residual_bias = tl.load(residual_bias_ptr + channels, mask=known, other=0.0)

    sums = tl.zeros([P, GB, DP], tl.float32)
    products = tl.zeros([P, GB, DP], tl.float32)
    residual_products = tl.zeros([P, GB, DP], tl.float32)
    for first in range(0, N, P):
        offsets = tile_offsets(first, first_group, C, D, P, GB, DP)
        inside = tile_inside(first, first_group, N, G, D, P, GB, DP)
        dy = load_tile(dy_ptr, offsets, inside, EXACT).to(tl.float32)
        x = load_tile(x_ptr, offsets, inside, EXACT).to(tl.float32)
        y = x
        residual = x
        if RESIDUAL == ADD and RELU:
            y = load_tile(y_ptr, offsets, inside, EXACT).to(tl.float32)
        if RESIDUAL == NORM:
            residual = load_tile(residual_ptr, offsets, inside, EXACT).to(tl.float32)
        dz = _masked(
            dy, x, residual, y, mean, rstd, weight, bias,
            residual_mean, residual_rstd, residual_weight, residual_bias, RESIDUAL, RELU,
        )  # fmt: skip
        if RESIDUAL == ADD and RELU:
            store_tile(dresidual_ptr, offsets, dz, inside, EXACT)
        sums += dz
        products += dz * (x - mean[None, :, None])
        if RESIDUAL == NORM:
            residual_products += dz * (residual - residual_mean[None, :, None])
    dbias = channel_sum(sums)
    dweight = channel_sum(products) * rstd[:, None]
    partial = partial_ptr + image * ROWS * C + channels
    tl.store(partial, dweight, mask=known)
    tl.store(partial + C, dbias, mask=known)
    residual_dweight = dweight
    if RESIDUAL == NORM:
        residual_dweight = channel_sum(residual_products) * residual_rstd[:, None]
        tl.store(partial + 2 * C, residual_dweight, mask=known)

    for done in range(0, N, P):
        offsets = tile_offsets(LAST - done, first_group, C, D, P, GB, DP)
        inside = tile_inside(LAST - done, first_group, N, G, D, P, GB, DP)
        dy = load_tile(dy_ptr, offsets, inside, EXACT).to(tl.float32)
        x = load_tile(x_ptr, offsets, inside, EXACT).to(tl.float32)
        y = x
        residual = x
        if RESIDUAL == ADD and RELU:
            y = load_tile(y_ptr, offsets, inside, EXACT).to(tl.float32)
        if RESIDUAL == NORM:
            residual = load_tile(residual_ptr, offsets, inside, EXACT).to(tl.float32)
        dz = _masked(
            dy, x, residual, y, mean, rstd, weight, bias,
            residual_mean, residual_rstd, residual_weight, residual_bias, RESIDUAL, RELU,
        )  # fmt: skip
        dx = input_gradient(dz, x - mean[None, :, None], rstd, weight, dweight, dbias, COUNT)
        store_tile(dx_ptr, offsets, dx, inside, EXACT)
        if RESIDUAL == NORM:
            deviation = residual - residual_mean[None, :, None]
            dresidual = input_gradient(dz, deviation, residual_rstd, residual_weight, residual_dweight, dbias, COUNT)
            store_tile(dresidual_ptr, offsets, dresidual, inside, EXACT)
