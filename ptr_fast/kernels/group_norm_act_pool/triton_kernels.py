"""The Triton kernels of group_norm_act_pool. Windows are ``[P, GB, DP]`` tiles like pixels: see group_norm_act/slab.py.

Window (i, j) covers pixels (2 i - TOP + a, 2 j - LEFT + b) with a, b in 0..2; its tap is 3 a + b. TOP and LEFT are 1
where SAME pads the first side (odd sizes), else 0.
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
    normalise,
    relu,
    store_moments,
    streamed_moments,
)

__all__ = ["backward", "forward"]


@triton.jit
def _plane(row, column, channels, inside, HEIGHT: tl.constexpr, WIDTH: tl.constexpr, C: tl.constexpr):
    """Offsets and validity [P, GB, DP] of the pixels (or windows) at row, column [P] of a HEIGHT x WIDTH image."""
    known = (row >= 0) & (row < HEIGHT) & (column >= 0) & (column < WIDTH)
    offsets = ((row * WIDTH + column) * C)[:, None, None] + channels[None, :, :]
    return offsets, inside & known[:, None, None]


@triton.jit
def forward(
    x_ptr, weight_ptr, bias_ptr, y_ptr, argmax_ptr, moments_ptr, eps,
    H: tl.constexpr, W: tl.constexpr, C: tl.constexpr, G: tl.constexpr, ARGMAX: tl.constexpr,
    P: tl.constexpr, GB: tl.constexpr, DP: tl.constexpr, EXACT: tl.constexpr,
):  # fmt: skip
    """Moments first, then windows, backwards: every window reads its nine taps, which the caches hold.

    ``argmax``: the tap that won, the first of equals, or -1 where the maximum is 0 and the ReLU passes no gradient.
    """
    D: tl.constexpr = C // G
    BLOCKS: tl.constexpr = (G + GB - 1) // GB
    HO: tl.constexpr = (H + 1) // 2
    WO: tl.constexpr = (W + 1) // 2
    LAST: tl.constexpr = (HO * WO - 1) // P * P
    image = (tl.program_id(0) // BLOCKS).to(tl.int64)
    first_group = tl.program_id(0) % BLOCKS * GB
    x_ptr += image * H * W * C
    y_ptr += image * HO * WO * C
    argmax_ptr += image * HO * WO * C
    channels = channel_tile(first_group, D, GB, DP)
    known = channels_inside(first_group, G, D, GB, DP)
    mean, rstd = streamed_moments(x_ptr, first_group, eps, H * W, C, G, P, GB, DP, EXACT)
    store_moments(moments_ptr, image, first_group, mean, rstd, 0, 2, G, GB)
    weight = tl.load(weight_ptr + channels, mask=known, other=0.0)
    bias = tl.load(bias_ptr + channels, mask=known, other=0.0)
    for done in range(0, HO * WO, P):
        window = LAST - done + tl.arange(0, P)
        row, column = window // WO, window % WO
        here, inside = _plane(row, column, channels, known[None, :, :], HO, WO, C)
        best = tl.full([P, GB, DP], float("-inf"), tl.float32)
        winner = tl.full([P, GB, DP], -1, tl.int32)
        for tap in tl.static_range(9):
            offsets, valid = _plane(
                2 * row - H % 2 + tap // 3, 2 * column - W % 2 + tap % 3, channels, known[None, :, :], H, W, C
            )
            z = normalise(tl.load(x_ptr + offsets, mask=valid, other=0.0).to(tl.float32), mean, rstd, weight, bias)
            better = valid & ((z > best) | (z != z))
            best = tl.where(better, z, best)
            winner = tl.where(better, tap, winner)
        tl.store(y_ptr + here, relu(best).to(y_ptr.dtype.element_ty), mask=inside)
        if ARGMAX:
            tl.store(argmax_ptr + here, tl.where(best <= 0.0, -1, winner).to(tl.int8), mask=inside)


@triton.jit
def _window(dy_ptr, argmax_ptr, row, column, channels, known, HO: tl.constexpr, WO: tl.constexpr, C: tl.constexpr):
    """Gradient and winning tap of windows, 0 and -1 outside."""
    offsets, valid = _plane(row, column, channels, known, HO, WO, C)
    dy = tl.load(dy_ptr + offsets, mask=valid, other=0.0).to(tl.float32)
    return dy, tl.load(argmax_ptr + offsets, mask=valid, other=-1)


@triton.jit
def backward(
    dy_ptr, argmax_ptr, x_ptr, weight_ptr, moments_ptr, dx_ptr, partial_ptr,
    H: tl.constexpr, W: tl.constexpr, C: tl.constexpr, G: tl.constexpr,
    P: tl.constexpr, GB: tl.constexpr, DP: tl.constexpr,
):  # fmt: skip
    """Sums over the windows first (each reads its winner's x among nine taps), then every pixel gathers its gradient.

    ``partial [B, 2, C]``: dweight and dbias of every image.
    """
    D: tl.constexpr = C // G
    BLOCKS: tl.constexpr = (G + GB - 1) // GB
    HO: tl.constexpr = (H + 1) // 2
    WO: tl.constexpr = (W + 1) // 2
    LAST: tl.constexpr = (HO * WO - 1) // P * P
    image = (tl.program_id(0) // BLOCKS).to(tl.int64)
    first_group = tl.program_id(0) % BLOCKS * GB
    dy_ptr += image * HO * WO * C
    argmax_ptr += image * HO * WO * C
    x_ptr += image * H * W * C
    dx_ptr += image * H * W * C
    channels = channel_tile(first_group, D, GB, DP)
    known = channels_inside(first_group, G, D, GB, DP)
    weight = tl.load(weight_ptr + channels, mask=known, other=0.0)
    mean, rstd = load_moments(moments_ptr, image, first_group, 0, 2, G, GB)

    sums = tl.zeros([P, GB, DP], tl.float32)
    products = tl.zeros([P, GB, DP], tl.float32)
    for first in range(0, HO * WO, P):
        window = first + tl.arange(0, P)
        row, column = window // WO, window % WO
        dy, winner = _window(dy_ptr, argmax_ptr, row, column, channels, known[None, :, :], HO, WO, C)
        sums += tl.where(winner >= 0, dy, 0.0)
        for tap in tl.static_range(9):
            offsets, valid = _plane(
                2 * row - H % 2 + tap // 3, 2 * column - W % 2 + tap % 3, channels, known[None, :, :], H, W, C
            )
            x = tl.load(x_ptr + offsets, mask=valid, other=0.0).to(tl.float32)
            products += tl.where(winner == tap, dy * (x - mean[None, :, None]), 0.0)
    dbias = channel_sum(sums)
    dweight = channel_sum(products) * rstd[:, None]
    partial = partial_ptr + image * 2 * C + channels
    tl.store(partial, dweight, mask=known)
    tl.store(partial + C, dbias, mask=known)

    for done in range(0, HO * WO, P):
        window = LAST - done + tl.arange(0, P)
        row, column = window // WO, window % WO
        # Pixel (2 i + a, 2 j + b) is in window (i, j), and where a or b is 0 also in those above, to the left, across.
        dy, tap = _window(dy_ptr, argmax_ptr, row, column, channels, known[None, :, :], HO, WO, C)
        dy_left, tap_left = _window(dy_ptr, argmax_ptr, row, column - 1, channels, known[None, :, :], HO, WO, C)
        for a in tl.static_range(1, -1, -1):
            if a == 0:
                dy_above, tap_above = _window(
                    dy_ptr, argmax_ptr, row - 1, column, channels, known[None, :, :], HO, WO, C
                )
                dy_across, tap_across = _window(
                    dy_ptr, argmax_ptr, row - 1, column - 1, channels, known[None, :, :], HO, WO, C
                )
            for b in tl.static_range(1, -1, -1):
                dz = tl.where(tap == 3 * a + b, dy, 0.0)
                if b == 0:
                    dz += tl.where(tap_left == 3 * a + 2, dy_left, 0.0)
                if a == 0:
                    dz += tl.where(tap_above == 6 + b, dy_above, 0.0)
                if a == 0 and b == 0:
                    dz += tl.where(tap_across == 8, dy_across, 0.0)
                offsets, valid = _plane(
                    2 * row - H % 2 + a, 2 * column - W % 2 + b, channels, known[None, :, :], H, W, C
                )
                x = tl.load(x_ptr + offsets, mask=valid, other=0.0).to(tl.float32)
                dx = input_gradient(dz, x - mean[None, :, None], rstd, weight, dweight, dbias, H * W * D)
                tl.store(dx_ptr + offsets, dx.to(dx_ptr.dtype.element_ty), mask=valid)
