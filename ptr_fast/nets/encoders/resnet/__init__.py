"""``resnet34`` (the paper's), ``resnet18``, ``resnet50``, ``resnet_small``: the reference's ResNets."""

from __future__ import annotations

from ptr_fast.config import EncoderConfig
from ptr_fast.encoder_registry import EncoderKind, register
from ptr_fast.nets.encoders.image import ImageEncoder
from ptr_fast.nets.encoders.resnet.trunk import STAGE_SIZES, ResNet

__all__ = ["STAGE_SIZES", "ResNet"]


def make(config: EncoderConfig, options: None, height: int, width: int) -> ImageEncoder:
    """``num_filters``, ``num_groups``, ``pooling`` and ``embedding_dim`` count."""
    trunk = ResNet(config.name, config.num_filters, config.num_groups)
    return ImageEncoder(trunk, config, height, width)


for name in STAGE_SIZES:
    register(EncoderKind(name, make))
