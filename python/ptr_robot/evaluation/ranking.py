"""Rank the checkpoints of a run on held-out demonstrations and pick one.

Demonstrations are expert data, so under a good critic Q rises along them. The score and the guard against diverged
critics are defined in ptr_fast.diagnostics (selection_score, divergence); cloned policies are ranked by action error.
A critic whose values are far from the recorded returns (misestimation) is picked only where there is no other.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import tyro

from ptr_fast.checkpoint import list_checkpoints, read_checkpoint
from ptr_fast.errors import DataError
from ptr_fast.files import write_atomically
from ptr_robot.evaluation.held_out import held_out, told_kind
from ptr_robot.evaluation.metrics import (
    METRICS,
    NO_GUARANTEE,
    evaluate_checkpoint,
    evaluation_key,
    evaluation_path,
    format_number,
    saved_evaluation,
    write_evaluation,
)
from ptr_robot.training.store_places import StorePlaces

__all__ = ["Args", "main", "rank", "select"]

SCHEMA_VERSION = 1
COLUMNS = 5
"""Checkpoints side by side in one table."""


@dataclass(frozen=True, kw_only=True)
class Args:
    """Rank the checkpoints of a run and pick one."""

    run: Path
    """Run folder."""
    metric: Literal[
        "auto", "score", "late_rise", "rank_correlation", "late_rise_averaged", "rank_correlation_averaged",
        "preference", "bellman_error", "return_correlation", "separation_auc", "action_error", "log_prob",
    ] = "auto"  # fmt: skip
    """What to rank by; auto takes the selection score, and the action error for behaviour cloning."""
    store: tyro.conf.UseAppendAction[tuple[str, ...]] = ()
    """Store to evaluate on. Default: the episodes that the run held out. Or OLD=NEW for a store of the run's that has
    moved; repeat for several."""
    task: str = ""
    """Only episodes of this task (exact name). Default: all."""
    max_episodes: int = 20
    """At most this many episodes, a seeded choice spread over tasks and outcomes; 0 takes all."""
    seed: int = 0
    """Seed of that choice and of the sampled actions."""
    device: Literal["auto", "cpu", "cuda"] = "auto"
    """Where the nets run; auto takes a GPU where there is one."""
    json: bool = False
    """Print the selection as JSON instead of tables."""

    def __post_init__(self) -> None:
        if self.max_episodes < 0:
            raise ValueError(f"max_episodes must not be negative, got {self.max_episodes}")


def rank(evaluations: Sequence[dict[str, Any]], metric: str = "auto") -> dict[str, Any]:
    """Ranks evaluations (as :func:`ptr_robot.evaluation.metrics.evaluate_checkpoint` returns them) and picks the first.

    Checkpoints whose critic diverged, or whose metric could not be computed, are listed last and never picked; those
    whose critic misestimates stand behind all others. Values that agree to three digits are a tie: then the smaller
    Bellman error wins, then the later step.

    Returns:
        ``{"selected": step or None, "metric", "better", "ranking": [{"rank", "step", "checkpoint", "weights", "value",
        "excluded", "doubt", "metrics"}]}``; ``rank`` and ``value`` are None and ``excluded`` is the reason where one is
        out; ``doubt`` is the reason why one stands behind.

    Raises:
        ValueError: no evaluation, or a metric that these checkpoints do not have.
    """
    if not evaluations:
        raise ValueError("evaluations must hold at least one checkpoint")
    if metric == "auto":
        metric = "score" if all("score" in e["metrics"] for e in evaluations) else "action_error"
    known = [key for key in METRICS if all(key in e["metrics"] for e in evaluations)]
    if metric not in known:
        why = "; a cloned policy has no Q" if "score" not in known else ""
        raise ValueError(f"metric {metric!r} is not there for these checkpoints{why}; known: {known}")
    better = METRICS[metric][2]
    entries = [_entry(evaluation, metric) for evaluation in evaluations]
    entries.sort(key=lambda entry: _order(entry, -1.0 if better == "high" else 1.0))
    for place, entry in enumerate(entries, 1):
        entry["rank"] = None if entry["excluded"] else place
    first = entries[0]
    return {
        "selected": None if first["excluded"] else first["step"],
        "metric": metric,
        "better": better,
        "ranking": entries,
    }


def _entry(evaluation: dict[str, Any], metric: str) -> dict[str, Any]:
    value, excluded = evaluation["metrics"][metric], None
    if evaluation["diverged"]:
        excluded = f"diverged: {evaluation['diverged']}"
    elif value is None:
        excluded = f"{METRICS[metric][0]} could not be computed on these episodes"
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
    value = 0.0 if out else sign * float(f"{entry['value']:.3g}")
    bellman = entry["metrics"].get("bellman_error")
    return out, entry["doubt"] is not None, value, math.inf if bellman is None else bellman, -entry["step"]


def evaluate_run(
    run: Path,
    *,
    places: StorePlaces = StorePlaces(),
    task: str = "",
    max_episodes: int = 20,
    seed: int = 0,
    device: str = "cpu",
    advance: Callable[[], None] | None = None,
) -> list[dict[str, Any]]:
    """The evaluations of all checkpoints of a run, oldest first; what was evaluated before on the same data is read.

    Raises:
        DataError: no checkpoint in the run, or no episode to evaluate on.
    """
    checkpoints = list_checkpoints(run)
    if not checkpoints:
        raise DataError(f"{run}: no checkpoint here (expected {run}/checkpoints/<step>); train first")
    evaluations = []
    for path in checkpoints:
        info = read_checkpoint(path)
        data = held_out(info, places=places, task=task, max_episodes=max_episodes, seed=seed)
        target = evaluation_path(path)
        result = saved_evaluation(target)
        if result is None or result["key"] != evaluation_key(info, data, seed):
            result = evaluate_checkpoint(info, data, seed=seed, device=device)
            write_evaluation(result, target)
        evaluations.append(result)
        if advance is not None:
            advance()
    return evaluations


def select(args: Args) -> dict[str, Any]:
    """Evaluates what is not evaluated yet, ranks, and writes ``<run>/selection.json``.

    Raises:
        DataError: no checkpoint in the run, or no episode to evaluate on.
    """
    from ptr_robot.console.progress import Progress
    from ptr_robot.training.processes import pick_device

    with Progress(len(list_checkpoints(args.run)), "select", "checkpoint") as progress:
        evaluations = evaluate_run(
            args.run,
            places=StorePlaces.parse(args.store, takes_given=True),
            task=args.task,
            max_episodes=args.max_episodes,
            seed=args.seed,
            device=str(pick_device(args.device)),
            advance=lambda: progress.advance(1),
        )
    selection = {
        "schema_version": SCHEMA_VERSION,
        **rank(evaluations, args.metric),
        "networks": evaluations[-1]["networks"],
        "data": evaluations[-1]["data"],
        "caveat": NO_GUARANTEE,
    }
    write_atomically(args.run / "selection.json", (json.dumps(selection, indent=1, allow_nan=False) + "\n").encode())
    return selection


def main(args: Args) -> int:
    selection = select(args)
    if args.json:
        print(json.dumps(selection, indent=1, allow_nan=False))
    else:
        _print(selection, args.run)
    return 0 if selection["selected"] is not None else 1


def _print(selection: dict[str, Any], run: Path) -> None:
    from rich.console import Console
    from rich.markup import escape
    from rich.table import Table

    console, ranking, data = Console(), selection["ranking"], selection["data"]
    name, _, better, meaning = METRICS[selection["metric"]]
    console.print(
        f"{len(ranking)} checkpoints on {escape(told_kind(data))}; {selection['networks']} networks act\n"
        f"ranked by {name} ({better} is better): {meaning}",
        soft_wrap=True,
    )
    if data["note"]:
        console.print(f"[yellow]{escape(data['note'])}[/yellow]", soft_wrap=True)
    keys = [key for key in METRICS if key in ranking[0]["metrics"]]
    for start in range(0, len(ranking), COLUMNS):
        block = ranking[start : start + COLUMNS]
        table = Table("step", *[str(entry["step"]) for entry in block], box=None, header_style="bold")
        table.add_row("rank", *["out" if entry["rank"] is None else str(entry["rank"]) for entry in block])
        for key in keys:
            style = "bold" if key == selection["metric"] else None
            table.add_row(METRICS[key][0], *[format_number(e["metrics"][key]) for e in block], style=style)
        console.print(table)
    for entry in ranking:
        if entry["excluded"]:
            console.print(f"step {entry['step']} is out: {escape(entry['excluded'])}", soft_wrap=True)
        elif entry["doubt"]:
            console.print(f"[yellow]step {entry['step']} is doubted: {escape(entry['doubt'])}[/yellow]", soft_wrap=True)
    if "score" not in keys:
        console.print("These checkpoints were cloned: they have no critic, so there is no Q to judge them by.")
    if selection["selected"] is None:
        console.print("[red]no checkpoint can be picked[/red]")
    elif len(ranking) == 1:
        console.print(f"picked step {selection['selected']}: the only checkpoint, so this is no choice")
    else:
        though = " (doubted, as is every one that is not out)" if ranking[0]["doubt"] else ""
        path = run / "checkpoints" / ranking[0]["checkpoint"]
        console.print(f"picked step {selection['selected']}{though}: {escape(str(path))}", soft_wrap=True)
    console.print(NO_GUARANTEE)
