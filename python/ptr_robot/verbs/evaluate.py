"""Offline metrics of one checkpoint on held-out demonstrations.

Shows whether Q rises along them, how far the policy's actions are from the recorded ones, and whether the critic stays
within possible returns. No offline metric guarantees success on a robot.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ptr_fast.checkpoint import read_checkpoint
from ptr_robot.chosen_checkpoint import chosen_checkpoint
from ptr_robot.evaluation.held_out import held_out, told_kind
from ptr_robot.evaluation.metrics import (
    METRICS,
    NO_GUARANTEE,
    evaluate_checkpoint,
    evaluation_path,
    format_number,
    write_evaluation,
)
from ptr_robot.evaluation.options import EvaluationOptions
from ptr_robot.training.store_places import StorePlaces

__all__ = ["Args", "main"]


@dataclass(frozen=True, kw_only=True)
class Args(EvaluationOptions):
    """Offline metrics of a checkpoint on held-out demonstrations.

    Attributes:
        checkpoint: Run (the checkpoint that select picked, else the newest that has not diverged), or one checkpoint.
        out: JSON file to write. Default: RUN/evaluation/<step>.json.
        json: Print the result as JSON instead of tables.
    """

    checkpoint: Path
    out: Path | None = None
    json: bool = False


def main(args: Args) -> int:
    from ptr_robot.console.progress import Progress
    from ptr_robot.device import pick_device

    info = read_checkpoint(chosen_checkpoint(args.checkpoint))
    places = StorePlaces.parse(args.store, takes_given=True, camera_map=args.camera_map)
    data = held_out(info, places=places, task=args.task, max_episodes=args.max_episodes, seed=args.seed)
    with Progress(len(data.episodes), "evaluate", "ep") as progress:
        result = evaluate_checkpoint(
            info, data, seed=args.seed, device=str(pick_device(args.device)), advance=progress.advance
        )
    if args.fitted:
        from ptr_robot.evaluation.fitted_metrics import fitted_metrics, with_fitted

        device = str(pick_device(args.device))
        result = with_fitted(result, fitted_metrics(info, data, places, seed=args.seed, device=device))
    path = args.out or evaluation_path(info.path)
    write_evaluation(result, path)
    if args.json:
        print(json.dumps(result, indent=1, allow_nan=False))
        return 0
    _print(result, path)
    return 0


def _print(result: dict[str, Any], path: Path) -> None:
    from rich.console import Console
    from rich.markup import escape
    from rich.table import Table

    console, data = Console(), result["data"]
    told = f"step {result['step']}, {result['networks']} networks, {told_kind(data)}"
    console.print(escape(told), soft_wrap=True)
    if data["note"]:
        console.print(f"[yellow]{escape(data['note'])}[/yellow]", soft_wrap=True)
    table = Table("metric", "value", "unit", "better", "what it is", box=None, header_style="bold")
    for key, (name, unit, better, meaning) in METRICS.items():
        if key in result["metrics"]:
            table.add_row(name, format_number(result["metrics"][key]), unit, better, meaning)
    console.print(table)
    if result["value_range"] is None:
        console.print("This policy has no critic, so there is no Q to look at.")
    if fitted := result.get("fitted_on"):
        told = f"fitted to {fitted['num_episodes']} training episodes ({fitted['num_steps']} steps)"
        console.print(escape("; ".join(filter(None, (told, fitted["unknown"])))), soft_wrap=True)
    if result["diverged"]:
        console.print(f"[red]diverged: {escape(result['diverged'])}[/red]", soft_wrap=True)
    if result["misestimated"]:
        console.print(f"[yellow]{escape(result['misestimated'])}[/yellow]", soft_wrap=True)
    console.print(f"{NO_GUARANTEE}\nwrote {escape(str(path))}", soft_wrap=True)
