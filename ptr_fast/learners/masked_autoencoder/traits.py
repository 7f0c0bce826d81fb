"""What the masked autoencoder says about itself."""

from __future__ import annotations

from ptr_fast.learners.masked_autoencoder.config import MaskedAutoencoderConfig
from ptr_fast.learners.traits import Panel, Traits

__all__ = ["traits"]

PANELS = (
    Panel(
        heading="Painting hidden patches",
        unit="squared",
        series={"train/mae_loss": "the decoder's error", "mae/mean_patch_error": "error of the mean of what is seen"},
    ),
)


def traits(config: MaskedAutoencoderConfig) -> Traits:
    """Of one configuration."""
    return Traits(
        name="masked autoencoder",
        columns=frozenset({"images"}),
        networks=("autoencoder",),
        made_of=("encoder", "decoder_width", "decoder_depth", "decoder_heads"),
        capabilities=frozenset({"encodes"}),
        progress={"train/mae_loss": "mae"},
        panels=PANELS,
        encoder_part="trunk",
        bfloat16=True,
    )
