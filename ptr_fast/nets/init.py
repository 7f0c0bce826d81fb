"""Initial weights as the reference draws them, from a generator keyed by (seed, purpose)."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterator
from typing import Protocol, TypeVar

import torch
from torch import nn

__all__ = [
    "draw_weights",
    "kaiming_normal_",
    "keyed_generator",
    "lecun_normal_",
    "orthogonal_",
    "xavier_normal_",
    "xavier_uniform_",
]

Drawn = TypeVar("Drawn", bound="Drawable")


class Drawable(Protocol):
    """A module that sets all of its parameters."""

    def initialise(self, generator: torch.Generator) -> None: ...

    def named_parameters(self) -> Iterator[tuple[str, nn.Parameter]]: ...

    def named_modules(self) -> Iterator[tuple[str, nn.Module]]: ...


def draw_weights(net: Drawn, seed: int, purpose: str) -> Drawn:
    """The net itself, all of its weights drawn by its ``initialise`` from ``(seed, purpose)``.

    Every parameter is NaN before, so one that ``initialise`` leaves out is found, whatever its constructor put there.

    Raises:
        RuntimeError: a parameter was left out, or PyTorch's global generator was drawn from; the first such parameter
            is named.
    """
    with torch.no_grad():
        for _, parameter in net.named_parameters():
            parameter.fill_(torch.nan)
    before = torch.get_rng_state()
    net.initialise(keyed_generator(seed, purpose))
    kind = type(net).__name__
    # What a checkpoint has to bring says so, and does not compute before.
    awaiting = tuple(f"{name}." if name else "" for name, part in net.named_modules() if getattr(part, "awaits", None))
    for name, parameter in net.named_parameters():
        if not name.startswith(awaiting) and bool(parameter.isnan().any()):
            raise RuntimeError(f"{kind}.{name}: no initialise sets this parameter; draw it from the generator given")
    if not torch.equal(before, torch.get_rng_state()):
        raise RuntimeError(
            f"{kind}.initialise draws from PyTorch's global generator; draw from the one that it is given, so that "
            "equal seeds give equal weights"
        )
    return net


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


def xavier_uniform_(weight: torch.Tensor, generator: torch.Generator) -> None:
    """Uniform of variance 2 / (fan_in + fan_out); ``weight`` is ``[out, in]``."""
    nn.init.xavier_uniform_(weight, generator=generator)


def orthogonal_(weight: torch.Tensor, gain: float, generator: torch.Generator) -> None:
    """A (semi-)orthogonal matrix times ``gain``; every leading index of ``weight`` gets its own draw."""
    with torch.no_grad():
        for matrix in weight.view(-1, *weight.shape[-2:]):
            nn.init.orthogonal_(matrix, gain=gain, generator=generator)
