"""``vit``: a vision transformer. Options: ``patch``, ``width``, ``depth``, ``heads``."""

from __future__ import annotations

from dataclasses import dataclass

from ptr_fast.config import EncoderConfig
from ptr_fast.encoder_registry import EncoderKind, register
from ptr_fast.nets.encoders.image import ImageEncoder
from ptr_fast.nets.encoders.vit.trunk import VisionTransformer

__all__ = ["VisionTransformer", "VitOptions"]


@dataclass(frozen=True, kw_only=True)
class VitOptions:
    """Size of a vision transformer. The defaults suit 64 px; for 128 px take patch 16, width 384, depth 12, heads 6.

    Attributes:
        patch: height and width of a patch, pixels; the images' height and width are multiples of it.
        width: of a token; a multiple of 4 (two sines and two cosines) and of the heads.
        depth: blocks.
        heads: of the attention in every block.
    """

    patch: int = 8
    width: int = 128
    depth: int = 4
    heads: int = 4

    def __post_init__(self) -> None:
        for name in ("patch", "width", "depth", "heads"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be at least 1, got {getattr(self, name)}")
        if self.width % 4 or self.width % self.heads:
            raise ValueError(f"width ({self.width}) must be a multiple of 4 and of heads ({self.heads})")


def make(config: EncoderConfig, options: VitOptions, height: int, width: int) -> ImageEncoder:
    """``pooling`` (MAE's is ``mean``) and ``embedding_dim`` count; ``num_filters`` and ``num_groups`` do not."""
    trunk = VisionTransformer(height, width, options.patch, options.width, options.depth, options.heads)
    return ImageEncoder(trunk, config, height, width)


register(EncoderKind("vit", make, VitOptions))
