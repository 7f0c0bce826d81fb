"""What time contrast says about itself."""

from __future__ import annotations

from ptr_fast.learners.time_contrast.config import TimeContrastConfig
from ptr_fast.learners.traits import Panel, Traits
from ptr_fast.types import Window

__all__ = ["traits"]

PANELS = (
    Panel(heading="Time contrast", unit="nats", series={"train/contrast_loss": "loss with the norms' weights"}),
    Panel(
        heading="Frames in the order of time",
        unit="share",
        series={"contrast/in_order": "nearer in time is nearer", "contrast/three_frames": "samples with three frames"},
    ),
)


def traits(config: TimeContrastConfig) -> Traits:
    """Of one configuration."""
    return Traits(
        name="time contrast",
        columns=frozenset({"images", "observation_mask"}),
        window=Window(num_observations=config.num_observations),
        networks=("embedding",),
        made_of=("encoder",),
        capabilities=frozenset({"encodes"}),
        progress={"train/contrast_loss": "contrast", "contrast/in_order": "in order"},
        panels=PANELS,
        bfloat16=True,
    )
