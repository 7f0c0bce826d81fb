"""``conv3``: three convolutions, for recipes that train on a CPU in minutes."""

from __future__ import annotations

from ptr_fast.config import EncoderConfig
from ptr_fast.encoder_registry import EncoderKind, register
from ptr_fast.nets.encoders.conv3.trunk import Conv3
from ptr_fast.nets.encoders.image import ImageEncoder

__all__ = ["Conv3"]


def make(config: EncoderConfig, options: None, height: int, width: int) -> ImageEncoder:
    """``num_filters``, ``num_groups``, ``pooling`` and ``embedding_dim`` count."""
    return ImageEncoder(Conv3(config.num_filters, config.num_groups), config, height, width)


register(EncoderKind("conv3", make))
