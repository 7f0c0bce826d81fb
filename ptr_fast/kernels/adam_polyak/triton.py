"""adam_polyak in Triton: one small launch for the scalars of every tensor, one for all elements of all tensors.

Nothing about a step comes from the host: counts of updates, learning rate and the norm of the gradients are read on the
device, so a captured CUDA graph replays with the right correction of the bias, the right rate and the right norm.
Clipping takes two launches more: the sum of squares of every chunk, and of all chunks, each in one order.
"""

from __future__ import annotations

import math
import weakref
from collections.abc import Sequence

import torch
import triton
import triton.language as tl

from ptr_fast.kernels.adam_polyak.operands import Operands

__all__ = ["adam_polyak", "supports"]

# Elements of a program: 8 per thread, two loads of 16 bytes from each of five streams in flight, two or more programs a
# multiprocessor.
_BLOCK, _NUM_WARPS = 2048, 8
_SCALARS_BLOCK = 32  # tensors of a program of one warp
_SUMS_BLOCK = 1024  # sums of squares that are added at once


def supports(operands: Operands) -> str | None:
    """None where the Triton kernels can run, else why not (where they may run at all is asked before)."""
    if operands.dtype != torch.float32:
        return f"parameters are {str(operands.dtype).removeprefix('torch.')}, the Triton kernel is for float32"
    if not operands.is_dense:
        return "a parameter is neither contiguous nor channels_last"
    return None


@triton.jit
def _scalars(
    gradients,
    steps,
    lr,
    step_sizes,
    epsilons,
    N,
    LOG_BETA1: tl.constexpr,
    LOG_BETA2: tl.constexpr,
    EPS: tl.constexpr,
    BLOCK: tl.constexpr,
):
    """Counts the update of every tensor that has a gradient; its step size and epsilon, corrected for the bias."""
    i = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    inside = i < N
    has_gradient = tl.load(gradients + i, mask=inside, other=0) != 0
    step = tl.load(steps + i, mask=inside, other=0.0) + tl.where(has_gradient, 1.0, 0.0)
    tl.store(steps + i, step, mask=inside)
    # In float64: 1 - beta2 keeps three digits fewer than beta2 has. A tensor without an update so far is not read.
    count = tl.maximum(step, 1.0).to(tl.float64)
    correction1 = 1.0 - tl.exp(count * LOG_BETA1)
    root2 = tl.sqrt(1.0 - tl.exp(count * LOG_BETA2))
    step_size = tl.load(lr).to(tl.float64) / correction1 * root2
    tl.store(step_sizes + i, step_size.to(tl.float32), mask=inside)
    tl.store(epsilons + i, (EPS * root2).to(tl.float32), mask=inside)


@triton.jit
def _squares(tables, gradients, chunk_tensor, chunk_first, sums, N, ALIGNED: tl.constexpr, BLOCK: tl.constexpr):
    """Sum of squares of one chunk of one gradient; 0 where there is none."""
    chunk = tl.program_id(0)
    i = tl.load(chunk_tensor + chunk)
    at = tl.load(chunk_first + chunk).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    g_at = tl.load(gradients + i)
    inside = (at < tl.load(tables + 4 * N + i)) & (g_at != 0)
    g = tl.load(_pointers(g_at, at, tl.float32, ALIGNED), mask=inside, other=0.0)
    tl.store(sums + chunk, tl.sum(g * g, axis=0))


@triton.jit
def _gradient_scale(sums, scale, num_chunks, MAX_NORM: tl.constexpr, BLOCK: tl.constexpr):
    """What every gradient is multiplied by, of the sums of squares of all chunks; one program."""
    lanes = tl.zeros((BLOCK,), tl.float64)
    for first in range(0, num_chunks, BLOCK):
        i = first + tl.arange(0, BLOCK)
        lanes += tl.load(sums + i, mask=i < num_chunks, other=0.0).to(tl.float64)
    ratio = MAX_NORM / (tl.sqrt(tl.sum(lanes, axis=0)) + 1e-6)
    tl.store(scale, tl.where(ratio > 1.0, 1.0, ratio).to(tl.float32))  # NaN stays NaN


@triton.jit
def _pointers(address, at, TYPE: tl.constexpr, ALIGNED: tl.constexpr):
    pointers = address.to(tl.pointer_type(TYPE)) + at
    if ALIGNED:
        pointers = tl.multiple_of(pointers, 16)
    return pointers


@triton.jit
def _update_chunk(
    tables,
    gradients,
    step_sizes,
    epsilons,
    N,
    i,
    at,
    inside,
    lr,
    scale,
    WEIGHT_DECAY: tl.constexpr,
    CLIPS: tl.constexpr,
    BETA1: tl.constexpr,
    BETA2: tl.constexpr,
    TAU: tl.constexpr,
    HAS_AVERAGE: tl.constexpr,
    ALIGNED: tl.constexpr,
):
    """Elements ``at`` of tensor i: moments, parameter, average."""
    p_to = _pointers(tl.load(tables + i), at, tl.float32, ALIGNED)
    g_at = tl.load(gradients + i)
    p = tl.load(p_to, mask=inside)
    if g_at != 0:
        m_to = _pointers(tl.load(tables + N + i), at, tl.float32, ALIGNED)
        v_to = _pointers(tl.load(tables + 2 * N + i), at, tl.float32, ALIGNED)
        g = tl.load(_pointers(g_at, at, tl.float32, ALIGNED), mask=inside)
        if CLIPS:
            g *= tl.load(scale)
        if WEIGHT_DECAY > 0.0:
            p *= (1.0 - tl.load(lr).to(tl.float64) * WEIGHT_DECAY).to(tl.float32)
        m = tl.load(m_to, mask=inside)
        v = tl.load(v_to, mask=inside)
        m += (g - m) * (1.0 - BETA1)
        v = v * BETA2 + g * g * (1.0 - BETA2)
        p -= tl.div_rn(tl.load(step_sizes + i) * m, tl.sqrt_rn(v) + tl.load(epsilons + i))
        tl.store(m_to, m, mask=inside)
        tl.store(v_to, v, mask=inside)
        tl.store(p_to, p, mask=inside)
    if HAS_AVERAGE:
        average_to = _pointers(tl.load(tables + 3 * N + i), at, tl.float32, ALIGNED)
        average = tl.load(average_to, mask=inside)
        if TAU < 0.5:
            average += TAU * (p - average)
        else:
            average = p - (p - average) * (1.0 - TAU)
        tl.store(average_to, average, mask=inside)


@triton.jit
def _update(
    tables,
    gradients,
    chunk_tensor,
    chunk_first,
    step_sizes,
    epsilons,
    lr,
    scale,
    N,
    WEIGHT_DECAY: tl.constexpr,
    CLIPS: tl.constexpr,
    BETA1: tl.constexpr,
    BETA2: tl.constexpr,
    TAU: tl.constexpr,
    HAS_AVERAGE: tl.constexpr,
    ALIGNED: tl.constexpr,
    BLOCK: tl.constexpr,
):
    """One chunk of one tensor. Whole chunks go without a mask: with one, loads of 16 bytes become four of 4."""
    chunk = tl.program_id(0)
    i = tl.load(chunk_tensor + chunk)
    first = tl.load(chunk_first + chunk).to(tl.int64) * BLOCK
    at = first + tl.arange(0, BLOCK)
    size = tl.load(tables + 4 * N + i)
    if first + BLOCK <= size:
        _update_chunk(
            tables, gradients, step_sizes, epsilons, N, i, at, None, lr, scale,
            WEIGHT_DECAY, CLIPS, BETA1, BETA2, TAU, HAS_AVERAGE, ALIGNED,
        )  # fmt: skip
    else:
        _update_chunk(
            tables, gradients, step_sizes, epsilons, N, i, at, at < size, lr, scale,
            WEIGHT_DECAY, CLIPS, BETA1, BETA2, TAU, HAS_AVERAGE, ALIGNED,
        )  # fmt: skip


class _Chunks:
    """Which part of which tensor each program takes, and room for the scalars of every tensor."""

    def __init__(self, operands: Operands) -> None:
        sizes = [parameter.numel() for parameter in operands.parameters]
        tensors = [i for i, size in enumerate(sizes) for _ in range(triton.cdiv(size, _BLOCK))]
        firsts = [first for size in sizes for first in range(triton.cdiv(size, _BLOCK))]
        self.count = len(tensors)
        self.tensor = torch.tensor(tensors, dtype=torch.int32, device=operands.device)
        self.first = torch.tensor(firsts, dtype=torch.int32, device=operands.device)
        self.step_sizes = torch.empty_like(operands.steps_N)
        self.epsilons = torch.empty_like(operands.steps_N)
        self.sums = torch.empty(self.count, device=operands.device)
        self.scale = torch.ones(1, device=operands.device)


_chunks: weakref.WeakKeyDictionary[Operands, _Chunks] = weakref.WeakKeyDictionary()


def adam_polyak(
    operands: Operands,
    gradients: Sequence[torch.Tensor | None],
    lr: float | torch.Tensor,
    betas: tuple[float, float],
    eps: float,
    tau: float,
    weight_decay: float,
    max_grad_norm: float,
) -> None:
    chunks = _chunks.get(operands)
    if chunks is None:
        chunks = _chunks[operands] = _Chunks(operands)
    laid_out = operands.laid_out(gradients)  # kept until the launch is queued
    addresses_N, aligned = operands.gradient_addresses_N(laid_out)
    rate = lr if isinstance(lr, torch.Tensor) else torch.full((), lr, dtype=torch.float32, device=operands.device)
    num_tensors = len(laid_out)
    _scalars[(triton.cdiv(num_tensors, _SCALARS_BLOCK),)](
        addresses_N,
        operands.steps_N,
        rate,
        chunks.step_sizes,
        chunks.epsilons,
        num_tensors,
        LOG_BETA1=math.log(betas[0]),
        LOG_BETA2=math.log(betas[1]),
        EPS=eps,
        BLOCK=_SCALARS_BLOCK,
        num_warps=1,
    )
    is_aligned = operands.is_aligned and aligned
    if max_grad_norm:
        _squares[(chunks.count,)](
            operands.tables_5N,
            addresses_N,
            chunks.tensor,
            chunks.first,
            chunks.sums,
            num_tensors,
            ALIGNED=is_aligned,
            BLOCK=_BLOCK,
            num_warps=_NUM_WARPS,
        )
        _gradient_scale[(1,)](
            chunks.sums, chunks.scale, chunks.count, MAX_NORM=max_grad_norm, BLOCK=_SUMS_BLOCK, num_warps=_NUM_WARPS
        )
    _update[(chunks.count,)](
        operands.tables_5N,
        addresses_N,
        chunks.tensor,
        chunks.first,
        chunks.step_sizes,
        chunks.epsilons,
        rate,
        chunks.scale,
        num_tensors,
        WEIGHT_DECAY=weight_decay,
        CLIPS=max_grad_norm > 0.0,
        BETA1=betas[0],
        BETA2=betas[1],
        TAU=tau,
        HAS_AVERAGE=operands.averages is not None,
        ALIGNED=is_aligned,
        BLOCK=_BLOCK,
        num_warps=_NUM_WARPS,
    )
