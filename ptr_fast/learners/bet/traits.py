"""What the behaviour transformer says about itself."""

from __future__ import annotations

from ptr_fast.learners.bet.config import BetConfig
from ptr_fast.learners.imitation.traits import imitation_traits
from ptr_fast.learners.traits import Panel, Traits

__all__ = ["traits"]

PANELS = (
    Panel(heading="Choice of the cluster", unit="nats", series={"train/focal_loss": "focal loss"}),
    Panel(heading="Offset from its centre", unit="scaled²", series={"actor/offset_mse": "mean squared error"}),
)


def traits(config: BetConfig) -> Traits:
    """Of one configuration."""
    return imitation_traits(
        config,
        name="behaviour transformer",
        made_of=("num_bins", "num_layers", "num_heads", "width"),
        modes=("sample", "mean", "ema_mean"),
        progress={"train/loss": "bet", "train/focal_loss": "focal"},
        panels=PANELS,
    )
