"""Learning rates over a run: scaled, set, stretched, and refused where a schedule ends before the run does."""

from __future__ import annotations

from dataclasses import replace
from typing import Literal

from ptr_fast.config import LearnerConfig, rate_names
from ptr_fast.learners.registry import traits_of

__all__ = ["check_schedule", "first_rate", "over", "scaled", "with_rate"]


def first_rate(config: LearnerConfig) -> float:
    """The rate that a schedule begins with: the one that the learner's traits name."""
    return getattr(config, traits_of(config).rate)


def scaled(config: LearnerConfig, factor: float) -> LearnerConfig:
    """All rates times a factor."""
    return replace(config, **{name: getattr(config, name) * factor for name in rate_names(config)})


def with_rate(config: LearnerConfig, rate: float) -> LearnerConfig:
    """A constant rate from now on: of :func:`first_rate`, to which the others keep their ratio."""
    return replace(scaled(config, rate / first_rate(config)), lr_schedule="constant", lr_schedule_steps=0)


def over(config: LearnerConfig, schedule: Literal["constant", "cosine"], num_steps: int) -> LearnerConfig:
    """A schedule of a kind over a whole run."""
    return replace(config, lr_schedule=schedule, lr_schedule_steps=num_steps if schedule == "cosine" else 0)


def check_schedule(config: LearnerConfig, num_steps: int, choices: str) -> None:
    """Refuses a run that would go on with a rate of 0 after its schedule has ended.

    Raises:
        ValueError: ends with ``choices``.
    """
    end = config.lr_schedule_steps
    if config.lr_schedule == "cosine" and num_steps > end:
        raise ValueError(
            f"the cosine schedule of the learning rates ends at step {end}: updates {end + 1} to {num_steps} would "
            f"train with a rate of 0; {choices}"
        )
