"""Which moments of an episode a critic finds critical, and whether it tells success from failure: from an evaluation.

A moment is critical where it matters what is done: where random actions are valued far below the recorded one
(``q - q_random`` of the curves that :func:`ptr_robot.evaluation.metrics.evaluate_checkpoint` keeps). All functions are
pure; ``evaluation`` is what that function returns, or ``evaluation/<step>.json`` holds.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from ptr_fast.diagnostics import area_under_curve

__all__ = ["CriticalMoment", "Separation", "critical_moments", "critical_profile", "separation"]

NUM_PARTS = 10
"""Parts of an episode in a profile."""
MIN_STEPS = 2 * NUM_PARTS
"""Episodes that are shorter have no profile."""


@dataclass(frozen=True, kw_only=True)
class Separation:
    """Whether mean Q tells good episodes from failed ones.

    Attributes:
        auc: chance that a good episode has the higher mean Q; ties count half.
        interval: 95 %, percentile bootstrap over episodes of either kind.
        num_good, num_failed: episodes.
    """

    auc: float
    interval: tuple[float, float]
    num_good: int
    num_failed: int


@dataclass(frozen=True, kw_only=True)
class CriticalMoment:
    """One step at which it matters what is done.

    Attributes:
        episode_id, step: where.
        gap: Q of the recorded action minus the mean Q of random ones.
        times: the gap as a multiple of its mean over the episode.
    """

    episode_id: str
    step: int
    gap: float
    times: float


def separation(evaluation: Mapping[str, Any], num_draws: int = 1000, seed: int = 0) -> Separation | None:
    """Success against failure by mean Q; None without a critic, or without an episode of either kind."""
    episodes = [entry for entry in evaluation["episodes"] if entry.get("q_mean") is not None]
    good = np.array([entry["q_mean"] for entry in episodes if entry["outcome"] != "failure"])
    failed = np.array([entry["q_mean"] for entry in episodes if entry["outcome"] == "failure"])
    if not len(good) or not len(failed):
        return None
    rng = np.random.default_rng(seed)
    drawn = [area_under_curve(rng.choice(good, len(good)), rng.choice(failed, len(failed))) for _ in range(num_draws)]
    low, high = np.quantile(drawn, [0.025, 0.975])
    return Separation(
        auc=area_under_curve(good, failed),
        interval=(float(low), float(high)),
        num_good=len(good),
        num_failed=len(failed),
    )


def critical_profile(evaluation: Mapping[str, Any]) -> np.ndarray | None:
    """How critical each tenth of an episode is, float64 ``[10]``; 1 is as critical as the episode is on average.

    Mean over the good episodes whose curves are kept. None without a critic, or where random actions are not valued
    below the recorded ones on average: such a critic finds nothing critical.
    """
    parts = []
    for entry in evaluation["episodes"]:
        gap = _gap(entry)
        if gap is None or entry["outcome"] == "failure" or len(gap) < MIN_STEPS or gap.mean() <= 0:
            continue
        parts.append([part.mean() / gap.mean() for part in np.array_split(gap, NUM_PARTS)])
    return np.mean(parts, axis=0) if parts else None


def critical_moments(evaluation: Mapping[str, Any], num_moments: int = 3) -> list[CriticalMoment]:
    """The most critical steps of every good episode whose curves are kept, a tenth of the episode apart."""
    found = []
    for entry in evaluation["episodes"]:
        gap = _gap(entry)
        if gap is None or entry["outcome"] == "failure" or gap.mean() <= 0:
            continue
        steps = entry["curves"]["step"]
        chosen: list[int] = []
        apart = max(1, len(gap) // NUM_PARTS)
        for i in np.argsort(-gap, kind="stable"):
            if len(chosen) < num_moments and all(abs(i - other) >= apart for other in chosen):
                chosen.append(int(i))
        found += [
            CriticalMoment(
                episode_id=entry["episode_id"],
                step=int(steps[i]),
                gap=float(gap[i]),
                times=float(gap[i] / gap.mean()),
            )
            for i in sorted(chosen)
        ]
    return found


def _gap(entry: Mapping[str, Any]) -> np.ndarray | None:
    curves = entry.get("curves", {})
    if not curves.get("q") or not curves.get("q_random"):
        return None
    return np.array(curves["q"], np.float64) - np.array(curves["q_random"], np.float64)
