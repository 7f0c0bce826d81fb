"""What a report is made of: the files of a run folder and of rollouts, read and checked."""

from __future__ import annotations

import json
import math
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

from ptr_fast.config import from_dict
from ptr_fast.diagnostics import wilson_interval
from ptr_fast.errors import DataError
from ptr_fast.json_files import parse_json, read_checked
from ptr_fast.run_folder import Choice, choose_checkpoint, list_checkpoints
from ptr_fast.runtime.playing import PlayConfig
from ptr_robot.evaluation.metrics import METRICS
from ptr_robot.report.file_types import Evaluation, MetricsRow, Record, Rollout, Selection

__all__ = [
    "Metrics",
    "RunData",
    "TrialRow",
    "distinct_trials",
    "find_rollouts",
    "read_rollouts",
    "read_run",
    "told_conditions",
    "told_plan",
    "told_search",
    "told_setting",
    "trial_rows",
]

Metrics = dict[str, tuple[np.ndarray, np.ndarray]]
"""Series by key: steps and values."""
Key = TypeVar("Key")
CURVES = ("q", "q_averaged", "value", "advantage", "returns")
"""What an episode's curves have besides their steps, where the learner has a critic."""
MAX_STEP = 2**63 - 1
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
    over successful trials, NaN without one. ``step`` is the checkpoint's, None of several or where no file says it.
    ``setting`` tells what was alike in these trials beside task and kitchen: delays, playing, starts, limits;
    ``search`` how a search chose, and ``candidates`` among how many, None of other modes and where a file is silent.
    """

    policy: str
    mode: str
    task: str
    kitchen: str
    step: int | None
    setting: str
    search: str
    candidates: int | None
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
    found = [_read_evaluation(file) for file in sorted((path / "evaluation").glob("*.json"))]
    return RunData(
        path=path,
        name=name or path.resolve().name,
        config=read_checked(path / "train_config.json", Record, "record")
        if (path / "train_config.json").is_file()
        else {},
        metrics=metrics,
        evaluations={evaluation["step"]: evaluation for evaluation in found},
        selection=_read_selection(path / "selection.json"),
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


def _read_selection(file: Path) -> dict[str, Any] | None:
    if not file.is_file():
        return None
    selection = read_checked(file, Selection, "selection")
    if selection["metric"] not in (None, *METRICS):
        raise DataError(f"{file}: selection.metric: expected one of ptr-fast select, got {selection['metric']!r}")
    return selection


def _read_evaluation(file: Path) -> dict[str, Any]:
    evaluation = read_checked(file, Evaluation, "evaluation")
    for number, episode in enumerate(evaluation["episodes"]):
        curves = {key: curve for key, curve in episode.get("curves", {}).items() if key in ("step", *CURVES)}
        missing = [key for key in CURVES if key not in curves] if "q" in curves else []
        if missing or len(set(map(len, curves.values()))) > 1 or [] in curves.values():
            why = f"{missing[0]!r} is missing" if missing else "expected as many values, at least one, in each of them"
            raise DataError(f"{file}: evaluation.episodes[{number}].curves: {why}")
    return evaluation


def _read_metrics(path: Path) -> tuple[Metrics, float]:
    if not path.is_file():
        return {}, 0.0
    rows: dict[int, dict[str, Any]] = {}
    lines = path.read_bytes().splitlines()
    for number, line in enumerate(lines, 1):
        try:
            row = parse_json(line)
        except ValueError as error:
            if number == len(lines):
                break  # the line that a running or killed process was writing
            told = line[:80].decode(errors="replace")
            raise DataError(f"{path}, line {number}: expected an object with a step, got {told!r}") from error
        try:
            from_dict(MetricsRow, row, "metrics")
            if not 0 <= row["step"] <= MAX_STEP:
                raise ValueError(f"metrics.step: expected 0 to {MAX_STEP}, got {row['step']}")
            if not math.isfinite(row.get("time_s", 0.0)):
                raise ValueError(f"metrics.time_s: expected a finite number, got {row['time_s']}")
            numbers = {
                key: from_dict(float, value, f"metrics.{key}") for key, value in row.items() if _is_number(value)
            }
        except ValueError as error:
            raise DataError(f"{path}, line {number}: {error}") from error
        rows[row["step"]] = numbers  # a step written again after a resume replaces the older line
    seconds = max((row.get("time_s", 0.0) for row in rows.values()), default=0.0)
    series: dict[str, list[tuple[int, float]]] = {}
    for step in sorted(rows):
        for key, value in rows[step].items():
            if key not in ("step", "time_s"):
                series.setdefault(key, []).append((step, value))
    return {key: (np.array([s for s, _ in p]), np.array([v for _, v in p])) for key, p in series.items()}, seconds


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


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


def read_rollouts(paths: Iterable[Path]) -> dict[Path, dict[str, Any]]:
    """Results of trials by their files.

    Raises:
        DataError: a file lacks a field or has a wrong one, or counts other trials than it holds; both are named.
    """
    rollouts = {path: read_checked(path, Rollout, "rollout") for path in paths}
    for path, rollout in rollouts.items():
        trials = rollout["trials"]
        counted = {"successes": sum(trial["success"] for trial in trials), "num_trials": len(trials)}
        for name, count in counted.items():
            if rollout.get(name, count) != count:
                raise DataError(f"{path}: rollout.{name}: expected {count}, as its trials are, got {rollout[name]}")
        if "candidates" in rollout and "elites" not in rollout:
            raise DataError(f"{path}: rollout.elites: expected a number, as rollout.candidates is there, got none")
    return rollouts


def distinct_trials(
    rollouts: Mapping[Path, dict[str, Any]], key_of: Callable[[dict[str, Any]], Key]
) -> dict[Key, list[dict[str, Any]]]:
    """Trials by the key of their results, in the order of the files; each start of a checkpoint once.

    The same trial seed of the same checkpoint counts once: the newest file has it.
    """
    groups: dict[Key, dict[tuple[str, int], dict[str, Any]]] = {key_of(rollout): {} for rollout in rollouts.values()}
    for path in sorted(rollouts, key=lambda p: (p.stat().st_mtime_ns, str(p))):
        rollout = rollouts[path]
        for i, trial in enumerate(rollout["trials"]):
            groups[key_of(rollout)][str(rollout.get("checkpoint")), trial.get("seed", i)] = trial
    return {key: list(trials.values()) for key, trials in groups.items()}


def told_plan(rollout: Mapping[str, Any]) -> str:
    """How late frames or states were, and how chunks were played, as a name tells it; empty where all was as usual."""
    plan = rollout.get("plan", {})
    told = "".join(f", {what} {plan[key]} late" for what, key in DELAYS.items() if plan.get(key))
    if plan.get("play", "receding") != "receding":
        told += f", {plan['play']}"
    decay = plan.get("ensemble_decay", PlayConfig.ensemble_decay)
    if plan.get("play") == "ensemble" and decay != PlayConfig.ensemble_decay:
        told += f", decay {decay:g}"
    return told + (f", execute {plan['execute']}" if plan.get("execute") else "")


def told_conditions(rollout: Mapping[str, Any]) -> str:
    """From where trials began, what else lay there, and how many decisions they had, as far as a file says."""
    plan = rollout.get("plan", {})
    told = f", {plan['start']} starts" if "start" in plan else ""
    told += f", {plan['distractors']} distractors" if plan.get("distractors") else ""
    return told + (f", {plan['max_steps']} decisions" if "max_steps" in plan else "")


def told_setting(rollout: Mapping[str, Any]) -> str:
    """What sets trials apart beside policy, mode, search, task and kitchen: all of it, as far as a file says."""
    return told_plan(rollout) + _told_circumstances(rollout)


def _told_circumstances(rollout: Mapping[str, Any]) -> str:
    """A setting but for the plan: the conditions, what the policy was told, and what steered it."""
    task, steered = rollout.get("plan", {}).get("policy_task", ""), rollout.get("steered")
    told = told_conditions(rollout) + (f", told {task!r}" if task not in ("", rollout["task"]) else "")
    return told + (f", steered by {json.dumps(steered, sort_keys=True)}" if steered else "")


def told_search(rollout: Mapping[str, Any]) -> str:
    """Of how many candidates a search took what; empty for other modes, and where an older file does not say.

    Args:
        rollout: a result, or what :meth:`ptr_fast.config.ActConfig.told` tells.
    """
    if "candidates" not in rollout:
        return ""
    several = f"mean of the best {rollout['elites']}" if rollout["elites"] > 1 else "best"
    return f", {several} of {rollout['candidates']}"


def trial_rows(paths: Sequence[Path]) -> list[TrialRow]:
    """Success per policy, mode, task, kitchen and conditions, in the order of the files; each start once.

    Several checkpoints of one run are several policies, named by their steps; so is one that was shown late frames or
    states, named by how late, one that searched in several ways, named by how, and one that was tried from several
    ranges of starts or with several limits, named by these.

    Raises:
        DataError: as of :func:`read_rollouts`.
    """
    rollouts = read_rollouts(paths)
    seen: defaultdict[tuple[tuple[str, str], str], set[str]] = defaultdict(set)
    for rollout in rollouts.values():
        for kind, words in _parts_of_name(rollout).items():
            seen[_policy_of(rollout), kind].add(words)

    def key_of(rollout: dict[str, Any]) -> tuple[str, ...]:
        policy, parts = _policy_of(rollout), _parts_of_name(rollout)
        name = policy[0] + "".join(parts[kind] for kind in parts if kind == "plan" or len(seen[policy, kind]) > 1)
        search = told_search(rollout) if rollout["mode"] == "search" else ""
        return name, rollout["mode"], rollout["task"], rollout["kitchen"], told_setting(rollout), search

    alike: defaultdict[tuple[str, ...], list[dict[str, Any]]] = defaultdict(list)
    for rollout in rollouts.values():
        alike[key_of(rollout)].append(rollout)
    return [_row(key, trials, alike[key]) for key, trials in distinct_trials(rollouts, key_of).items()]


def _policy_of(rollout: dict[str, Any]) -> tuple[str, str]:
    """Its label and its run."""
    return rollout["policy"], str(Path(str(rollout.get("checkpoint"))).parent.parent)


def _parts_of_name(rollout: dict[str, Any]) -> dict[str, str]:
    """What a name tells beside the policy, by kind: the plan always, all else where a policy has several."""
    parts = {"step": f", step {rollout.get('step')}", "plan": told_plan(rollout)}
    if rollout["mode"] == "search":
        parts["search"] = told_search(rollout)
    return {**parts, "circumstances": _told_circumstances(rollout)}


def _row(key: tuple[str, ...], trials: Sequence[dict[str, Any]], rollouts: Sequence[dict[str, Any]]) -> TrialRow:
    good = [trial for trial in trials if trial["success"]]
    lengths = [trial["num_steps"] for trial in good if "num_steps" in trial]
    steps = {rollout.get("step") for rollout in rollouts}
    name, mode, task, kitchen, setting, search = key
    return TrialRow(
        policy=name,
        mode=mode,
        task=task,
        kitchen=kitchen,
        step=steps.pop() if len(steps) == 1 else None,
        setting=setting,
        search=search,
        candidates=rollouts[0].get("candidates"),
        successes=len(good),
        num_trials=len(trials),
        interval=wilson_interval(len(good), len(trials)),
        median_steps=float(np.median(lengths)) if lengths else math.nan,
        reached=_count(trials, "reached"),
        lifted=_count(trials, "lifted"),
    )


def _count(trials: Iterable[dict[str, Any]], key: str) -> int | None:
    values = [trial.get(key) for trial in trials]
    return None if not values or any(value is None for value in values) else sum(map(bool, values))
