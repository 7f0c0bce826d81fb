"""counter_random in Triton: one program per 256 blocks of four words."""

from __future__ import annotations

import torch
import triton
import triton.language as tl

__all__ = ["counter_random", "supports"]

_KINDS = {"bits": 0, "uniform": 1, "normal": 2}
_NUM_BLOCKS = 256  # Philox blocks of one program
_NUM_WARPS = 4


def supports(device: torch.device) -> str | None:
    """None: the kernel can run wherever Triton can (which is asked before)."""
    return None


@triton.jit
def _philox(c0, c1, c2, c3, k0, k1):
    for _ in tl.static_range(10):
        high0 = tl.umulhi(c0, 0xD2511F53)
        high1 = tl.umulhi(c2, 0xCD9E8D57)
        low0 = tl.mul(c0, 0xD2511F53, sanitize_overflow=False)
        low1 = tl.mul(c2, 0xCD9E8D57, sanitize_overflow=False)
        c0 = high1 ^ c1 ^ k0
        c1 = low1
        c2 = high0 ^ c3 ^ k1
        c3 = low0
        k0 = tl.add(k0, 0x9E3779B9, sanitize_overflow=False)
        k1 = tl.add(k1, 0xBB67AE85, sanitize_overflow=False)
    return c0, c1, c2, c3


@triton.jit
def _store(out_ptr, word0, word1, at, left, KIND: tl.constexpr):
    """Two neighbouring words as numbers of a kind, where ``left`` counts the places that remain in the row."""
    if KIND == 0:
        first = word0.to(tl.int64)
        second = word1.to(tl.int64)
    elif KIND == 1:
        first = (word0 >> 8).to(tl.float32) * 5.9604644775390625e-08
        second = (word1 >> 8).to(tl.float32) * 5.9604644775390625e-08
    else:
        u = word0.to(tl.float32) * 2.3283064365386963e-10 + 1.1641532182693481e-10
        radius = tl.sqrt(-2.0 * tl.log(u))
        angle = word1.to(tl.int32, bitcast=True).to(tl.float32) * 1.4629180792671596e-09  # in [-pi, pi)
        first = radius * tl.cos(angle)
        second = radius * tl.sin(angle)
    tl.store(out_ptr + at, first, mask=left > 0)
    tl.store(out_ptr + at + 1, second, mask=left > 1)


@triton.jit(do_not_specialize=["key0", "key1", "stream", "step", "first", "stride"])
def counter_random_kernel(
    out_ptr, samples_ptr, step_ptr, key0, key1, stream, step, first, stride, num_samples, num_words,
    KIND: tl.constexpr, HAS_SAMPLES: tl.constexpr, HAS_STEP: tl.constexpr, NUM_BLOCKS: tl.constexpr,
):  # fmt: skip
    row_blocks = (num_words + 3) // 4
    index = tl.program_id(0).to(tl.int64) * NUM_BLOCKS + tl.arange(0, NUM_BLOCKS)
    row = index // row_blocks
    block = index - row * row_blocks
    inside = row < num_samples
    if HAS_SAMPLES:
        sample = tl.load(samples_ptr + row, mask=inside, other=0)
    else:
        sample = first + row * stride
    if HAS_STEP:
        step_word = tl.load(step_ptr).to(tl.uint32)
    else:
        step_word = step.to(tl.uint32, bitcast=True)
    zero = tl.zeros([NUM_BLOCKS], dtype=tl.uint32)
    c0, c1, c2, c3 = _philox(
        zero + step_word,
        sample.to(tl.uint32),
        zero + stream.to(tl.uint32, bitcast=True),
        block.to(tl.uint32),
        zero + key0.to(tl.uint32, bitcast=True),
        zero + key1.to(tl.uint32, bitcast=True),
    )
    at = row * num_words + 4 * block
    left = tl.where(inside, num_words - 4 * block, 0)
    _store(out_ptr, c0, c1, at, left, KIND)
    _store(out_ptr, c2, c3, at + 2, left - 2, KIND)


def counter_random(
    kind: str,
    seed: int,
    stream: int,
    step: int | torch.Tensor,
    samples_B: torch.Tensor | range,
    num_words: int,
    device: torch.device,
) -> torch.Tensor:
    num_samples = len(samples_B)
    out = torch.empty((num_samples, num_words), dtype=torch.int64 if kind == "bits" else torch.float32, device=device)
    num_programs = triton.cdiv(num_samples * ((num_words + 3) // 4), _NUM_BLOCKS)
    if num_programs == 0:
        return out
    has_samples, has_step = isinstance(samples_B, torch.Tensor), isinstance(step, torch.Tensor)
    counter_random_kernel[(num_programs,)](
        out,
        samples_B.contiguous() if isinstance(samples_B, torch.Tensor) else out,
        step if has_step else out,
        _signed(seed),
        _signed(seed >> 32),
        _signed(stream),
        0 if isinstance(step, torch.Tensor) else _signed(step),
        0 if isinstance(samples_B, torch.Tensor) else _signed(samples_B.start),
        0 if isinstance(samples_B, torch.Tensor) else _signed(samples_B.step),
        num_samples,
        num_words,
        KIND=_KINDS[kind],
        HAS_SAMPLES=has_samples,
        HAS_STEP=has_step,
        NUM_BLOCKS=_NUM_BLOCKS,
        num_warps=_NUM_WARPS,
    )
    return out


def _signed(word: int) -> int:
    """The low 32 bits as a signed number: an argument of the kernel is then always an i32."""
    word &= 0xFFFFFFFF
    return word - (1 << 32) if word >> 31 else word
