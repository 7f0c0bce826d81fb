"""What the networks of a checkpoint can do, without the learner that trained them: act, value, encode.

A learner's package has one object that makes its networks from a configuration and offers what it can of
:class:`Acts`, :class:`Values` and :class:`Encodes`. Programs ask for these and never for a class.

Shapes: N = B * T rows of images, B states, T past observations, K actions per state, H actions ahead, S state,
A action, E critics, D embedding. Actions are scaled.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, NamedTuple, Protocol, runtime_checkable

if TYPE_CHECKING:
    import torch
    from torch import nn

    from ptr_fast.config import ActConfig, PolicySpec

__all__ = ["Acts", "ActsInTwo", "Distribution", "Encodes", "Inputs", "MakesNetworks", "Proposes", "Values"]


class Inputs(NamedTuple):
    """What a policy or a critic looks at.

    Attributes:
        images: by camera ``[B * T, 3, H, W]`` in [0, 1]; empty where no encoder looks.
        state: ``[B, T, S]``, raw units.
        task_id: int64 ``[B]``.
    """

    images: Mapping[str, torch.Tensor]
    state: torch.Tensor
    task_id: torch.Tensor


class Distribution(Protocol):
    """A law of the present action.

    Attributes:
        noise_dim: standard normal numbers that one sample takes: A of a Gaussian.
    """

    @property
    def noise_dim(self) -> int: ...

    def mode(self) -> torch.Tensor:
        """``[B, A]``."""

    def sample(self, eps: torch.Tensor) -> torch.Tensor:
        """Actions ``[B, A]`` or ``[B, K, A]`` for standard normal noise ``[B, noise_dim]`` or ``[B, K, noise_dim]``."""

    def log_prob(self, actions_BA: torch.Tensor) -> torch.Tensor:
        """Log density ``[B]``, nats, of given actions."""


@runtime_checkable
class MakesNetworks(Protocol):
    """What every learner's networks have."""

    def make_networks(self, spec: PolicySpec, names: Sequence[str], seed: int = 0) -> dict[str, nn.Module]:
        """Fresh networks by name, for a checkpoint's weights to be loaded into; ``seed``: of their first weights."""


@runtime_checkable
class Acts(Protocol):
    """The networks choose actions."""

    def networks_for(self, mode: str) -> tuple[str, ...]:
        """Names of the networks that act in a mode."""

    def noise_shape(self, act: ActConfig, spec: PolicySpec) -> tuple[int, ...] | None:
        """Shape of the standard normal noise that one action takes, without the batch; None: it takes none."""

    def acting_module(self, networks: Mapping[str, nn.Module], act: ActConfig, spec: PolicySpec) -> nn.Module:
        """Acting as one module, for one mode.

        Its ``forward(images, state, task_id, noise=None)`` takes the fields of :class:`Inputs` and, where there is a
        :meth:`noise_shape`, noise ``[B, *noise_shape]``; it returns scaled actions ``[B, H, A]``.
        """

    def distribution(
        self, networks: Mapping[str, nn.Module], inputs: Inputs, averaged: bool = False
    ) -> Distribution | None:
        """The law of the present action, by the averaged networks or those that were trained; None: it has no law."""


@runtime_checkable
class ActsInTwo(Protocol):
    """An acting module whose work falls into two nets that may run at once; others need no such thing."""

    def main(
        self, images: Mapping[str, torch.Tensor], state_BTS: torch.Tensor, task_id_B: torch.Tensor, noise: torch.Tensor
    ) -> torch.Tensor:
        """What the one net makes of all inputs."""

    def side(self, images: Mapping[str, torch.Tensor]) -> torch.Tensor:
        """What the other makes of the images."""

    def join(
        self, main: torch.Tensor, side: torch.Tensor, state_BTS: torch.Tensor, task_id_B: torch.Tensor
    ) -> torch.Tensor:
        """Scaled actions ``[B, H, A]`` of both."""


@runtime_checkable
class Proposes(Protocol):
    """An acting module that gives many answers for one look; others are asked as often as there shall be answers."""

    def propose(
        self,
        images: Mapping[str, torch.Tensor],
        state_BTS: torch.Tensor,
        task_id_B: torch.Tensor,
        noise_BKN: torch.Tensor,
    ) -> torch.Tensor:
        """Scaled actions ``[B, K, H, A]``, one answer for each noise."""


@runtime_checkable
class Values(Protocol):
    """The networks value actions."""

    def value_networks(self, averaged: bool = False) -> tuple[str, ...]:
        """Names of the networks that value."""

    def q(
        self, networks: Mapping[str, nn.Module], inputs: Inputs, actions_BKA: torch.Tensor, averaged: bool = False
    ) -> torch.Tensor:
        """Q ``[E, B, K]`` of K actions per state."""


@runtime_checkable
class Encodes(Protocol):
    """The networks embed images."""

    def encoder_of(self, networks: Mapping[str, nn.Module]) -> nn.Module:
        """The one image encoder (:class:`ptr_fast.nets.encoders.Encoder`) that others can take over."""

    def encoder_network(self) -> str:
        """Name of the network that :meth:`encoder_of` looks into."""

    def embed(self, networks: Mapping[str, nn.Module], images: Mapping[str, torch.Tensor]) -> torch.Tensor:
        """Embeddings ``[N, D]`` of images by camera ``[N, 3, H, W]`` in [0, 1]."""
