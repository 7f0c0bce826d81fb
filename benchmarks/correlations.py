"""How well offline metrics tell which checkpoint succeeds, over all runs of a comparison.

    python -m benchmarks.correlations outputs/compare/states

Of critics that act by search and of clones: a row per metric with its rank correlation, and one row with the successes
of the checkpoints that each metric picks. What was not evaluated is evaluated first, with the fitted metrics.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from benchmarks.harness import environment, record
from ptr_robot import cli
from ptr_robot.evaluation.metric_correlation import TriedCheckpoint, metric_correlations
from ptr_robot.evaluation.metrics import METRICS
from ptr_robot.report.tried_checkpoints import correlation_rows, trial_counts, tried_checkpoints

__all__ = ["groups_of", "main", "picked"]

RULES = ("score", "action_error", "log_prob", "fqe_value", "success_chance")


def groups_of(trials: Path) -> Mapping[str, list[tuple[int, TriedCheckpoint]]]:
    """Step and trials of critics that act by search, and of clones."""
    groups: dict[str, list[tuple[int, TriedCheckpoint]]] = {"critics by search": [], "clones": []}
    for (checkpoint, way), number in trial_counts([trials]).items():
        for tried in tried_checkpoints({(checkpoint, way): number})[0]:
            has_critic = "score" in tried.metrics
            if has_critic == (way.mode == "search"):
                groups["critics by search" if has_critic else "clones"].append((int(checkpoint.name), tried))
    return groups


def picked(group: Sequence[tuple[int, TriedCheckpoint]]) -> dict[str, int]:
    """Successes of the checkpoints that each rule picks, over all runs that have several; each way for itself.

    A metric that a run lacks picks its newest. ``best`` looks at these very trials.
    """
    runs: dict[tuple[str, str], list[tuple[int, TriedCheckpoint]]] = {}
    for step, tried in group:
        runs.setdefault((tried.run, tried.way), []).append((step, tried))
    several = [run for run in runs.values() if len(run) > 1]
    totals = {"runs": len(several), "trials": sum(run[0][1].num_trials for run in several)}
    totals["newest"] = sum(max(run, key=lambda each: each[0])[1].successes for run in several)
    for rule in RULES:
        if any(rule in tried.metrics for _, tried in group):
            totals[METRICS[rule][0]] = sum(_picked_by(rule, run).successes for run in several)
    return totals | {"best": sum(max(tried.successes for _, tried in run) for run in several)}


def _picked_by(rule: str, run: Sequence[tuple[int, TriedCheckpoint]]) -> TriedCheckpoint:
    """The best by a metric, of equal ones the newest; the newest where one lacks the metric."""
    sign = -1.0 if METRICS[rule][2] == "low" else 1.0
    values = {step: tried.metrics.get(rule) for step, tried in run}
    ranks = {step: 0.0 if value is None else sign * value for step, value in values.items()}
    lacks = None in values.values()
    return max(run, key=lambda each: (0.0 if lacks else ranks[each[0]], each[0]))[1]


def main(folder: Path) -> int:
    """Evaluates what is missing, and records the rows of a grid's folder."""
    if (code := cli.main(["correlate", "--rollouts", str(folder / "trials"), "--evaluate"])) != 0:
        return code
    for name, group in groups_of(folder / "trials").items():
        case = f"{folder.name}, {name}"
        for told in correlation_rows(metric_correlations([tried for _, tried in group])):
            row: dict[str, Any] = {"name": "correlations", "case": f"{case}: {METRICS[told['metric']][0]}"}
            for part, title in (("over_all", "over all"), ("within", "within runs")):
                ends = told[f"{part}_interval"]
                values = dict(zip(("correlation", "from", "to"), (told[part], *ends), strict=True))
                row[title] = {key: round(value, 2) for key, value in values.items() if value is not None}
            row |= {"checkpoints": told["num_checkpoints"], "runs": told["num_runs"]}
            record(row | {"runs that differ": told["num_runs_within"], "environment": environment()})
        record({"name": "picked", "case": case, **picked(group), "environment": environment()})
    return 0


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1])))
