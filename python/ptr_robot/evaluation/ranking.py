"""The evaluations of a run's checkpoints, and their order (what each number is: :mod:`ptr_fast.diagnostics`)."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from ptr_fast.checkpoint import list_checkpoints, read_checkpoint
from ptr_fast.errors import DataError
from ptr_robot.evaluation.fitted_metrics import FITTED, fitted_metrics, with_fitted
from ptr_robot.evaluation.held_out import held_out
from ptr_robot.evaluation.metrics import (
    METRICS,
    evaluate_checkpoint,
    evaluation_key,
    evaluation_path,
    saved_evaluation,
    write_evaluation,
)
from ptr_robot.training.store_places import StorePlaces

__all__ = ["best_first", "evaluate_run", "evaluated", "rank"]


def rank(evaluations: Sequence[dict[str, Any]], metric: str = "auto") -> dict[str, Any]:
    """Ranks evaluations (as :func:`ptr_robot.evaluation.metrics.evaluate_checkpoint` returns them) and picks the first.

    Checkpoints whose critic diverged, or whose metric could not be computed, are listed last and never picked; those
    whose critic misestimates stand behind all others. Values that agree to three digits are a tie: then the smaller
    Bellman error wins, then the later step.

    Args:
        metric: to rank by; ``auto`` takes that of the run (:func:`ptr_robot.training.familiarity.ranking_of`), and
            where it has none the newest checkpoint wins.

    Returns:
        ``{"selected": step or None, "metric", "better", "ranking": [{"rank", "step", "checkpoint", "weights", "value",
        "excluded", "doubt", "metrics"}]}``; ``rank`` and ``value`` are None and ``excluded`` is the reason where one is
        out; ``doubt`` is the reason why one stands behind; ``metric`` and ``better`` are None where the newest wins.

    Raises:
        ValueError: no evaluation, or a metric that these checkpoints do not have.
    """
    if not evaluations:
        raise ValueError("evaluations must hold at least one checkpoint")
    chosen = evaluations[-1]["ranking"] if metric == "auto" else metric
    known = [key for key in METRICS if all(key in e["metrics"] for e in evaluations)]
    if chosen is not None and chosen not in known:
        why = "; a policy without a critic has no Q" if "score" not in known else ""
        raise ValueError(f"metric {chosen!r} is not there for these checkpoints{why}; known: {known}")
    better = METRICS[chosen][2] if chosen else None
    entries = [_entry(evaluation, chosen) for evaluation in evaluations]
    entries.sort(key=lambda entry: _order(entry, -1.0 if better == "high" else 1.0))
    for place, entry in enumerate(entries, 1):
        entry["rank"] = None if entry["excluded"] else place
    first = entries[0]
    return {
        "selected": None if first["excluded"] else first["step"],
        "metric": chosen,
        "better": better,
        "ranking": entries,
    }


def _entry(evaluation: dict[str, Any], metric: str | None) -> dict[str, Any]:
    value, excluded = evaluation["metrics"][metric] if metric else None, None
    if evaluation["diverged"]:
        excluded = f"diverged: {evaluation['diverged']}"
    elif metric and value is None:
        excluded = f"{METRICS[metric][0]} could not be computed on these episodes"
        if metric in FITTED and (unknown := evaluation["fitted_on"]["unknown"]):
            excluded += f": {unknown}"
    return {
        "rank": None,
        "step": evaluation["step"],
        "checkpoint": evaluation["checkpoint"],
        "weights": evaluation.get("weights"),
        "value": value,
        "excluded": excluded,
        "doubt": evaluation.get("misestimated"),
        "metrics": evaluation["metrics"],
    }


def _order(entry: dict[str, Any], sign: float) -> tuple[bool, bool, float, float, int]:
    out = entry["excluded"] is not None
    if out or entry["value"] is None:  # the newest counts
        return out, entry["doubt"] is not None, 0.0, math.inf, -entry["step"]
    bellman = entry["metrics"].get("bellman_error")
    value = sign * float(f"{entry['value']:.3g}")
    return out, entry["doubt"] is not None, value, math.inf if bellman is None else bellman, -entry["step"]


def evaluate_run(
    run: Path,
    *,
    places: StorePlaces = StorePlaces(),
    task: str = "",
    max_episodes: int = 20,
    seed: int = 0,
    device: str = "cpu",
    fitted: bool = False,
    advance: Callable[[], None] | None = None,
) -> list[dict[str, Any]]:
    """The evaluations of all checkpoints of a run, oldest first; what was evaluated before on the same data is read.

    Args:
        fitted: with the metrics of :mod:`ptr_robot.evaluation.fitted_metrics`.

    Raises:
        DataError: no checkpoint in the run, or no episode to evaluate on.
    """
    checkpoints = list_checkpoints(run)
    if not checkpoints:
        raise DataError(f"{run}: no checkpoint here (expected {run}/checkpoints/<step>); train first")
    evaluations = []
    for path in checkpoints:
        evaluations.append(
            evaluated(
                path, places=places, task=task, max_episodes=max_episodes, seed=seed, device=device, fitted=fitted
            )
        )
        if advance is not None:
            advance()
    return evaluations


def evaluated(
    checkpoint: Path,
    *,
    places: StorePlaces = StorePlaces(),
    task: str = "",
    max_episodes: int = 20,
    seed: int = 0,
    device: str = "cpu",
    fitted: bool = False,
) -> dict[str, Any]:
    """The evaluation of one checkpoint, as of :func:`evaluate_run`: read, or made and kept."""
    info = read_checkpoint(checkpoint)
    data = held_out(info, places=places, task=task, max_episodes=max_episodes, seed=seed)
    target = evaluation_path(checkpoint)
    result = saved_evaluation(target)
    if result is None or result["key"] != evaluation_key(info, data, seed):
        result = evaluate_checkpoint(info, data, seed=seed, device=device)
        write_evaluation(result, target)
    if fitted and "fitted_on" not in result:
        result = with_fitted(result, fitted_metrics(info, data, places, seed=seed, device=device))
        write_evaluation(result, target)
    return result


def best_first(run: Path, device: str) -> list[str]:
    """Names of a run's checkpoints, ranked by what ``select`` ranks by where it is told nothing."""
    return [entry["checkpoint"] for entry in rank(evaluate_run(run, device=device))["ranking"]]
