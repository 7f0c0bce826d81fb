"""What a report is made of: the files of a run folder and of rollouts, read and checked."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ptr_fast.diagnostics import wilson_interval
from ptr_fast.errors import DataError
from ptr_fast.run_folder import Choice, choose_checkpoint, list_checkpoints

__all__ = ["Metrics", "RunData", "TrialRow", "find_rollouts", "read_run", "trial_rows"]

Metrics = dict[str, tuple[np.ndarray, np.ndarray]]
"""Series by key: steps and values."""


DELAYS = {"frame": "frame_delay", "state": "state_delay"}  # of ptr_robot.sim.trials.TrialPlan


@dataclass(frozen=True, kw_only=True)
class RunData:
    """One run, as far as its files go; everything but ``path`` and ``name`` may be empty.

    Attributes:
        config: ``train_config.json``.
        metrics: ``metrics.jsonl``.
        evaluations: ``evaluation/<step>.json`` by step.
        selection: ``selection.json``, or None.
        choice: the checkpoint that the run folder means; None where it has none. problem: why it cannot be told.
        seconds: training time of the last process, from the metrics.
    """

    path: Path
    name: str
    config: dict[str, Any]
    metrics: Metrics
    evaluations: dict[int, dict[str, Any]]
    selection: dict[str, Any] | None
    seconds: float
    choice: Choice | None = None
    problem: str = ""

    @property
    def last_step(self) -> int:
        return int(max((steps[-1] for steps, _ in self.metrics.values()), default=0))

    def shown_evaluation(self) -> dict[str, Any] | None:
        """That of the checkpoint which the run folder means; the newest one where the checkpoints are gone."""
        if self.choice is not None:
            return self.evaluations.get(self.choice.step)
        return self.evaluations[max(self.evaluations)] if self.evaluations else None

    def told_choice(self) -> str:
        """In a line: the checkpoint that the run folder means, and why."""
        if self.choice is None:
            return self.problem
        unfit = f", but it {self.choice.unfit}" if self.choice.unfit else ""
        unseen = "" if self.choice.step in self.evaluations else "; it was not evaluated"
        return f"step {self.choice.step}: {self.choice.why}{unfit}{unseen}"


@dataclass(frozen=True, kw_only=True)
class TrialRow:
    """Trials of one policy and mode at one task in one kitchen, over all files about them.

    ``reached`` and ``lifted`` count the trials that came so far, None where the files do not say; ``median_steps`` is
    over successful trials, NaN without one.
    """

    policy: str
    mode: str
    task: str
    kitchen: str
    successes: int
    num_trials: int
    interval: tuple[float, float]
    median_steps: float
    reached: int | None = None
    lifted: int | None = None


def read_run(path: Path, name: str | None = None) -> RunData:
    """Reads a run folder.

    Raises:
        DataError: the folder is missing or no run, or one of its files is broken; the file is named.
    """
    path = Path(path)
    if not path.is_dir():
        raise DataError(f"{path}: no such run folder")
    known = ("train_config.json", "metrics.jsonl", "checkpoints", "evaluation", "selection.json")
    if not any((path / entry).exists() for entry in known):
        raise DataError(f"{path}: not a run folder (none of {', '.join(known)} is there)")
    metrics, seconds = _read_metrics(path / "metrics.jsonl")
    choice, problem = _choice(path)
    evaluations = {}
    for file in sorted((path / "evaluation").glob("*.json")):
        evaluation = _read_json(file)
        evaluations[int(evaluation["step"])] = evaluation
    return RunData(
        path=path,
        name=name or path.resolve().name,
        config=_read_json(path / "train_config.json") if (path / "train_config.json").is_file() else {},
        metrics=metrics,
        evaluations=evaluations,
        selection=_read_json(path / "selection.json") if (path / "selection.json").is_file() else None,
        seconds=seconds,
        choice=choice,
        problem=problem,
    )


def _choice(path: Path) -> tuple[Choice | None, str]:
    if not list_checkpoints(path):
        return None, ""
    try:
        return choose_checkpoint(path), ""
    except DataError as error:
        return None, str(error)


def _read_json(path: Path) -> dict[str, Any]:
    try:
        value = json.loads(path.read_bytes())
    except ValueError as error:
        raise DataError(f"{path}: not valid JSON ({error})") from error
    if not isinstance(value, dict):
        raise DataError(f"{path}: expected an object, got {type(value).__name__}")
    return value


def _read_metrics(path: Path) -> tuple[Metrics, float]:
    if not path.is_file():
        return {}, 0.0
    rows: dict[int, dict[str, float]] = {}
    lines = path.read_bytes().splitlines()
    for number, line in enumerate(lines, 1):
        try:
            row = json.loads(line)
            rows[int(row.pop("step"))] = row  # a step written again after a resume replaces the older line
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            if number == len(lines):
                break  # the line that a running or killed process was writing
            told = line[:80].decode(errors="replace")
            raise DataError(f"{path}, line {number}: expected an object with a step, got {told!r}") from error
    seconds = max((float(row.pop("time_s", 0.0)) for row in rows.values()), default=0.0)
    series: dict[str, list[tuple[int, float]]] = {}
    for step in sorted(rows):
        for key, value in rows[step].items():
            if isinstance(value, int | float) and not isinstance(value, bool):
                series.setdefault(key, []).append((step, float(value)))
    return {key: (np.array([s for s, _ in p]), np.array([v for _, v in p])) for key, p in series.items()}, seconds


def find_rollouts(paths: Iterable[Path]) -> list[Path]:
    """JSON files, from files and folders, each once.

    Raises:
        DataError: a path does not exist.
    """
    found: dict[Path, None] = {}
    for path in map(Path, paths):
        if not path.exists():
            raise DataError(f"{path}: no such rollout file or folder")
        for file in sorted(path.glob("*.json")) if path.is_dir() else [path]:
            found[file.resolve()] = None
    return list(found)


def trial_rows(paths: Sequence[Path]) -> list[TrialRow]:
    """Success per policy, mode, task and kitchen, in the order of the files.

    The same trial seed of the same checkpoint counts once: the newest file has it. Several checkpoints of one run are
    several policies, named by their steps; so is one that was shown late frames or states, named by how late.

    Raises:
        DataError: a file lacks a field; the file and field are named.
    """
    rollouts = {path: _read_json(path) for path in paths}
    for path, rollout in rollouts.items():
        for field in ("policy", "mode", "task", "kitchen", "trials"):
            if field not in rollout:
                raise DataError(f"{path}: field {field!r} is missing from the rollout")
    steps: dict[tuple[str, str], set[Any]] = {}
    for rollout in rollouts.values():
        steps.setdefault((str(rollout["policy"]), _run_of(rollout)), set()).add(rollout.get("step"))

    def key_of(rollout: dict[str, Any]) -> tuple[str, str, str, str]:
        policy = str(rollout["policy"])
        if len(steps[policy, _run_of(rollout)]) > 1:
            policy += f", step {rollout.get('step')}"
        plan = rollout.get("plan", {})
        policy += "".join(f", {what} {plan[key]} late" for what, key in DELAYS.items() if plan.get(key))
        if plan.get("play", "receding") != "receding":
            policy += f", {plan['play']}"
        if plan.get("execute"):
            policy += f", execute {plan['execute']}"
        return policy, str(rollout["mode"]), str(rollout["task"]), str(rollout["kitchen"])

    groups: dict[tuple[str, str, str, str], dict[tuple[str, Any], dict[str, Any]]] = {
        key_of(rollout): {} for rollout in rollouts.values()
    }
    for path in sorted(paths, key=lambda p: (p.stat().st_mtime_ns, str(p))):
        rollout = rollouts[path]
        for i, trial in enumerate(rollout["trials"]):
            groups[key_of(rollout)][str(rollout.get("checkpoint")), trial.get("seed", i)] = trial
    return [_row(key, trials) for key, trials in groups.items()]


def _run_of(rollout: dict[str, Any]) -> str:
    return str(Path(str(rollout.get("checkpoint"))).parent.parent)


def _row(key: tuple[str, str, str, str], trials: dict[Any, dict[str, Any]]) -> TrialRow:
    good = [trial for trial in trials.values() if trial["success"]]
    steps = [trial["num_steps"] for trial in good if "num_steps" in trial]
    return TrialRow(
        policy=key[0],
        mode=key[1],
        task=key[2],
        kitchen=key[3],
        successes=len(good),
        num_trials=len(trials),
        interval=wilson_interval(len(good), len(trials)),
        median_steps=float(np.median(steps)) if steps else math.nan,
        reached=_count(trials.values(), "reached"),
        lifted=_count(trials.values(), "lifted"),
    )


def _count(trials: Iterable[dict[str, Any]], key: str) -> int | None:
    values = [trial.get(key) for trial in trials]
    return None if not values or any(value is None for value in values) else sum(map(bool, values))
