"""Checkpoints that were both evaluated and tried, from the files of runs and of rollouts."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from ptr_fast.errors import DataError
from ptr_robot.evaluation.metric_correlation import MetricCorrelation, TriedCheckpoint
from ptr_robot.report.runs import find_rollouts

__all__ = ["correlation_rows", "tried_checkpoints"]


def tried_checkpoints(rollouts: Sequence[Path], mode: str = "") -> list[TriedCheckpoint]:
    """What was tried, with the evaluations that lie in the runs of the checkpoints.

    All trials of a checkpoint in one acting mode count together; every mode is a point of its own.

    Args:
        rollouts: result files of ``ptr-fast rollout``, or folders of them.
        mode: only trials in this acting mode; empty: in any.

    Raises:
        DataError: a file is no result of trials, or a checkpoint that was tried has no evaluation.
    """
    counts: dict[tuple[Path, str], list[int]] = {}
    for file in find_rollouts(rollouts):
        result = _read(file, ("checkpoint", "mode", "successes", "num_trials"), "result of ptr-fast rollout")
        if result["checkpoint"] is None or (mode and result["mode"] != mode):
            continue  # an expert or random actions
        count = counts.setdefault((Path(result["checkpoint"]).resolve(), str(result["mode"])), [0, 0])
        count[0] += int(result["successes"])
        count[1] += int(result["num_trials"])
    return [
        TriedCheckpoint(
            run=str(checkpoint.parent.parent), metrics=_metrics(checkpoint), successes=successes, num_trials=num_trials
        )
        for (checkpoint, _), (successes, num_trials) in counts.items()
    ]


def correlation_rows(correlations: Sequence[MetricCorrelation]) -> list[dict[str, Any]]:
    """As JSON values: what is not known is null."""

    def known(value: Any) -> Any:
        if isinstance(value, tuple):
            return [known(each) for each in value]
        return None if isinstance(value, float) and not math.isfinite(value) else value

    return [{name: known(value) for name, value in asdict(each).items()} for each in correlations]


def _metrics(checkpoint: Path) -> Mapping[str, float | None]:
    run = checkpoint.parent.parent
    file = run / "evaluation" / f"{checkpoint.name}.json"
    if not file.is_file():
        raise DataError(f"{checkpoint}: it was tried and not evaluated; ptr-fast select --run {run} does that")
    metrics: Mapping[str, float | None] = _read(file, ("metrics",), "evaluation of ptr-fast")["metrics"]
    return metrics


def _read(file: Path, fields: Sequence[str], what: str) -> dict[str, Any]:
    try:
        value = json.loads(file.read_bytes())
    except (OSError, ValueError) as error:
        raise DataError(f"{file}: not valid JSON ({error})") from error
    if missing := [name for name in fields if not isinstance(value, dict) or name not in value]:
        raise DataError(f"{file}: no {what}: field {missing[0]!r} is missing")
    return value
