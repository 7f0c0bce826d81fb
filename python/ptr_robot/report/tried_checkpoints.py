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

__all__ = ["correlation_rows", "trial_counts", "tried_checkpoints"]


def trial_counts(rollouts: Sequence[Path], mode: str = "") -> dict[tuple[Path, str], tuple[int, int]]:
    """Successes and trials of every checkpoint and acting mode that was tried; those of several files are added up.

    Args:
        rollouts: result files of ``ptr-fast rollout``, or folders of them.
        mode: only trials in this acting mode; empty: in any.

    Raises:
        DataError: a file is no result of trials.
    """
    counts: dict[tuple[Path, str], tuple[int, int]] = {}
    for file in find_rollouts(rollouts):
        result = _read(file, ("checkpoint", "mode", "successes", "num_trials"), "result of ptr-fast rollout")
        if result["checkpoint"] is None or (mode and result["mode"] != mode):
            continue  # an expert or random actions
        key = Path(result["checkpoint"]).resolve(), str(result["mode"])
        successes, num_trials = counts.get(key, (0, 0))
        counts[key] = successes + int(result["successes"]), num_trials + int(result["num_trials"])
    return counts


def tried_checkpoints(
    counts: Mapping[tuple[Path, str], tuple[int, int]],
) -> tuple[list[TriedCheckpoint], list[Path]]:
    """What was tried, with the evaluations that lie in the runs; and the checkpoints that were not evaluated.

    Args:
        counts: of :func:`trial_counts`; every acting mode is a point of its own, with the metrics of its checkpoint.

    Raises:
        DataError: an evaluation is damaged.
    """
    tried: list[TriedCheckpoint] = []
    missing: dict[Path, None] = {}
    for (checkpoint, _), (successes, num_trials) in counts.items():
        run = checkpoint.parent.parent
        file = run / "evaluation" / f"{checkpoint.name}.json"
        if not file.is_file():
            missing[checkpoint] = None
            continue
        metrics: Mapping[str, float | None] = _read(file, ("metrics",), "evaluation of ptr-fast")["metrics"]
        tried.append(TriedCheckpoint(run=str(run), metrics=metrics, successes=successes, num_trials=num_trials))
    return tried, list(missing)


def correlation_rows(correlations: Sequence[MetricCorrelation]) -> list[dict[str, Any]]:
    """As JSON values: what is not known is null."""

    def known(value: Any) -> Any:
        if isinstance(value, tuple):
            return [known(each) for each in value]
        return None if isinstance(value, float) and not math.isfinite(value) else value

    return [{name: known(value) for name, value in asdict(each).items()} for each in correlations]


def _read(file: Path, fields: Sequence[str], what: str) -> dict[str, Any]:
    try:
        value = json.loads(file.read_bytes())
    except (OSError, ValueError) as error:
        raise DataError(f"{file}: not valid JSON ({error})") from error
    if missing := [name for name in fields if not isinstance(value, dict) or name not in value]:
        raise DataError(f"{file}: no {what}: field {missing[0]!r} is missing")
    return value
