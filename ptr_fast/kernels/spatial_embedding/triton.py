"""spatial_embedding in Triton: sums over pixels in registers, the map read where it lies.

Forward and the kernel's gradient are one contraction, ``out[m, c, f] = sum_r x[m, r, c] * w[r, c, f]``: over pixels of
a sample with w the kernel, and over samples of a pixel with w the gradient of the output. The map's gradient is the
product without a sum over many: ``dx[b, p, c] = sum_f dout[b, c, f] * kernel[c, p, f]``. Where rows and channels are
too few programs for a GPU, the sum is split into parts; every sum has one order, so two runs are bit-equal.
"""

from __future__ import annotations

from typing import Any

import torch
import triton
import triton.language as tl

__all__ = ["spatial_embedding", "supports"]

# Rows and summed rows that a program has in flight at once, and its warps.
_BLOCK_M, _BLOCK_R, _NUM_WARPS = 8, 8, 4
_PIXELS = 32  # of a program of _expand
_MAX_FEATURES = 32
_MIN_PROGRAMS = 1024  # the sum is split until there are so many: eight for each of 128 multiprocessors


def _block_c(num_features: int) -> int:
    """Channels of a program: 128 sums for each of its rows, of 16 channels at most."""
    return min(16, 128 // triton.next_power_of_2(num_features))


def supports(x_BCHW: torch.Tensor, kernel_CPF: torch.Tensor) -> str | None:
    """None where the Triton kernels can run, else why not (where they may run at all is asked before)."""
    if x_BCHW.dtype not in (torch.float32, torch.bfloat16) or kernel_CPF.dtype != torch.float32:
        return f"x is {x_BCHW.dtype}, kernel {kernel_CPF.dtype}; the Triton kernel is for float32 (x also bfloat16)"
    if _pixel_strides(x_BCHW) is None:
        return f"x has strides {tuple(x_BCHW.stride())}, its pixels must lie evenly"
    if not 1 <= kernel_CPF.shape[2] <= _MAX_FEATURES:
        return f"{kernel_CPF.shape[2]} features, the Triton kernel is for 1 to {_MAX_FEATURES}"
    if x_BCHW.numel() == 0:
        return "x is empty"
    return None


def _pixel_strides(x_BCHW: torch.Tensor) -> tuple[int, int, int] | None:
    """Strides of sample, pixel and channel; None where rows do not follow each other evenly."""
    (_, _, height, width), (by_b, by_c, by_h, by_w) = x_BCHW.shape, x_BCHW.stride()
    if width == 1:
        return by_b, by_h, by_c
    return (by_b, by_w, by_c) if height == 1 or by_h == width * by_w else None


@triton.jit
def _contract(
    x, w, out, M, R, C,
    x_m, x_r, x_c, w_r, w_c, out_m, out_c, rows,
    F: tl.constexpr, BLOCK_M: tl.constexpr, BLOCK_R: tl.constexpr, BLOCK_C: tl.constexpr, BLOCK_F: tl.constexpr,
):  # fmt: skip
    """out[part, m, c, f] = sum of x[m, r, c] * w[r, c, f] over the r of a part (``rows`` of them), in float32.

    BLOCK_R of them are loaded at once, so that their latencies pass together. Strides of w and out count features: with
    a known number of them, several are loaded at a time.
    """
    m = tl.program_id(0).to(tl.int64) * BLOCK_M + tl.arange(0, BLOCK_M)
    c = tl.program_id(1).to(tl.int64) * BLOCK_C + tl.arange(0, BLOCK_C)
    part = tl.program_id(2).to(tl.int64)
    f = tl.arange(0, BLOCK_F)
    inside_mc = (m < M)[:, None] & (c < C)[None, :]
    inside_cf = (c < C)[:, None] & (f < F)[None, :]
    x_at = x + m[:, None, None] * x_m + c[None, None, :] * x_c
    w_at = w + c[None, :, None] * w_c * F + f[None, None, :]
    total = tl.zeros([BLOCK_M, BLOCK_C, BLOCK_F], dtype=tl.float32)
    for first in range(part * rows, tl.minimum((part + 1) * rows, R), BLOCK_R):
        r = first + tl.arange(0, BLOCK_R).to(tl.int64)
        inside_w = (r < R)[:, None, None] & inside_cf[None, :, :]
        weights = tl.load(w_at + r[:, None, None] * w_r * F, mask=inside_w, other=0.0)
        inside_x = inside_mc[:, None, :] & (r < R)[None, :, None]
        values = tl.load(x_at + r[None, :, None] * x_r, mask=inside_x, other=0.0).to(tl.float32)
        total += tl.sum(values[:, :, :, None] * weights[None, :, :, :], axis=1)
    at = (part * M * C + m[:, None, None] * out_m + c[None, :, None] * out_c) * F + f[None, None, :]
    tl.store(out + at, total, mask=inside_mc[:, :, None] & (f < F)[None, None, :])


@triton.jit
def _expand(
    dout, kernel, dx, B, P, C,
    dx_b, dx_p, dx_c,
    F: tl.constexpr, BLOCK_B: tl.constexpr, BLOCK_P: tl.constexpr, BLOCK_C: tl.constexpr, BLOCK_F: tl.constexpr,
    PIXELS: tl.constexpr,
):  # fmt: skip
    """dx[b, p, c] = sum_f dout[b, c, f] * kernel[c, p, f], for PIXELS pixels, BLOCK_P at once."""
    b = tl.program_id(0).to(tl.int64) * BLOCK_B + tl.arange(0, BLOCK_B)
    c = tl.program_id(1).to(tl.int64) * BLOCK_C + tl.arange(0, BLOCK_C)
    f = tl.arange(0, BLOCK_F)
    inside_bc = (b < B)[:, None] & (c < C)[None, :]
    inside_fc = (f < F)[:, None] & (c < C)[None, :]
    # Features are the second axis: they lie in a thread's registers, and nothing is summed across threads.
    at = (b[:, None, None] * C + c[None, None, :]) * F + f[None, :, None]
    gradient = tl.load(dout + at, mask=inside_bc[:, None, :] & (f < F)[None, :, None], other=0.0)
    for first in range(0, PIXELS, BLOCK_P):
        p = tl.program_id(2).to(tl.int64) * PIXELS + first + tl.arange(0, BLOCK_P)
        weights_at = kernel + (c[None, None, :] * P + p[None, :, None]) * F + f[:, None, None]
        weights = tl.load(weights_at, mask=inside_fc[:, None, :] & (p < P)[None, :, None], other=0.0)
        value = tl.sum(gradient[:, :, None, :] * weights[None, :, :, :], axis=1)
        dx_at = dx + b[:, None, None] * dx_b + p[None, :, None] * dx_p + c[None, None, :] * dx_c
        inside = inside_bc[:, None, :] & (p < P)[None, :, None]
        tl.store(dx_at, value.to(dx.dtype.element_ty), mask=inside)


def spatial_embedding(x_BCHW: torch.Tensor, kernel_CPF: torch.Tensor) -> torch.Tensor:
    return _SpatialEmbedding.apply(x_BCHW, kernel_CPF)


class _SpatialEmbedding(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x_BCHW: torch.Tensor, kernel_CPF: torch.Tensor) -> torch.Tensor:
        kernel_CPF = kernel_CPF.contiguous()
        ctx.save_for_backward(x_BCHW, kernel_CPF)
        num_batch, (num_channels, num_pixels, num_features) = x_BCHW.shape[0], kernel_CPF.shape
        x_b, x_p, x_c = _strides(x_BCHW)
        return _contracted(
            (num_batch, num_channels * num_features),
            *(x_BCHW, kernel_CPF, num_batch, num_pixels, num_channels, num_features),
            *(x_b, x_p, x_c, 1, num_pixels, num_channels, 1),
        )

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, grad_out: torch.Tensor) -> tuple[torch.Tensor | None, torch.Tensor | None]:
        x_BCHW, kernel_CPF = ctx.saved_tensors
        num_batch, (num_channels, num_pixels, num_features) = x_BCHW.shape[0], kernel_CPF.shape
        grad_out = grad_out.contiguous()
        dx = dkernel = None
        if ctx.needs_input_grad[0]:
            dx = torch.empty_like(x_BCHW)
            grid = (
                triton.cdiv(num_batch, _BLOCK_M),
                triton.cdiv(num_channels, _block_c(num_features)),
                triton.cdiv(num_pixels, _PIXELS),
            )
            _expand[grid](
                *(grad_out, kernel_CPF, dx, num_batch, num_pixels, num_channels, *_strides(dx)),
                F=num_features,
                BLOCK_B=_BLOCK_M,
                BLOCK_P=_BLOCK_R,
                BLOCK_C=_block_c(num_features),
                BLOCK_F=triton.next_power_of_2(num_features),
                PIXELS=_PIXELS,
                num_warps=_NUM_WARPS,
            )
        if ctx.needs_input_grad[1]:
            x_b, x_p, x_c = _strides(x_BCHW)
            dkernel = _contracted(
                tuple(kernel_CPF.shape),
                *(x_BCHW, grad_out, num_pixels, num_batch, num_channels, num_features),
                *(x_p, x_b, x_c, num_channels, 1, 1, num_pixels),
            )
        return dx, dkernel


def _strides(x_BCHW: torch.Tensor) -> tuple[int, int, int]:
    strides = _pixel_strides(x_BCHW)
    assert strides is not None, "supports() asked"
    return strides


def _contracted(
    shape: tuple[int, ...],
    x: torch.Tensor,
    w: torch.Tensor,
    num_m: int,
    num_r: int,
    num_channels: int,
    num_features: int,
    *strides: int,
) -> torch.Tensor:
    """The result of :func:`_contract` as a float32 tensor of a shape; parts of the sum are added up in their order."""
    blocks = triton.cdiv(num_m, _BLOCK_M), triton.cdiv(num_channels, _block_c(num_features))
    wanted = min(triton.cdiv(_MIN_PROGRAMS, blocks[0] * blocks[1]), triton.cdiv(num_r, _BLOCK_R))
    rows = triton.cdiv(triton.cdiv(num_r, wanted), _BLOCK_R) * _BLOCK_R
    num_parts = triton.cdiv(num_r, rows)
    out = torch.empty((num_parts, *shape), dtype=torch.float32, device=x.device)
    _contract[(*blocks, num_parts)](
        *(x, w, out, num_m, num_r, num_channels, *strides, rows),
        F=num_features,
        BLOCK_M=_BLOCK_M,
        BLOCK_R=_BLOCK_R,
        BLOCK_C=_block_c(num_features),
        BLOCK_F=triton.next_power_of_2(num_features),
        num_warps=_NUM_WARPS,
    )
    return out[0] if num_parts == 1 else out.sum(dim=0)
