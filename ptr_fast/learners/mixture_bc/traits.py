"""What cloning by a mixture of Gaussians says about itself."""

from __future__ import annotations

from ptr_fast.learners.imitation.traits import LIKELIHOOD, imitation_traits
from ptr_fast.learners.mixture_bc.config import MixtureBcConfig
from ptr_fast.learners.traits import Panel, Traits

__all__ = ["traits"]

SPREAD = {"actor/std": "mean standard deviation", "actor/std_min": "smallest one"}
PANELS = (
    Panel(heading="Spread of the components", unit="scaled", series=SPREAD),
    Panel(heading="Entropy of the components", unit="nats", series={"actor/component_entropy": "of their weights"}),
)


def traits(config: MixtureBcConfig) -> Traits:
    """Of one configuration."""
    made_of, told = ("hidden_dims", "num_components", "min_std"), dict(LIKELIHOOD)
    told["panels"] += PANELS
    return imitation_traits(config, name="mixture behaviour cloning", made_of=made_of, **told)
