"""How well offline metrics tell which checkpoint succeeds: their rank correlation with the success of trials.

Needs checkpoints that were tried (``ptr-fast rollout``, ``ptr-fast compare``), of as many runs as there are, and their
evaluations: those of ``ptr-fast select``, or made here with ``--evaluate``. A metric that tells nothing here should not
pick a checkpoint.
"""

from __future__ import annotations

import json
import math
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import tyro

from ptr_robot.evaluation.metric_correlation import MetricCorrelation, metric_correlations
from ptr_robot.evaluation.metrics import METRICS
from ptr_robot.report.tried_checkpoints import correlation_rows, trial_counts, tried_checkpoints

__all__ = ["Args", "main"]


@dataclass(frozen=True, kw_only=True)
class Args:
    """Rank correlation of offline metrics with the success of trials.

    Attributes:
        run: Run folder, whose rollouts/*.json are taken; repeat for several.
        rollouts: More rollout files, or folders of them; repeat for several.
        mode: Only trials in this acting mode. Default: all.
        evaluate: Evaluate what was tried and not evaluated yet, with the fitted metrics (evaluate --fitted); kept in
            the runs.
        device: Where the nets run then; auto takes a GPU where there is one.
        seed: Seed of the bootstrap that gives the intervals.
        json: Print the correlations as JSON instead of a table.
    """

    run: tyro.conf.UseAppendAction[tuple[Path, ...]] = ()
    rollouts: tyro.conf.UseAppendAction[tuple[Path, ...]] = ()
    mode: str = ""
    evaluate: bool = False
    device: Literal["auto", "cpu", "cuda"] = "auto"
    seed: int = 0
    json: bool = False


def main(args: Args) -> int:
    if not args.run and not args.rollouts:
        raise ValueError("name at least one --run or --rollouts")
    folders = [run / "rollouts" for run in args.run]
    found = trial_counts([*folders, *args.rollouts])
    counts = {key: count for key, count in found.items() if args.mode in ("", key[1].mode)}
    if args.evaluate:
        _evaluate(list(dict.fromkeys(checkpoint for checkpoint, _ in counts)), args)
    tried, missing = tried_checkpoints(counts)
    if missing:
        print(
            f"{len(missing)} checkpoints were tried and not evaluated, and are left out (--evaluate does that): "
            f"{missing[0]}" + (" ..." if len(missing) > 1 else ""),
            file=sys.stderr,
        )
    if (num_checkpoints := len({checkpoint for checkpoint, _ in counts} - set(missing))) < 2:
        by = f" by --mode {args.mode}" if args.mode else ""
        modes = ", ".join(sorted({way.mode for _, way in found})) or "none"
        raise ValueError(
            f"{', '.join(map(str, [*folders, *args.rollouts]))}: expected at least two checkpoints with trials{by} and "
            f"an evaluation, got {num_checkpoints} (modes of the trials there: {modes})"
        )
    correlations = metric_correlations(tried, args.seed)
    if args.json:
        print(json.dumps(correlation_rows(correlations), indent=1, allow_nan=False))
    else:
        _print(correlations)
        if len({each.rate for each in tried}) == 1:
            rate = f"{tried[0].rate:.0%}"
            print(f"all {len(tried)} checkpoints succeeded in {rate} of their trials: nothing to correlate with")
    return 0


def _evaluate(checkpoints: list[Path], args: Args) -> None:
    from ptr_robot.console.progress import Progress
    from ptr_robot.device import pick_device
    from ptr_robot.evaluation.ranking import evaluated

    with Progress(len(checkpoints), "evaluate", "checkpoint") as progress:
        for checkpoint in checkpoints:
            evaluated(checkpoint, device=str(pick_device(args.device)), fitted=True)
            progress.advance(1)


def _print(correlations: list[MetricCorrelation]) -> None:
    from rich.console import Console
    from rich.table import Table

    table = Table("metric", "over all (95 %)", "within runs (95 %)", "points", "runs", box=None)
    table.columns[0].no_wrap = True
    for each in correlations:
        table.add_row(
            METRICS[each.metric][0],
            _told(each.over_all, each.over_all_interval),
            _told(each.within, each.within_interval),
            str(each.num_checkpoints),
            f"{each.num_runs} ({each.num_runs_within})",
        )
    console = Console()
    console.print("Spearman's rank correlation with the success rate; 1: what the metric calls better succeeds more")
    console.print(table)
    console.print(
        "a point: a checkpoint, tried in one way (mode, search, starts, limit), all tasks and kitchens together"
    )
    console.print("in brackets: runs whose checkpoints differ in the metric and in their success")


def _told(value: float, interval: tuple[float, float]) -> str:
    if not math.isfinite(value):
        return "-"
    return f"{value:.2f}" + (" ({:.2f} to {:.2f})".format(*interval) if math.isfinite(interval[0]) else "")
