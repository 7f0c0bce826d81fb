"""Checkpoints that were both evaluated and tried, from the files of runs and of rollouts."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any, NamedTuple, TypedDict

from ptr_fast.errors import DataError
from ptr_fast.json_files import read_checked
from ptr_robot.evaluation.metric_correlation import MetricCorrelation, TriedCheckpoint
from ptr_robot.report.runs import distinct_trials, find_rollouts, read_rollouts, told_search, told_setting

__all__ = ["Way", "correlation_rows", "trial_counts", "tried_checkpoints"]


class Way(NamedTuple):
    """How a checkpoint was tried: its acting mode, and what else sets trials apart, in words."""

    mode: str
    told: str

    def __str__(self) -> str:
        return self.mode + self.told


class Evaluated(TypedDict):
    """What is taken of an evaluation."""

    metrics: dict[str, float | None]


def trial_counts(rollouts: Sequence[Path]) -> dict[tuple[Path, Way], tuple[int, int]]:
    """Successes and trials of every checkpoint and way of acting that was tried, over all files; each start once.

    A way tells, beside the mode, of how many candidates it searched and all that :func:`told_setting` tells; tasks and
    kitchens are counted together.

    Args:
        rollouts: result files of ``ptr-fast rollout``, or folders of them.

    Raises:
        DataError: a file is no result of trials, or of none.
    """
    results = read_rollouts(find_rollouts(rollouts))
    results = {file: result for file, result in results.items() if result.get("checkpoint") is not None}
    if none := [file for file, result in results.items() if not result["trials"]]:
        raise DataError(f"{none[0]}: rollout.trials: expected at least one, got none")

    def key_of(result: dict[str, Any]) -> tuple[Path, Way, str, str]:
        way = Way(result["mode"], told_search(result) + told_setting(result))
        return Path(result["checkpoint"]).resolve(), way, result["task"], result["kitchen"]

    counts: dict[tuple[Path, Way], tuple[int, int]] = {}
    for (checkpoint, way, *_), trials in distinct_trials(results, key_of).items():
        successes, num_trials = counts.get((checkpoint, way), (0, 0))
        good = sum(trial["success"] for trial in trials)
        counts[checkpoint, way] = successes + good, num_trials + len(trials)
    return counts


def tried_checkpoints(
    counts: Mapping[tuple[Path, Way], tuple[int, int]],
) -> tuple[list[TriedCheckpoint], list[Path]]:
    """What was tried, with the evaluations that lie in the runs; and the checkpoints that were not evaluated.

    Args:
        counts: of :func:`trial_counts`; every way of acting is a point of its own, with the metrics of its checkpoint.

    Raises:
        DataError: an evaluation is damaged.
    """
    tried: list[TriedCheckpoint] = []
    missing: dict[Path, None] = {}
    for (checkpoint, way), (successes, num_trials) in counts.items():
        run = checkpoint.parent.parent
        file = run / "evaluation" / f"{checkpoint.name}.json"
        if not file.is_file():
            missing[checkpoint] = None
            continue
        metrics = read_checked(file, Evaluated, "evaluation")["metrics"]
        counted = {"successes": successes, "num_trials": num_trials}
        tried.append(TriedCheckpoint(run=str(run), way=str(way), metrics=metrics, **counted))
    return tried, list(missing)


def correlation_rows(correlations: Sequence[MetricCorrelation]) -> list[dict[str, Any]]:
    """As JSON values: what is not known is null."""

    def known(value: Any) -> Any:
        if isinstance(value, tuple):
            return [known(each) for each in value]
        return None if isinstance(value, float) and not math.isfinite(value) else value

    return [{name: known(value) for name, value in asdict(each).items()} for each in correlations]
