"""Configuration of the masked autoencoder."""

from __future__ import annotations

from dataclasses import dataclass

from ptr_fast.config import EncoderConfig
from ptr_fast.errors import require
from ptr_fast.learners.representation.config import RepresentationConfig

__all__ = ["MaskedAutoencoderConfig"]


@dataclass(frozen=True, kw_only=True)
class MaskedAutoencoderConfig(RepresentationConfig):
    """Masked autoencoder: most patches of a frame are hidden, and a small decoder paints them from what is seen.

    The defaults suit 64 px; He et al. have a decoder of width 512, depth 8 and 16 heads. Of the encoder the trunk is
    trained, so ``pooling`` and ``embedding_dim`` are those of whoever takes it over. ``augment`` is the crop alone:
    colours are what is painted, and a flip would exchange left and right, which a robot must tell apart.

    Attributes:
        encoder: a ``vit``.
        mask_ratio: share of the patches that are hidden, rounded so that one at least is hidden and one seen.
        decoder_width, decoder_depth, decoder_heads: of the decoder's tokens and blocks.
        normalise_patches: paint every patch less its mean, in units of its own standard deviation. Of patches of one
            colour that is the camera's noise.
    """

    encoder: EncoderConfig = EncoderConfig(name="vit", pooling="mean")
    lr: float = 1.5e-4
    weight_decay: float = 0.05
    mask_ratio: float = 0.75
    decoder_width: int = 64
    decoder_depth: int = 2
    decoder_heads: int = 4
    normalise_patches: bool = True

    def __post_init__(self) -> None:
        super().__post_init__()
        require(self.encoder.name == "vit", f"encoder.name: masked patches need a 'vit', got {self.encoder.name!r}")
        require(0.0 < self.mask_ratio < 1.0, f"mask_ratio must lie in (0, 1), got {self.mask_ratio}")
        for name in ("decoder_width", "decoder_depth", "decoder_heads"):
            require(getattr(self, name) >= 1, f"{name} must be at least 1, got {getattr(self, name)}")
        width, heads = self.decoder_width, self.decoder_heads
        require(
            width % 4 == 0 and width % heads == 0,
            f"decoder_width ({width}) must be a multiple of 4 and of decoder_heads ({heads})",
        )
