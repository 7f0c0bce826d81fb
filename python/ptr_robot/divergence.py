"""Training that runs away: how it is noticed."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

from ptr_fast.config import CqlConfig, LearnerConfig, RewardConfig
from ptr_fast.diagnostics import value_range

__all__ = ["Divergence", "find_divergence"]

SLACK = 0.5
"""How far the mean Q of recorded actions may leave the range of possible returns, in widths of that range."""


@dataclass(frozen=True, kw_only=True)
class Divergence:
    """What was seen of a run that has diverged.

    Attributes:
        kind: ``not_finite`` (a loss or another number of the update), or the mean Q of recorded actions is
            ``too_low`` or ``too_high``.
        reason: in words.
    """

    kind: Literal["not_finite", "too_low", "too_high"]
    reason: str


def find_divergence(numbers: dict[str, float], rewards: RewardConfig, config: LearnerConfig) -> Divergence | None:
    """Whether a run has diverged, by the numbers of one update.

    The value of recorded actions lies between the smallest and the largest return there can be; half of that width is
    slack. Values of random actions may be far lower: the regulariser pushes them down.
    """
    for name, value in numbers.items():
        if not math.isfinite(value):
            return Divergence(kind="not_finite", reason=f"{name} is {value}")
    if not isinstance(config, CqlConfig):
        return None
    value, (low, high) = numbers["q/data"], value_range(rewards, config.discount)
    slack = SLACK * (high - low)
    if low - slack <= value <= high + slack:
        return None
    reason = f"mean Q of recorded actions {value:.3g} is outside [{low:.3g}, {high:.3g}] by more than {slack:.3g}"
    return Divergence(kind="too_low" if value < low else "too_high", reason=reason)
