"""Networks of time contrast: an image encoder and nothing else."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import nn

from ptr_fast.config import PolicySpec
from ptr_fast.learners.representation.networks import RepresentationNetworks
from ptr_fast.nets.encoders import Encoder, make_encoder
from ptr_fast.nets.init import draw_weights

__all__ = ["Embedding", "TimeContrastNetworks"]


class Embedding(nn.Module):
    """The embeddings of all cameras, side by side."""

    def __init__(self, encoder: Encoder) -> None:
        super().__init__()
        self.encoder = encoder

    def initialise(self, generator: torch.Generator) -> None:
        """Of the encoder."""
        self.encoder.initialise(generator)

    def forward(self, images: Mapping[str, torch.Tensor], num_rows: int) -> torch.Tensor:
        """``[num_rows, D]``; see :class:`ptr_fast.nets.encoders.Encoder`."""
        return self.encoder(images, num_rows)


class TimeContrastNetworks(RepresentationNetworks):
    """What the network of a configuration can do."""

    name = "embedding"

    def make_network(self, spec: PolicySpec, seed: int) -> Embedding:
        """See :class:`~ptr_fast.learners.representation.networks.RepresentationNetworks`."""
        return draw_weights(Embedding(make_encoder(self.config.encoder, spec.cameras)), seed, self.name)
