"""Rank the checkpoints of a run on held-out demonstrations and pick one.

Demonstrations are expert data, so under a good critic Q rises along them. The score and the guard against diverged
critics are defined in ptr_fast.diagnostics (selection_score, divergence). A critic whose values are far from the
recorded returns (misestimation) is picked only where there is no other. Of cloned policies the newest is picked, as
their held-out error gets worse while success still grows; so it is where a critic that did not know the task before
fine-tuning chooses among cloned proposals.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from ptr_fast.checkpoint import list_checkpoints
from ptr_fast.files import write_atomically
from ptr_robot.evaluation.fitted_metrics import FITTED
from ptr_robot.evaluation.held_out import told_kind
from ptr_robot.evaluation.metrics import METRICS, NO_GUARANTEE, format_number
from ptr_robot.evaluation.options import EvaluationOptions
from ptr_robot.evaluation.ranking import evaluate_run, rank
from ptr_robot.training.store_places import StorePlaces

__all__ = ["Args", "main", "select"]

SCHEMA_VERSION = 1
COLUMNS = 5
"""Checkpoints side by side in one table."""


@dataclass(frozen=True, kw_only=True)
class Args(EvaluationOptions):
    """Rank the checkpoints of a run and pick one.

    Attributes:
        run: Run folder.
        metric: What to rank by; auto takes the selection score where there is a critic, and the newest checkpoint
            where there is none, or where it chooses among cloned proposals and did not know the task before
            fine-tuning. The last two are fitted (--fitted).
        json: Print the selection as JSON instead of tables.
    """

    run: Path
    metric: Literal[
        "auto", "score", "late_rise", "rank_correlation", "late_rise_averaged", "rank_correlation_averaged",
        "preference", "bellman_error", "return_correlation", "separation_auc", "action_error", "log_prob",
        "fqe_value", "success_chance",
    ] = "auto"  # fmt: skip
    json: bool = False


def select(args: Args) -> dict[str, Any]:
    """Evaluates what is not evaluated yet, ranks, and writes ``<run>/selection.json``.

    Raises:
        DataError: no checkpoint in the run, or no episode to evaluate on.
    """
    from ptr_robot.console.progress import Progress
    from ptr_robot.device import pick_device

    with Progress(len(list_checkpoints(args.run)), "select", "checkpoint") as progress:
        evaluations = evaluate_run(
            args.run,
            places=StorePlaces.parse(args.store, takes_given=True, camera_map=args.camera_map),
            task=args.task,
            max_episodes=args.max_episodes,
            seed=args.seed,
            device=str(pick_device(args.device)),
            fitted=args.fitted or args.metric in FITTED,
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


def _told_rule(selection: Mapping[str, Any]) -> str:
    """What a selection went by, in words."""
    if selection["metric"] is None:
        if "score" in selection["ranking"][0]["metrics"]:
            return "the newest counts: the critic had this task from the demonstrations alone, so its Q does not tell"
        return "the newest counts: no metric on held-out episodes is known to tell which clone succeeds more often"
    name, _, better, meaning = METRICS[selection["metric"]]
    return f"ranked by {name} ({better} is better): {meaning}"


def _print(selection: dict[str, Any], run: Path) -> None:
    from rich.console import Console
    from rich.markup import escape
    from rich.table import Table

    console, ranking, data = Console(), selection["ranking"], selection["data"]
    console.print(
        f"{len(ranking)} checkpoints on {escape(told_kind(data))}; {selection['networks']} networks act\n"
        + _told_rule(selection),
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
        console.print("These checkpoints have no critic, so there is no Q to judge them by.")
    if selection["selected"] is None:
        console.print("[red]no checkpoint can be picked[/red]")
    elif len(ranking) == 1:
        console.print(f"picked step {selection['selected']}: the only checkpoint, so this is no choice")
    else:
        though = " (doubted, as is every one that is not out)" if ranking[0]["doubt"] else ""
        though += " (what fine-tuning began with)" if selection["selected"] == 0 else ""
        path = run / "checkpoints" / ranking[0]["checkpoint"]
        console.print(f"picked step {selection['selected']}{though}: {escape(str(path))}", soft_wrap=True)
    console.print(NO_GUARANTEE)
