"""Initial weights as the reference draws them, from a generator keyed by (seed, purpose)."""

from __future__ import annotations

import hashlib
import math

import torch
from torch import nn

__all__ = ["kaiming_normal_", "keyed_generator", "lecun_normal_", "orthogonal_", "xavier_normal_"]

# Standard deviation of a unit normal truncated at two standard deviations (jax.nn.initializers divides by it).
_TRUNCATED_STD = 0.87962566103423978


def keyed_generator(seed: int, *key: object) -> torch.Generator:
    """A CPU generator that depends on ``(seed, *key)`` alone, so that nothing random has to be saved."""
    digest = hashlib.blake2b("/".join(str(part) for part in (seed, *key)).encode(), digest_size=4).digest()
    return torch.Generator().manual_seed(int.from_bytes(digest, "little"))


def _variance_scaling_(weight: torch.Tensor, variance: float, generator: torch.Generator) -> None:
    std = math.sqrt(variance) / _TRUNCATED_STD
    nn.init.trunc_normal_(weight, std=std, a=-2.0 * std, b=2.0 * std, generator=generator)


def kaiming_normal_(weight: torch.Tensor, generator: torch.Generator) -> None:
    """Truncated normal of variance 2 / fan_in; ``weight`` is ``[out, in, ...]``."""
    _variance_scaling_(weight, 2.0 / weight[0].numel(), generator)


def lecun_normal_(weight: torch.Tensor, fan_in: int, generator: torch.Generator) -> None:
    """Truncated normal of variance 1 / fan_in."""
    _variance_scaling_(weight, 1.0 / fan_in, generator)


def xavier_normal_(weight: torch.Tensor, generator: torch.Generator) -> None:
    """Truncated normal of variance 2 / (fan_in + fan_out); ``weight`` is ``[out, in]``."""
    _variance_scaling_(weight, 2.0 / (weight.shape[0] + weight.shape[1]), generator)


def orthogonal_(weight: torch.Tensor, gain: float, generator: torch.Generator) -> None:
    """A (semi-)orthogonal matrix times ``gain``; every leading index of ``weight`` gets its own draw."""
    with torch.no_grad():
        for matrix in weight.view(-1, *weight.shape[-2:]):
            nn.init.orthogonal_(matrix, gain=gain, generator=generator)
