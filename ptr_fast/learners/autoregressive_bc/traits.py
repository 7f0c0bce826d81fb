"""What autoregressive behaviour cloning says about itself."""

from __future__ import annotations

from ptr_fast.learners.autoregressive_bc.config import AutoregressiveBcConfig
from ptr_fast.learners.imitation.traits import LIKELIHOOD, imitation_traits
from ptr_fast.learners.traits import Traits

__all__ = ["traits"]


def traits(config: AutoregressiveBcConfig) -> Traits:
    """Of one configuration."""
    made_of = ("hidden_dims", "num_bins")
    return imitation_traits(config, name="autoregressive behaviour cloning", made_of=made_of, **LIKELIHOOD)
