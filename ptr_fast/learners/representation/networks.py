"""Networks of learners of an image encoder alone: one, which has the encoder."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import torch
from torch import nn

from ptr_fast.config import PolicySpec
from ptr_fast.nets.encoders import Encoder

__all__ = ["RepresentationNetworks"]


class RepresentationNetworks:
    """The one network of such a learner; the protocols of :mod:`ptr_fast.learners.capabilities`.

    A subclass makes the network, whose ``encoder`` is the image encoder, and names it.
    """

    name: ClassVar[str]

    def __init__(self, config: Any) -> None:
        self.config = config

    def make_network(self, spec: PolicySpec, seed: int) -> nn.Module:
        """The network, its weights drawn from the seed and its name."""
        raise NotImplementedError

    def make_networks(self, spec: PolicySpec, names: Sequence[str], seed: int = 0) -> dict[str, nn.Module]:
        """See :class:`~ptr_fast.learners.capabilities.MakesNetworks`."""
        return {name: self.make_network(spec, seed) for name in names}

    def encoder_network(self) -> str:
        """See :class:`~ptr_fast.learners.capabilities.Encodes`."""
        return self.name

    def encoder_of(self, networks: Mapping[str, nn.Module]) -> Encoder:
        """See :class:`~ptr_fast.learners.capabilities.Encodes`."""
        encoder = networks[self.name].encoder
        assert isinstance(encoder, Encoder)
        return encoder

    def embed(self, networks: Mapping[str, nn.Module], images: Mapping[str, torch.Tensor]) -> torch.Tensor:
        """See :class:`~ptr_fast.learners.capabilities.Encodes`."""
        return self.encoder_of(networks)(images, len(next(iter(images.values()))))
