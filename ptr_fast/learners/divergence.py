"""What was seen of a training that ran away, and what to change: the words that learners and programs share."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Literal

from ptr_fast.config import LearnerConfig, RewardConfig, rate_names
from ptr_fast.diagnostics import value_range, widened
from ptr_fast.learners.registry import traits_of

__all__ = [
    "EARLIER",
    "SPENT",
    "Divergence",
    "Remedy",
    "of_broken_numbers",
    "of_rewards",
    "reported_divergence",
    "value_limits",
]

LARGE_RETURN = 500.0
"""Returns beyond this make squared errors that learning rates of 1e-4 to 1e-3 do not stand."""
EARLIER = "lower rates would change nothing; begin at an earlier checkpoint"
SPENT = 1e-3
"""Share of its beginning below which a decayed learning rate changes nothing any more."""


@dataclass(frozen=True, kw_only=True)
class Divergence:
    """What was seen of a run that has diverged.

    Attributes:
        kind: a number of the update is ``not_finite``, or the mean Q of recorded actions is ``too_low`` or
            ``too_high``.
        name: the number that says so, as in ``metrics.jsonl``; empty: it was seen by another process of the run.
        reason: in words.
    """

    kind: Literal["not_finite", "too_low", "too_high"]
    name: str
    reason: str


def value_limits(rewards: RewardConfig, config: LearnerConfig) -> tuple[float, float] | None:
    """Smallest and largest return there can be; None for a learner that knows no values."""
    discount = traits_of(config).discount
    return None if discount is None else value_range(rewards, discount)


def reported_divergence(
    numbers: Mapping[str, float], rewards: RewardConfig, config: LearnerConfig, slack: float
) -> Divergence | None:
    """Whether a run has diverged, by the numbers that one update reported.

    The value of recorded actions lies between the smallest and the largest return there can be. Values of random
    actions may be far lower: the regulariser pushes them down.

    Args:
        numbers: of one report; anything that is no number is passed over.
        slack: how far the mean Q of recorded actions may leave that range, in its widths.
    """
    for name, value in numbers.items():
        if isinstance(value, int | float) and not math.isfinite(value):
            return Divergence(kind="not_finite", name=name, reason=f"{name} is {value}")
    limits, name = value_limits(rewards, config), traits_of(config).value_of_data
    if limits is None or name not in numbers:
        return None
    value, (low, high), (lowest, highest) = numbers[name], limits, widened(limits, slack)
    if lowest <= value <= highest:
        return None
    told = f"outside [{low:.4g}, {high:.4g}] by more than {low - lowest:.4g}"
    reason = f"mean Q of recorded actions {value:.4g} is {told}"
    return Divergence(kind="too_low" if value < low else "too_high", name=name, reason=reason)


@dataclass(frozen=True, kw_only=True)
class Remedy:
    """Something to change, and what was seen that speaks for it.

    Attributes:
        seen: a sentence without its full stop.
        settings: (dotted name in the run's configuration, new value); empty where there is nothing to set.
        action: what to do beside or instead of settings; may be empty.
    """

    seen: str
    settings: tuple[tuple[str, float | str], ...] = ()
    action: str = ""

    def options(self) -> list[str]:
        """The settings as words of a command."""
        return [word for name, value in self.settings for word in (f"--{name.replace('_', '-')}", _text(value))]

    def __str__(self) -> str:
        words = self.options()
        options = [f"{name} {value}" for name, value in zip(words[::2], words[1::2], strict=True)]
        todo = ", ".join([*options, *([self.action] if self.action else [])])
        return f"{self.seen}: {todo}" if todo else self.seen


def of_broken_numbers(found: Divergence, rate: float, config: LearnerConfig, names: list[str] | None = None) -> Remedy:
    """What to change where a number of an update was not finite.

    Args:
        found: what the alarm saw.
        rate: share of the learning rates that their schedule has left.
        config: of the run.
        names: of the rates to lower; None: all.
    """
    what = found.name or "a number of another process"
    if rate <= SPENT:
        return Remedy(seen=f"{what} broke although the learning rates have decayed to zero", action=EARLIER)
    rates = rate_names(config) if names is None else names
    return Remedy(
        seen=f"{what} broke", settings=tuple((f"learner.{name}", getattr(config, name) / 10) for name in rates)
    )


def of_rewards(numbers: Mapping[str, float], rewards: RewardConfig, discount: float) -> Iterator[Remedy]:
    """What to change about rewards that make returns too large, or that nobody earns."""
    largest = max(map(abs, value_range(rewards, discount)))
    if largest > LARGE_RETURN:
        factor = 10.0 ** math.ceil(math.log10(largest / 50.0))
        settings = (("rewards.positive", rewards.positive / factor), ("rewards.negative", rewards.negative / factor))
        yield Remedy(seen=f"returns reach {largest:.4g}, and errors are squared", settings=settings)
    if numbers.get("data/mask") == 1.0 and numbers.get("data/reward") == rewards.negative:
        seen = f"no step of the last batch was rewarded (all {rewards.negative:g}) and none ends an episode"
        yield Remedy(seen=seen, action="look at the outcomes of the episodes with ptr-fast inspect")


def _text(value: float | str) -> str:
    return value if isinstance(value, str) else f"{value:g}"
