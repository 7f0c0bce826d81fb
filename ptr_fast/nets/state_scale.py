"""Standardised states: every number of the state minus its mean over the training data, by its standard deviation.

Positions in metres differ by centimetres where it matters, and a net that begins with orthogonal weights and learns for
a few thousand updates hardly sees that. Mean and deviation are buffers of the nets, so a checkpoint has them and every
caller goes on giving raw units.

Shapes: B states, S state, T observations.
"""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import nn

__all__ = ["SeesState", "StateScale", "add_state_scales", "state_scales"]


class StateScale(nn.Module):
    """``(state - mean) / std``; the identity until :meth:`fit`."""

    mean: torch.Tensor
    std: torch.Tensor

    def __init__(self, state_dim: int, device: torch.device | None = None) -> None:
        super().__init__()
        self.register_buffer("mean", torch.zeros(state_dim, device=device))
        self.register_buffer("std", torch.ones(state_dim, device=device))

    def fit(self, state_NS: torch.Tensor) -> None:
        """Takes mean and deviation of N states in raw units; a number that never changes keeps its unit."""
        wide = state_NS.double()
        std, mean = wide.std(dim=0, correction=0), wide.mean(dim=0)
        changes = std > 1e-6 * wide.abs().amax(dim=0)
        self.mean.copy_(mean)
        self.std.copy_(torch.where(changes, std, 1.0))

    def forward(self, state: torch.Tensor) -> torch.Tensor:
        """States ``[..., S]``, or T of them side by side ``[..., T * S]``, in the dtype that they came in."""
        by_observation = state.unflatten(-1, (-1, len(self.mean)))
        return ((by_observation - self.mean) / self.std).to(state.dtype).flatten(-2)


class SeesState(nn.Module):
    """A net that looks at the state, standardised where :func:`add_state_scales` was asked to."""

    def __init__(self) -> None:
        super().__init__()
        self.state_scale: StateScale | None = None

    def seen_state(self, state: torch.Tensor) -> torch.Tensor:
        """What the net makes of raw states before it looks at them."""
        return state if self.state_scale is None else self.state_scale(state)


def add_state_scales(networks: Iterable[nn.Module], state_dim: int) -> None:
    """Lets every part of some networks that looks at the state standardise it."""
    for network in networks:
        for part in network.modules():
            if isinstance(part, SeesState) and part.state_scale is None and state_dim > 0:
                device = next((parameter.device for parameter in part.parameters()), None)
                part.state_scale = StateScale(state_dim, device)


def state_scales(networks: Iterable[nn.Module]) -> list[StateScale]:
    """All of some networks, each to be fitted."""
    return [part for network in networks for part in network.modules() if isinstance(part, StateScale)]
