"""``none``: learning from the state alone."""

from __future__ import annotations

from collections.abc import Mapping

import torch

from ptr_fast.config import EncoderConfig
from ptr_fast.encoder_registry import EncoderKind, register
from ptr_fast.nets.encoders.base import Encoder

__all__ = ["NoEncoder"]


class NoEncoder(Encoder):
    """Embeddings of width 0, for learning from the state alone: images are not looked at."""

    embedding_dim = 0

    def __init__(self) -> None:
        super().__init__()
        self.nothing: torch.Tensor
        self.register_buffer("nothing", torch.empty(0), persistent=False)  # lies where the weights of others lie

    def initialise(self, generator: torch.Generator) -> None:
        """There is nothing to draw."""

    def forward(self, images: Mapping[str, torch.Tensor], num_rows: int) -> torch.Tensor:
        """``[N, 0]``."""
        return self.nothing.new_empty((num_rows, 0))


def make(config: EncoderConfig, options: None, height: int, width: int) -> NoEncoder:
    """There is nothing to configure."""
    return NoEncoder()


register(EncoderKind("none", make))
