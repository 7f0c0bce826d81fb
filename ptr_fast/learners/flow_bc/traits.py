"""What flow behaviour cloning says about itself."""

from __future__ import annotations

from ptr_fast.learners.flow_bc.config import FlowBcConfig
from ptr_fast.learners.imitation.traits import imitation_traits
from ptr_fast.learners.traits import Panel, Traits

__all__ = ["traits"]

PANELS = (Panel(heading="Flow loss", unit="variances", series={"train/flow_loss": "squared error of the velocity"}),)


def traits(config: FlowBcConfig) -> Traits:
    """Of one configuration."""
    return imitation_traits(
        config,
        name="flow behaviour cloning",
        num_actions=config.num_actions,
        made_of=("hidden_dims", "num_actions"),
        modes=("sample",),
        progress={"train/flow_loss": "flow"},
        panels=PANELS,
    )
