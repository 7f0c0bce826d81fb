"""From rows to places of the table: all seeds of a method together, with intervals."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from ptr_robot.comparison.rows import outcomes_of
from ptr_robot.comparison.statistics import Rate, bootstrap_interval, paired_difference, rate_of

__all__ = ["Place", "Summary", "difference_to", "summarize"]


@dataclass(frozen=True, order=True)
class Place:
    """Where a number stands: data set, method, before or after the demonstrations, checkpoint's rule, acting mode."""

    data: str
    method: str
    phase: str
    checkpoint: str
    mode: str


@dataclass(frozen=True)
class Summary:
    """All seeds of one place.

    Attributes:
        rows: one per seed, sorted by seed.
        mean_steps: decisions of the successful trials; NaN without one.
        decisions: mean of all trials, where a failure counts as the limit; how soon a method succeeds, also where most
            methods do. decisions_interval: its 95 % over seeds and trials; None of a single seed.
        reached, lifted: shares of the trials that came so far; None where there is nothing to pick up.
    """

    place: Place
    rows: tuple[Mapping[str, Any], ...]
    rate: Rate
    mean_steps: float
    decisions: float
    decisions_interval: tuple[float, float] | None
    reached: float | None
    lifted: float | None


def summarize(rows: Sequence[Mapping[str, Any]]) -> dict[Place, Summary]:
    """The places of rows, in the order in which they first come; of one place and seed the last row counts."""
    groups: dict[Place, dict[int, Mapping[str, Any]]] = {}
    for row in rows:
        place = Place(row["data"], row["method"], row["phase"], row["checkpoint"], row["mode"])
        groups.setdefault(place, {})[row["seed"]] = row
    return {place: _summary(place, [seeds[seed] for seed in sorted(seeds)]) for place, seeds in groups.items()}


def _summary(place: Place, rows: Sequence[Mapping[str, Any]]) -> Summary:
    steps = [n for row in rows for n, ok in zip(row["steps"], row["outcomes"], strict=True) if ok == "1"]
    decisions = [np.where(outcomes_of(row), row["steps"], row["max_steps"]) for row in rows]
    num_trials = sum(row["num_trials"] for row in rows)

    def share(key: str) -> float | None:
        counts = [row.get(key) for row in rows]
        return None if any(count is None for count in counts) else sum(map(int, counts)) / num_trials  # type: ignore[arg-type]

    return Summary(
        place=place,
        rows=tuple(rows),
        rate=rate_of([outcomes_of(row) for row in rows]),
        mean_steps=float(np.mean(steps)) if steps else float("nan"),
        decisions=float(np.concatenate(decisions).mean()),
        decisions_interval=bootstrap_interval(decisions) if len(rows) > 1 else None,
        reached=share("reached"),
        lifted=share("lifted"),
    )


def difference_to(baseline: Summary, other: Summary) -> tuple[float, tuple[float, float]] | None:
    """Difference of success rates on the same starts, over the seeds that both have; None where there are none."""
    theirs = {row["seed"]: row for row in baseline.rows}
    pairs = [(row, theirs[row["seed"]]) for row in other.rows if row["seed"] in theirs]
    pairs = [(a, b) for a, b in pairs if (a["trial_seed"], a["num_trials"]) == (b["trial_seed"], b["num_trials"])]
    if not pairs:
        return None
    return paired_difference([outcomes_of(a) for a, _ in pairs], [outcomes_of(b) for _, b in pairs])
