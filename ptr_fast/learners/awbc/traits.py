"""What advantage-weighted behaviour cloning says about itself: what behaviour cloning says, and its weights."""

from __future__ import annotations

from dataclasses import replace

from ptr_fast.learners.awbc.config import AwbcConfig
from ptr_fast.learners.bc.traits import traits as bc_traits
from ptr_fast.learners.traits import Panel, Traits

__all__ = ["traits"]

PANEL = Panel(
    heading="Weights of recorded actions",
    unit="",
    series={"weights/median": "median", "weights/quantile_90": "0.9-quantile"},
)


def traits(config: AwbcConfig) -> Traits:
    """Of one configuration."""
    cloning = bc_traits(config)
    return replace(
        cloning,
        name="advantage-weighted BC",
        progress={**cloning.progress, "weights/median": "w50", "weights/quantile_90": "w90"},
        panels=(*cloning.panels, PANEL),
    )
