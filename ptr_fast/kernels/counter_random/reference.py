"""The definition of the counter-based random numbers, in plain PyTorch integers of 64 bits."""

from __future__ import annotations

import math

import torch

__all__ = ["counter_random", "philox4x32", "supports"]

_LOW = (1 << 32) - 1


def supports(device: torch.device) -> str | None:
    """It always can."""
    return None


def counter_random(
    kind: str,
    seed: int,
    stream: int,
    step: int | torch.Tensor,
    samples_B: torch.Tensor | range,
    num_words: int,
    device: torch.device,
) -> torch.Tensor:
    """See :mod:`ptr_fast.kernels.counter_random`; ``kind`` is ``bits``, ``uniform`` or ``normal``."""
    if isinstance(samples_B, range):
        samples_B = torch.arange(samples_B.start, samples_B.stop, samples_B.step, device=device)
    block = torch.arange((num_words + 3) // 4, device=device)
    zero_BN = torch.zeros(len(samples_B), len(block), dtype=torch.int64, device=device)
    counter = (zero_BN + step, zero_BN + samples_B[:, None], zero_BN + stream, zero_BN + block)
    words = torch.stack(philox4x32(counter, (seed & _LOW, seed >> 32)), dim=-1)  # [B, blocks, 4]
    if kind == "uniform":
        words = (words >> 8).to(torch.float32) * 2.0**-24
    elif kind == "normal":
        words = box_muller(words[..., 0::2], words[..., 1::2]).to(torch.float32)
    return words.flatten(1)[:, :num_words].contiguous()


def philox4x32(counter: tuple[torch.Tensor, ...], key: tuple[int, int]) -> tuple[torch.Tensor, ...]:
    """Ten rounds of Philox4x32 on four int64 tensors, of which the low 32 bits count; four words in [0, 2**32)."""
    c0, c1, c2, c3 = (c & _LOW for c in counter)
    k0, k1 = key
    for _ in range(10):
        high0, low0 = _multiply(c0, 0xD2511F53)
        high1, low1 = _multiply(c2, 0xCD9E8D57)
        c0, c1, c2, c3 = high1 ^ c1 ^ k0, low1, high0 ^ c3 ^ k1, low0
        k0, k1 = (k0 + 0x9E3779B9) & _LOW, (k1 + 0xBB67AE85) & _LOW
    return c0, c1, c2, c3


def _multiply(a: torch.Tensor, b: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Upper and lower word of a product of two words; in halves of 16 bits of a, so that nothing exceeds 63 bits."""
    low, high = (a & 0xFFFF) * b, (a >> 16) * b
    middle = high + (low >> 16)
    return middle >> 16, ((middle & 0xFFFF) << 16) | (low & 0xFFFF)


def box_muller(radius_word: torch.Tensor, angle_word: torch.Tensor) -> torch.Tensor:
    """Two normals (last axis doubled, in the order of the words) of two words, in float64 but for the first float."""
    u = (radius_word.to(torch.float32) * 2.0**-32 + 2.0**-33).double()
    angle = angle_word.double() * (2.0 * math.pi * 2.0**-32)
    radius = (-2.0 * u.log()).sqrt()
    return torch.stack([radius * angle.cos(), radius * angle.sin()], dim=-1).flatten(-2)
