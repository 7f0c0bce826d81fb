"""How well offline metrics tell which checkpoint succeeds: their rank correlation with the success of trials.

Two questions, two numbers. Over all checkpoints of all runs: does the metric tell a good policy from a bad one? Within
a run: does it tell which of its checkpoints to take, as ``select`` has to? The intervals are bootstraps over runs,
because checkpoints of one run are alike; with fewer than five runs they say little.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from ptr_fast.diagnostics import rank_correlation
from ptr_robot.evaluation.metrics import METRICS

__all__ = ["MetricCorrelation", "TriedCheckpoint", "metric_correlations"]

NUM_RESAMPLES = 2000
QUANTILES = (0.025, 0.975)


@dataclass(frozen=True, kw_only=True)
class TriedCheckpoint:
    """One checkpoint that was tried.

    Attributes:
        run: names the run that it belongs to.
        way: names how it was tried; within a run checkpoints are compared that were tried alike.
        metrics: of its evaluation; None where a metric could not be computed.
        successes, num_trials: of its trials.
    """

    run: str
    way: str = ""
    metrics: Mapping[str, float | None]
    successes: int
    num_trials: int

    @property
    def rate(self) -> float:
        return self.successes / self.num_trials


@dataclass(frozen=True, kw_only=True)
class MetricCorrelation:
    """Of one metric; NaN where it cannot be told.

    Attributes:
        metric: key of :data:`ptr_robot.evaluation.metrics.METRICS`.
        over_all, within: Spearman's rank correlation with the success rate, over all checkpoints and as the mean over
            runs of that within each (of a run that was tried in several ways, the mean over these). Positive: what the
            metric calls better succeeds more; a metric without a better side keeps its own sign.
        over_all_interval, within_interval: 95 %, over runs.
        num_checkpoints, num_runs: that have this metric; a checkpoint that was tried in several ways counts in each.
        num_runs_within: of these, the runs whose checkpoints differ in the metric and in their success.
    """

    metric: str
    over_all: float
    over_all_interval: tuple[float, float]
    within: float
    within_interval: tuple[float, float]
    num_checkpoints: int
    num_runs: int
    num_runs_within: int


def metric_correlations(tried: Sequence[TriedCheckpoint], seed: int = 0) -> list[MetricCorrelation]:
    """The correlation of every metric that at least two checkpoints have, the highest over all first.

    Args:
        tried: checkpoints of one or many runs.
        seed: of the resampling.

    Raises:
        ValueError: fewer than two checkpoints, or one without trials.
    """
    with_trials = [each for each in tried if each.num_trials > 0]
    if len(with_trials) < max(2, len(tried)):
        raise ValueError(
            f"a correlation needs at least two checkpoints with trials, got {len(with_trials)} of {len(tried)}"
        )
    found = [_of_metric(metric, tried, seed) for metric in METRICS]
    present = [correlation for correlation in found if correlation.num_checkpoints >= 2]
    return sorted(present, key=lambda each: -each.over_all if math.isfinite(each.over_all) else math.inf)


def _of_metric(metric: str, tried: Sequence[TriedCheckpoint], seed: int) -> MetricCorrelation:
    better = METRICS[metric][2]
    sides: dict[str, Callable[[float], float]] = {"low": lambda value: -value, "zero": lambda value: -abs(value)}
    towards_better = sides.get(better, lambda value: value)
    by_run: dict[str, dict[str, list[tuple[float, float]]]] = {}
    for each in tried:
        value = each.metrics.get(metric)
        if value is not None and math.isfinite(value):
            ways = by_run.setdefault(each.run, {})
            ways.setdefault(each.way, []).append((towards_better(value), each.rate))
    of_ways = [[_correlation([np.array(points)]) for points in ways.values()] for ways in by_run.values()]
    within = [float(np.mean(known)) for each in of_ways if (known := [c for c in each if math.isfinite(c)])]
    runs = [np.array([point for points in ways.values() for point in points]) for ways in by_run.values()]
    return MetricCorrelation(
        metric=metric,
        over_all=_correlation(runs),
        over_all_interval=_interval_over_all(runs, seed),
        within=float(np.mean(within)) if within else math.nan,
        within_interval=_interval_within(within, seed),
        num_checkpoints=sum(map(len, runs)),
        num_runs=len(runs),
        num_runs_within=len(within),
    )


def _correlation(runs: Sequence[np.ndarray]) -> float:
    """Over the checkpoints of all these runs."""
    return rank_correlation(*np.concatenate(runs).T) if runs else math.nan


def _drawn(num_runs: int, seed: int) -> np.ndarray:
    """How often each run is drawn in each resample, ``[resamples, runs]``; as many draws as there are runs."""
    drawn = np.random.default_rng(seed).integers(0, num_runs, (NUM_RESAMPLES, num_runs))
    return (drawn[:, :, None] == np.arange(num_runs)).sum(axis=1)


def _interval_over_all(runs: Sequence[np.ndarray], seed: int) -> tuple[float, float]:
    """Of :func:`_correlation`, where a run that is drawn twice counts twice; unknown of a single run."""
    if len(runs) < 2:
        return math.nan, math.nan
    weight = np.repeat(_drawn(len(runs), seed), [len(points) for points in runs], axis=1).astype(np.float64)
    weight /= weight.sum(axis=1, keepdims=True)
    deviations = []
    for values in np.concatenate(runs).T:
        below = (values[:, None] > values) + 0.5 * (values[:, None] == values)
        rank = weight @ below.T  # of each checkpoint in each resample, up to a constant; ties share the mean
        deviations.append(rank - (weight * rank).sum(axis=1, keepdims=True))
    x, y = deviations
    spread = np.sqrt((weight * x * x).sum(axis=1) * (weight * y * y).sum(axis=1))
    differ = spread > 1e-12
    return _quantiles((weight * x * y).sum(axis=1)[differ] / spread[differ])


def _interval_within(correlations: Sequence[float], seed: int) -> tuple[float, float]:
    """Of the mean over runs; unknown of a single run."""
    if len(correlations) < 2:
        return math.nan, math.nan
    return _quantiles(_drawn(len(correlations), seed) @ np.array(correlations) / len(correlations))


def _quantiles(values: np.ndarray) -> tuple[float, float]:
    if not len(values):
        return math.nan, math.nan
    low, high = np.quantile(values, QUANTILES)
    return float(low), float(high)
