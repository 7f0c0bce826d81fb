"""The rows of a comparison: one per method, data set, seed, acting mode and way to choose the checkpoint.

A row holds the outcome of every trial, so intervals and paired differences can be computed from rows alone.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ptr_fast.diagnostics import wilson_interval
from ptr_fast.errors import DataError
from ptr_fast.files import write_atomically
from ptr_fast.run_folder import picked_step
from ptr_robot.comparison.grid import Grid
from ptr_robot.comparison.plan import Cell, Plan
from ptr_robot.stages.ledger import Ledger
from ptr_robot.stages.stage import Stage

__all__ = ["RULES", "outcomes_of", "read_rows", "read_trials", "rows_of", "write_rows"]

RULES = ("selected", "last", "oracle")
"""How the checkpoint is chosen: by ``select``, the last one, or the one with the most successes in these very trials.

The oracle is no method that anyone could use: it looks at the trials that it is judged by.
"""
NEEDED = ("data", "method", "phase", "checkpoint", "mode", "seed", "successes", "num_trials", "outcomes", "steps")


def rows_of(grid: Grid, plan: Plan, ledger: Ledger) -> list[dict[str, Any]]:
    """The rows of all cells whose trials have finished.

    Raises:
        DataError: a file of trials or a selection is damaged; the file is named.
    """
    stages = {stage.name: stage for stage in plan.stages}
    rows = []
    for cell in plan.cells:
        marks = {step: ledger.finished(stages[name]) for step, name in cell.tried_by.items()}
        if any(mark is None for mark in marks.values()):
            continue
        tried = {step: read_trials(path) for step, path in cell.trials.items()}
        seconds = {name: (ledger.finished(stages[name]) or {}).get("seconds") for name in cell.trained_by}
        for rule, step in _chosen(cell, tried):
            mark = marks[step] or {}
            rows.append(_row(grid, cell, rule, step, tried[step], seconds, mark, stages))
    return rows


def _chosen(cell: Cell, tried: Mapping[int, Mapping[str, Any]]) -> list[tuple[str, int]]:
    """The checkpoint of each rule; before fine-tuning there is but one."""
    if cell.phase == "before":
        return [("last", cell.last_step)]
    if not (cell.run / "selection.json").is_file():
        raise DataError(f"{cell.run / 'selection.json'}: missing; ptr-fast select --run {cell.run} makes it again")
    picked = picked_step(cell.run)
    selected = cell.last_step if picked is None or picked not in tried else picked
    best = max(tried, key=lambda step: (tried[step]["successes"], step))
    return [("selected", selected), ("last", cell.last_step), ("oracle", best)]


def _row(
    grid: Grid,
    cell: Cell,
    rule: str,
    step: int,
    result: Mapping[str, Any],
    seconds: Mapping[str, Any],
    mark: Mapping[str, Any],
    stages: Mapping[str, Stage],
) -> dict[str, Any]:
    trials = result["trials"]
    good = [trial["num_steps"] for trial in trials if trial["success"]]
    plan = result["plan"]
    return {
        "case": ", ".join([cell.data, cell.method, cell.phase, rule, cell.mode, f"seed {cell.seed}"]),
        "grid": grid.name,
        "scale": grid.scale,
        "data": cell.data,
        "task": result["task"],
        "kitchen": result["kitchen"],
        "start": plan["start"],
        "max_steps": plan["max_steps"],
        "method": cell.method,
        "phase": cell.phase,
        "checkpoint": rule,
        "step": step,
        "has_pick": rule != "selected" or picked_step(cell.run) is not None,
        "mode": cell.mode,
        "seed": cell.seed,
        "trial_seed": plan["seed"],
        "num_demos": grid.method(cell.method).num_demos or grid.num_demos,
        "successes": result["successes"],
        "num_trials": result["num_trials"],
        "interval95": [round(value, 4) for value in wilson_interval(result["successes"], result["num_trials"])],
        "mean_steps": round(result["mean_steps"], 2),
        "mean_steps_of_successes": round(float(np.mean(good)), 2) if good else None,
        "reached": result["reached"],
        "lifted": result["lifted"],
        "outcomes": "".join("1" if trial["success"] else "0" for trial in trials),
        "steps": [trial["num_steps"] for trial in trials],
        "training_seconds": seconds,
        "trial_seconds": mark.get("seconds"),
        "updates": {name: int(stages[name].work) for name in cell.trained_by},
        "environment": mark.get("machine", {}),
    }


def read_trials(path: Path) -> dict[str, Any]:
    """A result of ``rollout`` in a toy kitchen.

    Raises:
        DataError: it is none, or not whole; names the file.
    """
    try:
        result = json.loads(path.read_bytes())
        if len(result["trials"]) != result["num_trials"] or not isinstance(result["plan"], dict):
            raise ValueError(f"{result['num_trials']} trials expected, {len(result['trials'])} found")
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise DataError(f"{path}: not a whole result of trials ({error}); remove it, and they run again") from error
    return result


def write_rows(rows: Sequence[Mapping[str, Any]], path: Path) -> None:
    """Writes rows as JSON lines; the file is there whole, old or new."""
    write_atomically(path, "".join(json.dumps(row) + "\n" for row in rows).encode())


def read_rows(path: Path) -> list[dict[str, Any]]:
    """Rows from a file of JSON lines.

    Raises:
        DataError: the file is missing, or a line is damaged; the file and the line are named.
    """
    rows = []
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except OSError as error:
        raise DataError(f"{path}: {error.strerror}") from error
    for number, line in enumerate(lines, 1):
        try:
            row = json.loads(line)
            missing = [name for name in NEEDED if name not in row]
            if missing or len(row["outcomes"]) != row["num_trials"] or len(row["steps"]) != row["num_trials"]:
                raise ValueError(f"{missing[0]} is missing" if missing else "outcomes or steps are not one per trial")
            if row["outcomes"].count("1") != row["successes"]:
                raise ValueError(f"{row['successes']} successes, but outcomes {row['outcomes']}")
        except (ValueError, TypeError, AttributeError) as error:
            raise DataError(
                f"{path}, line {number}: not a row of a comparison ({error}); remove the line, or make the file again "
                "with ptr-fast compare"
            ) from error
        rows.append(row)
    return rows


def outcomes_of(row: Mapping[str, Any]) -> np.ndarray:
    """One 0 or 1 per trial, in the order of the starts."""
    return np.array([int(letter) for letter in row["outcomes"]])
