"""spatial_embedding in Triton: sums over pixels in registers, the map read where it lies.

Forward and the kernel's gradient are one contraction, ``out[m, c, f] = sum_r x[m, r, c] * w[r, c, f]``: over pixels of
a sample with w the kernel, and over samples of a pixel with w the gradient of the output. The map's gradient is the
product without a sum over many: ``dx[b, p, c] = sum_f dout[b, c, f] * kernel[c, p, f]``. Every sum has one program and
one order, so two runs are bit-equal.
"""

from __future__ import annotations

from typing import Any

import torch
import triton
import triton.language as tl

from ptr_fast.kernels.cubins import Cubin

__all__ = ["cubins", "spatial_embedding", "supports"]

# Rows and channels of a program: enough programs for a GPU at batch 64 and 512 channels, 32 sums per thread at F = 8.
_BLOCK_M, _BLOCK_C, _NUM_WARPS = 8, 16, 1
_PIXELS = 32  # of a program of _expand
_MAX_FEATURES = 32


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
    x, w, out, M, R, C, F,
    x_m, x_r, x_c, w_r, w_c, out_m, out_c,
    BLOCK_M: tl.constexpr, BLOCK_C: tl.constexpr, BLOCK_F: tl.constexpr,
):  # fmt: skip
    """out[m, c, f] = sum_r x[m, r, c] * w[r, c, f] in float32, r in order."""
    m = tl.program_id(0).to(tl.int64) * BLOCK_M + tl.arange(0, BLOCK_M)
    c = tl.program_id(1).to(tl.int64) * BLOCK_C + tl.arange(0, BLOCK_C)
    f = tl.arange(0, BLOCK_F)
    inside_x = (m < M)[:, None] & (c < C)[None, :]
    inside_w = (c < C)[:, None] & (f < F)[None, :]
    x_at = x + m[:, None] * x_m + c[None, :] * x_c
    w_at = w + c[:, None] * w_c + f[None, :]
    total = tl.zeros([BLOCK_M, BLOCK_C, BLOCK_F], dtype=tl.float32)
    for _ in range(R):
        values = tl.load(x_at, mask=inside_x, other=0.0).to(tl.float32)
        weights = tl.load(w_at, mask=inside_w, other=0.0)
        total += values[:, :, None] * weights[None, :, :]
        x_at += x_r
        w_at += w_r
    at = m[:, None, None] * out_m + c[None, :, None] * out_c + f[None, None, :]
    tl.store(out + at, total, mask=inside_x[:, :, None] & (f < F)[None, None, :])


@triton.jit
def _expand(
    dout, kernel, dx, B, P, C, F,
    dx_b, dx_p, dx_c,
    BLOCK_B: tl.constexpr, BLOCK_P: tl.constexpr, BLOCK_C: tl.constexpr, BLOCK_F: tl.constexpr,
):  # fmt: skip
    """dx[b, p, c] = sum_f dout[b, c, f] * kernel[c, p, f], for BLOCK_P pixels one after the other."""
    b = tl.program_id(0).to(tl.int64) * BLOCK_B + tl.arange(0, BLOCK_B)
    c = tl.program_id(1).to(tl.int64) * BLOCK_C + tl.arange(0, BLOCK_C)
    f = tl.arange(0, BLOCK_F)
    first = tl.program_id(2).to(tl.int64) * BLOCK_P
    inside = (b < B)[:, None] & (c < C)[None, :]
    of_f = (f < F)[None, None, :]
    at = b[:, None, None] * C * F + c[None, :, None] * F + f[None, None, :]
    gradient = tl.load(dout + at, mask=inside[:, :, None] & of_f, other=0.0)
    kernel_at = kernel + c[:, None] * P * F + first * F + f[None, :]
    dx_at = dx + b[:, None] * dx_b + c[None, :] * dx_c + first * dx_p
    for _ in range(tl.minimum(P - first, BLOCK_P)):
        weights = tl.load(kernel_at, mask=(c < C)[:, None] & (f < F)[None, :], other=0.0)
        value = tl.sum(gradient * weights[None, :, :], axis=2)
        tl.store(dx_at, value.to(dx.dtype.element_ty), mask=inside)
        kernel_at += F
        dx_at += dx_p


def spatial_embedding(x_BCHW: torch.Tensor, kernel_CPF: torch.Tensor) -> torch.Tensor:
    return _SpatialEmbedding.apply(x_BCHW, kernel_CPF)


class _SpatialEmbedding(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x_BCHW: torch.Tensor, kernel_CPF: torch.Tensor) -> torch.Tensor:
        kernel_CPF = kernel_CPF.contiguous()
        ctx.save_for_backward(x_BCHW, kernel_CPF)
        num_batch, (num_channels, num_pixels, num_features) = x_BCHW.shape[0], kernel_CPF.shape
        out = torch.empty((num_batch, num_channels * num_features), device=x_BCHW.device)
        x_b, x_p, x_c = _strides(x_BCHW)
        _launch_contract(
            *(x_BCHW, kernel_CPF, out, num_batch, num_pixels, num_channels, num_features),
            *(x_b, x_p, x_c, num_features, num_pixels * num_features, num_channels * num_features, num_features),
        )
        return out

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
                triton.cdiv(num_channels, _BLOCK_C),
                triton.cdiv(num_pixels, _PIXELS),
            )
            _expand[grid](
                *(grad_out, kernel_CPF, dx, num_batch, num_pixels, num_channels, num_features, *_strides(dx)),
                BLOCK_B=_BLOCK_M,
                BLOCK_P=_PIXELS,
                BLOCK_C=_BLOCK_C,
                BLOCK_F=triton.next_power_of_2(num_features),
                num_warps=_NUM_WARPS,
            )
        if ctx.needs_input_grad[1]:
            dkernel = torch.empty_like(kernel_CPF)
            x_b, x_p, x_c = _strides(x_BCHW)
            _launch_contract(
                *(x_BCHW, grad_out, dkernel, num_pixels, num_batch, num_channels, num_features),
                *(x_p, x_b, x_c, num_channels * num_features, num_features, num_features, num_pixels * num_features),
            )
        return dx, dkernel


def _strides(x_BCHW: torch.Tensor) -> tuple[int, int, int]:
    strides = _pixel_strides(x_BCHW)
    assert strides is not None, "supports() asked"
    return strides


def _launch_contract(x: torch.Tensor, w: torch.Tensor, out: torch.Tensor, *sizes_and_strides: int) -> None:
    num_rows, _, num_channels, num_features = sizes_and_strides[:4]
    _contract[(triton.cdiv(num_rows, _BLOCK_M), triton.cdiv(num_channels, _BLOCK_C))](
        x,
        w,
        out,
        *sizes_and_strides,
        BLOCK_M=_BLOCK_M,
        BLOCK_C=_BLOCK_C,
        BLOCK_F=triton.next_power_of_2(num_features),
        num_warps=_NUM_WARPS,
    )


def cubins() -> list[Cubin]:
    """The published head: 512 channels of 16x16 or 8x8 pixels in channels_last, 8 features."""
    out = []
    for dtype in ("fp32", "bf16"):
        ints = ("M", "R", "C", "F", "x_m", "x_r", "w_r", "w_c", "out_m", "out_c")
        out.append(
            Cubin(
                kernel=_contract,
                signature={
                    **{"x": f"*{dtype}", "w": "*fp32", "out": "*fp32", **dict.fromkeys(ints, "i32")},
                    **dict.fromkeys(("x_c", "BLOCK_M", "BLOCK_C", "BLOCK_F"), "constexpr"),
                },
                constants={"x_c": 1, "BLOCK_M": _BLOCK_M, "BLOCK_C": _BLOCK_C, "BLOCK_F": 8},
                num_warps=_NUM_WARPS,
                case=f"forward and kernel's gradient, {dtype}",
            )
        )
        out.append(
            Cubin(
                kernel=_expand,
                signature={
                    **{"dout": "*fp32", "kernel": "*fp32", "dx": f"*{dtype}"},
                    **dict.fromkeys(("B", "P", "C", "F", "dx_b", "dx_p"), "i32"),
                    **dict.fromkeys(("dx_c", "BLOCK_B", "BLOCK_P", "BLOCK_C", "BLOCK_F"), "constexpr"),
                },
                constants={
                    **{"dx_c": 1, "BLOCK_B": _BLOCK_M, "BLOCK_P": _PIXELS, "BLOCK_C": _BLOCK_C, "BLOCK_F": 8},
                },
                num_warps=_NUM_WARPS,
                case=f"map's gradient, {dtype}",
            )
        )
    return out
