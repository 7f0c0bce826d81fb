"""Configuration of advantage-weighted behaviour cloning."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

from ptr_fast.config import RunReference
from ptr_fast.errors import require
from ptr_fast.learners.bc.config import BcConfig

__all__ = ["AwbcConfig"]


@dataclass(frozen=True, kw_only=True)
class AwbcConfig(BcConfig):
    """Behaviour cloning whose samples count by what the frozen critic of another run thinks of their actions.

    Attributes:
        critic: a run that knows values (CQL, IQL, ...), of the same cameras, state, actions and tasks.
        weights: ``advantage``: exp(advantage / advantage_temperature), cut, and divided by their mean over the batch.
            Two controls: ``shuffled``: the same weights, each on another sample of the batch; ``uniform``: all 1, which
            is behaviour cloning. (The third control, the successful episodes alone, is a choice of
            episodes: ``--data.outcomes success`` with uniform weights.)
        advantage_temperature: in units of the reward; small ones leave a few samples, large ones come near to uniform.
            Choose it so that the 0.9-quantile of the weights is about five times their median (both are in the
            progress line).
        max_weight: larger weights are cut to this before they are divided by their mean.
        num_value_samples: K, samples of the critic's own policy whose mean Q is the value of a state.
    """

    critic: RunReference = RunReference()
    weights: Literal["advantage", "shuffled", "uniform"] = "advantage"
    advantage_temperature: float = 1.0
    max_weight: float = math.exp(5.0)
    num_value_samples: int = 8

    def __post_init__(self) -> None:
        super().__post_init__()
        for name in ("advantage_temperature", "max_weight"):
            require(getattr(self, name) > 0.0, f"{name} must be positive, got {getattr(self, name)}")
        told = f"num_observations must be 1, as many as the critic sees, got {self.num_observations}"
        require(self.num_observations == 1, told)
