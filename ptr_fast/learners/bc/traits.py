"""What behaviour cloning says about itself."""

from __future__ import annotations

from ptr_fast.learners.bc.config import BcConfig
from ptr_fast.learners.imitation.traits import imitation_traits
from ptr_fast.learners.traits import Panel, Traits

__all__ = ["traits"]

PANELS = (
    Panel(heading="Cloning loss", unit="nats", series={"train/bc_loss": "negative log-likelihood"}),
    Panel(heading="Cloning error", unit="scaled²", series={"actor/mse": "mean squared error"}),
)


def traits(config: BcConfig) -> Traits:
    """Of one configuration."""
    return imitation_traits(
        config,
        name="behaviour cloning",
        num_actions=config.num_actions,
        made_of=("hidden_dims", "num_actions"),
        modes=("mean", "ema_mean"),
        progress={"train/bc_loss": "bc"},
        panels=PANELS,
    )
