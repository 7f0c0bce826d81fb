"""Checks of several runs together: whether seeds come to the same, and whether an actor keeps up with a clone."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

from ptr_robot.diagnosis.finding import Finding
from ptr_robot.evaluation.metrics import METRICS
from ptr_robot.report.runs import TrialRow, find_rollouts, trial_rows
from ptr_robot.run_diagnosis.acting import to_follow
from ptr_robot.run_diagnosis.evidence import RunEvidence

__all__ = ["actor_behind_clone", "seeds_disagree"]

DIFFERENT_SCORE, DIFFERENT_ERROR = 0.3, 1.5
"""By how much a score in [-1, 1] differs, and by how many times an error, where seeds disagree."""


FARTHER = 1.5
"""Times the action error of a clone of the same data: an actor that has left the recorded actions so far is doubted."""


def actor_behind_clone(runs: Sequence[RunEvidence]) -> list[Finding]:
    """A critic's actor that is much farther from the recorded actions than a clone, and no better in trials."""
    found = []
    for run in runs:
        for clone in runs:
            if run.limits is None or run.has_many_modes or clone.limits is not None or _data(run) != _data(clone):
                continue
            own, other = run.now("action_error"), clone.now("action_error")
            if own is None or other is None or own.value <= FARTHER * other.value or _succeeds(run, clone):
                continue
            found.append(
                Finding(
                    level="warning",
                    seen=f"the action error of {run.run.name} is {own.value:.3g} at step {own.step}, that of the clone "
                    f"{clone.run.name} {other.value:.3g}",
                    why="it may have found something better; but an actor trained on Q alone more often has not found "
                    "the recorded actions, and does worse than the clone: trials decide",
                    advice=to_follow(run),
                    numbers={"action_error": own.value, "of_the_clone": other.value},
                    store=f"{run.path}, {clone.path}",
                )
            )
    return found


def _data(run: RunEvidence) -> set[tuple[str, ...]]:
    """The stores that it trains on, by what identifies their content."""
    return {
        (source["role"], source["fingerprint"]) for source in (run.run.config.get("split") or {}).get("sources", [])
    }


def _succeeds(run: RunEvidence, clone: RunEvidence) -> bool:
    """Whether the run succeeds at least as often as the clone in trials that are alike, by its mean."""
    of_clone = _rows(clone)
    for row in _rows(run):
        alike = [other for other in of_clone if _trials(other) == _trials(row)]
        best = max((other.successes / other.num_trials for other in alike), default=None)
        if row.mode in ("mean", "ema_mean") and best is not None and row.successes / row.num_trials >= best:
            return True
    return False


def _trials(row: TrialRow) -> tuple[str, ...]:
    """What trials of different runs must have in common to be compared."""
    return row.task, row.kitchen, row.setting


def seeds_disagree(runs: Sequence[RunEvidence]) -> list[Finding]:
    """Runs of one configuration whose trials or held-out metrics lie far apart."""
    groups: dict[str, list[RunEvidence]] = {}
    for run in runs:
        groups.setdefault(_but_for_the_seed(run), []).append(run)
    return [finding for group in groups.values() if len(group) > 1 for finding in _of_group(group)]


def _but_for_the_seed(run: RunEvidence) -> str:
    config = run.run.config["config"]
    told: dict[str, Any] = {key: value for key, value in config.items() if key != "out" and value is not None}
    told["loop"] = {key: value for key, value in (told.get("loop") or {}).items() if key != "seed"}
    told.pop("checkpoint", None)
    return json.dumps(told, sort_keys=True)


def _of_group(group: Sequence[RunEvidence]) -> list[Finding]:
    words = _by_trials(group) or _by_metric(group)
    if not words:
        return []
    names = ", ".join(run.run.name for run in group)
    return [
        Finding(
            level="warning",
            seen=f"{names} differ in their seed alone, and {words}",
            why="what one seed shows is chance: a change of settings cannot be judged by it",
            advice="judge by at least three seeds and their interval; --rewards.num-steps 5, "
            "--rewards.lower-bound-returns, lower rates or more updates bring them together",
            store=", ".join(run.path for run in group),
        )
    ]


def _by_trials(group: Sequence[RunEvidence]) -> str:
    newest = [_newest(run) for run in group]
    for rows in newest:
        for others in newest:
            for key in rows.keys() & others.keys():
                row, other = rows[key], others[key]
                if row.interval[1] < other.interval[0]:
                    first, second = (f"{each.successes} of {each.num_trials}" for each in (row, other))
                    by = f"by {row.mode}{row.search} {first} trials succeed with one and {second} with another"
                    return f"{by} ({row.task}): their 95 % intervals do not meet"
    return ""


def _newest(run: RunEvidence) -> dict[tuple[str, ...], TrialRow]:
    """Of trials that are alike those of the newest checkpoint, by what is alike."""
    in_order = sorted(_rows(run), key=lambda row: -1 if row.step is None else row.step)
    return {(row.mode, row.search, *_trials(row)): row for row in in_order}


def _rows(run: RunEvidence) -> list[TrialRow]:
    folder = run.run.path / "rollouts"
    return trial_rows(find_rollouts([folder])) if folder.is_dir() else []


def _by_metric(group: Sequence[RunEvidence]) -> str:
    name = "action_error" if group[0].limits is None else "score"
    values = [now.value for run in group if (now := run.now(name)) is not None]
    if len(values) < 2:
        return ""
    low, high = min(values), max(values)
    apart = high - low > DIFFERENT_SCORE if name == "score" else high > DIFFERENT_ERROR * max(low, 1e-9)
    return f"their {METRICS[name][0]} on held-out episodes lies between {low:.3g} and {high:.3g}" if apart else ""
