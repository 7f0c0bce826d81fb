"""The rows of a comparison: one per method, data set, seed, acting mode and way to choose the checkpoint.

A row holds the outcome of every trial, so intervals and paired differences can be computed from rows alone.
"""

from __future__ import annotations

import functools
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, NamedTuple, NotRequired, TypedDict

import numpy as np

from ptr_fast.config import from_dict
from ptr_fast.diagnostics import wilson_interval
from ptr_fast.errors import DataError
from ptr_fast.files import write_atomically
from ptr_fast.json_files import parse_json, read_checked, read_json
from ptr_fast.learners.registry import traits_of
from ptr_fast.run_folder import picked_step
from ptr_robot.comparison.grid import Grid
from ptr_robot.comparison.plan import Cell, Plan
from ptr_robot.recipes import recipe_named
from ptr_robot.report.file_types import Record
from ptr_robot.report.runs import read_rollouts
from ptr_robot.stages.ledger import Ledger
from ptr_robot.stages.stage import Stage
from ptr_robot.training.familiarity import Familiarity, familiarity_in, ranking_of

__all__ = ["MIXED", "RULES", "SEARCHED", "outcomes_of", "read_rows", "read_trials", "rows_of", "write_rows"]

RULES = ("selected", "last", "oracle")
"""How the checkpoint is chosen: by ``select``, the last one, or the one with the most successes in these very trials.

The oracle is no method that anyone could use: it looks at the trials that it is judged by.
"""

SEARCHED = ("candidates", "elites")
"""What a result by ``search`` tells of it: samples, and how many of the best are averaged."""

MIXED = ("mix", "critic_mix", "lr_scale")
"""What a row tells of a training on both kinds of data; rows of earlier versions do not."""


class Row(TypedDict):
    """What every row has of what tables are made of; it has more."""

    grid: str
    data: str
    method: str
    phase: Literal["before", "after"]
    checkpoint: Literal["selected", "last", "oracle"]
    mode: str
    seed: int
    trial_seed: int
    max_steps: int
    successes: int
    num_trials: int
    outcomes: str
    steps: list[int]
    reached: NotRequired[int | None]
    lifted: NotRequired[int | None]
    updates: NotRequired[dict[str, int]]
    environment: NotRequired[dict[str, Any]]


class KitchenPlan(TypedDict):
    """How trials in a toy kitchen were run."""

    start: str
    max_steps: int
    seed: int


class KitchenTrial(TypedDict):
    """One of them."""

    num_steps: int


class KitchenRollout(TypedDict):
    """What rows need of a result of trials, besides what all results have.

    ``reached`` and ``lifted`` are None where the task has nothing to pick up, such as a door.
    """

    successes: int
    num_trials: int
    mean_steps: float
    reached: int | None
    lifted: int | None
    plan: KitchenPlan
    trials: list[KitchenTrial]


def rows_of(grid: Grid, plan: Plan, ledger: Ledger) -> list[dict[str, Any]]:
    """The rows of all cells whose trials have finished.

    Raises:
        DataError: a file of trials or a selection is damaged, or the runs of a data set saw different episodes; the
            file or the run is named.
    """
    stages = {stage.name: stage for stage in plan.stages}
    rows = []
    seen: dict[tuple[str, str], tuple[Path, str]] = {}
    for cell in plan.cells:
        marks = {step: ledger.finished(stages[name]) for step, name in cell.tried_by.items()}
        if None in marks.values() or not all(path.exists() for path in cell.trials.values()):
            continue
        tried = {step: read_trials(path, grid.trials) for step, path in cell.trials.items()}
        _check_episodes(cell, seen)
        seconds = {name: (ledger.finished(stages[name]) or {}).get("seconds") for name in cell.trained_by}
        for rule, step in _chosen(grid, cell, tried):
            mark = marks[step] or {}
            rows.append(_row(grid, cell, rule, step, tried[step], seconds, mark, stages))
    return rows


def _check_episodes(cell: Cell, seen: dict[tuple[str, str], tuple[Path, str]]) -> None:
    """Passes where the cell's run was trained on the same stores as the runs before it.

    Args:
        seen: data set and role of a store -> the first run, and the fingerprint of its store; it is added to.

    Raises:
        DataError: a store has changed between two runs; names both.
    """
    record = _record_of(cell)
    if record is None:
        return
    for role, store, fingerprint in record.stores:
        run, first = seen.setdefault((cell.data, role), (cell.run, fingerprint))
        if fingerprint != first:
            raise DataError(
                f"{cell.run}: trained on other {role} episodes than {run}: {store} has changed between them; "
                "remove the runs of the old store and their trials, or name another --out"
            )


class _Told(NamedTuple):
    """What rows need of a run's record: role, place and fingerprint of each store, and what its critic knew."""

    stores: list[tuple[str, str, str]]
    familiarity: Familiarity | None


def _record_of(cell: Cell) -> _Told | None:
    """Of the cell's run; None where it was removed to save space."""
    path = cell.run / "train_config.json"
    return _told_by(path, path.stat().st_mtime_ns) if path.is_file() else None


@functools.cache
def _told_by(path: Path, changed_ns: int) -> _Told:
    """A record is read again only where its file has changed."""
    record = read_checked(path, Record, "record")
    sources = (record.get("split") or {}).get("sources", [])
    stores = [(each["role"], each["store"], each["fingerprint"]) for each in sources]
    return _Told(stores, familiarity_in(record))


def _chosen(grid: Grid, cell: Cell, tried: Mapping[int, Mapping[str, Any]]) -> list[tuple[str, int]]:
    """The checkpoint of each rule; before fine-tuning there is but one."""
    if cell.phase == "before":
        return [("last", cell.last_step)]
    file, again = cell.run / "selection.json", f"ptr-fast select --run {cell.run} makes it again"
    if not file.is_file():
        raise DataError(f"{file}: missing; {again}")
    picked, selection = picked_step(cell.run), read_json(file)
    recipe = recipe_named(f"{grid.scale}-{grid.method(cell.method).recipe}")
    record, traits = _record_of(cell), traits_of(recipe.learner)
    rules = [ranking_of(traits, record.familiarity)] if record else [ranking_of(traits, None), None]
    if selection.get("metric") not in rules:
        raise DataError(f"{file}: picked by {selection.get('metric')}, expected {rules[0] or 'the newest'}; {again}")
    if picked is not None and picked not in tried:  # a training that was stopped has one where it stopped, untried
        ranked = [entry["step"] for entry in selection["ranking"] if not entry["excluded"]]
        picked = next((step for step in ranked if step in tried), None)
    selected = cell.last_step if picked is None else picked
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
    trials, method = result["trials"], grid.method(cell.method)
    is_mixed = any("--mix" in stages[name].verb for name in cell.trained_by)
    mixed = (method.mix_in(grid.mix), method.critic_mix, grid.lr_scale if method.route == "finetune" else None)
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
        **{name: result[name] for name in SEARCHED if name in result},
        "seed": cell.seed,
        "trial_seed": plan["seed"],
        "num_demos": method.num_demos or grid.num_demos,
        **{name: value for name, value in zip(MIXED, mixed, strict=True) if value is not None and is_mixed},
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


def read_trials(path: Path, num_trials: int = 0) -> dict[str, Any]:
    """A result of ``rollout`` in a toy kitchen.

    Args:
        num_trials: how many there have to be; 0 takes what the file says.

    Raises:
        DataError: it is none, or not whole; names the file.
    """
    try:
        result = read_rollouts([path])[path] | read_checked(path, KitchenRollout, "rollout")
        found = len(result["trials"])
        if found != (num_trials or found) or not found:
            raise DataError(f"{path}: expected {num_trials or 'some'} trials, got {found}")
    except DataError as error:
        raise DataError(f"{error}; remove it, and the trials run again") from error
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
        lines = path.read_bytes().splitlines()
    except OSError as error:
        raise DataError(f"{path}: {error.strerror}") from error
    for number, line in enumerate(lines, 1):
        try:
            row = parse_json(line)
            from_dict(Row, row, "row")
            if not len(row["outcomes"]) == len(row["steps"]) == row["num_trials"] > 0:
                raise ValueError("outcomes or steps are not one per trial, of one trial or more")
            if row["outcomes"].strip("01") or row["outcomes"].count("1") != row["successes"]:
                raise ValueError(f"{row['successes']} successes, but outcomes {row['outcomes']}")
        except ValueError as error:
            raise DataError(
                f"{path}, line {number}: not a row of a comparison ({error}); remove the line, or make the file again "
                "with ptr-fast compare"
            ) from error
        rows.append(row)
    return rows


def outcomes_of(row: Mapping[str, Any]) -> np.ndarray:
    """One 0 or 1 per trial, in the order of the starts."""
    return np.array([int(letter) for letter in row["outcomes"]])
