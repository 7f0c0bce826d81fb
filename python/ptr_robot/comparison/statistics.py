"""Intervals of success rates over training seeds and trials.

Two things are random: the training (its seed) and the trials (their starts). Wilson's interval of all trials together
takes the policies as given; the bootstrap draws seeds first, then trials of each, so it also holds for a new training.
With three to five seeds it is still too narrow: so few cannot show how far apart trainings may lie.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from ptr_fast.diagnostics import wilson_interval

__all__ = ["Rate", "bootstrap_interval", "paired_difference", "rate_of"]

NUM_RESAMPLES = 4000
QUANTILES = (0.025, 0.975)


@dataclass(frozen=True)
class Rate:
    """A success rate with its 95 % intervals.

    Attributes:
        successes, num_trials: of all seeds together. per_seed: rate of each.
        wilson: over trials. bootstrap: over seeds and trials; where all trials ended alike, which resampling cannot
            vary, it is Wilson's. None of a single seed, which says nothing about another training.
    """

    successes: int
    num_trials: int
    per_seed: tuple[float, ...]
    wilson: tuple[float, float]
    bootstrap: tuple[float, float] | None

    @property
    def interval(self) -> tuple[float, float]:
        """The widest that is known: over seeds and trials, of a single seed over trials."""
        return self.bootstrap or self.wilson

    @property
    def rate(self) -> float:
        """Share of all trials that succeeded."""
        return self.successes / self.num_trials


def rate_of(outcomes: Sequence[np.ndarray]) -> Rate:
    """The rate of one cell.

    Args:
        outcomes: per training seed, one 0 or 1 per trial.
    """
    successes, num_trials = int(sum(o.sum() for o in outcomes)), int(sum(o.size for o in outcomes))
    wilson = wilson_interval(successes, num_trials)
    over_seeds = bootstrap_interval(outcomes) if 0 < successes < num_trials else wilson
    return Rate(
        successes=successes,
        num_trials=num_trials,
        per_seed=tuple(float(o.mean()) for o in outcomes),
        wilson=wilson,
        bootstrap=over_seeds if len(outcomes) > 1 else None,
    )


def bootstrap_interval(values: Sequence[np.ndarray], seed: int = 0) -> tuple[float, float]:
    """95 % interval of the mean of ``values``: seeds are drawn with replacement, then trials of each drawn seed.

    Args:
        values: per training seed, one number per trial.
        seed: of the resampling.

    Raises:
        ValueError: no seed, or a seed without trials.
    """
    if not values or any(v.size == 0 for v in values):
        raise ValueError("a bootstrap needs at least one seed, and a trial of each")
    rng = np.random.default_rng(seed)
    # Means of resampled trials, for every seed and every time it may be drawn: [num_seeds, resamples, num_seeds].
    num = len(values)
    means = np.stack([v[rng.integers(v.size, size=(NUM_RESAMPLES, num, v.size))].mean(-1) for v in values])
    drawn = rng.integers(num, size=(NUM_RESAMPLES, num))
    rows, columns = np.arange(NUM_RESAMPLES)[:, None], np.arange(num)[None]
    low, high = np.quantile(means[drawn, rows, columns].mean(1), QUANTILES, method="nearest")
    return float(low), float(high)


def paired_difference(
    ours: Sequence[np.ndarray], theirs: Sequence[np.ndarray], seed: int = 0
) -> tuple[float, tuple[float, float]]:
    """Mean difference of two methods' outcomes on the same starts, and its 95 % bootstrap interval.

    Where all trials of each ended alike, which resampling cannot vary, it is Newcombe's interval of two rates.

    Args:
        ours, theirs: per training seed, one 0 or 1 per trial; the same seeds and starts in the same order.

    Raises:
        ValueError: the numbers of seeds or trials differ.
    """
    if [o.size for o in ours] != [t.size for t in theirs]:
        raise ValueError("a paired difference needs the same seeds and the same starts of both methods")
    differences = [o.astype(float) - t.astype(float) for o, t in zip(ours, theirs, strict=True)]
    mean = float(np.concatenate(differences).mean())
    a, b = np.concatenate(ours), np.concatenate(theirs)
    if np.ptp(a) == np.ptp(b) == 0.0:
        return mean, _newcombe_interval(a, b)
    return mean, bootstrap_interval(differences, seed)


def _newcombe_interval(ours: np.ndarray, theirs: np.ndarray) -> tuple[float, float]:
    """95 % interval of the difference of two rates from Wilson's of each (Newcombe 1998, method 10)."""
    (a, b), (low_a, high_a), (low_b, high_b) = (
        (ours.mean(), theirs.mean()),
        *(wilson_interval(int(each.sum()), each.size) for each in (ours, theirs)),
    )
    return float(a - b - math.hypot(a - low_a, high_b - b)), float(a - b + math.hypot(high_a - a, b - low_b))
