"""Offline metrics of one checkpoint on held-out demonstrations.

Shows whether Q rises along them, how far the policy's actions are from the recorded ones, and whether the critic stays
within possible returns. No offline metric guarantees success on a robot.
"""

from __future__ import annotations

import hashlib
import json
import math
import time
from collections.abc import Sequence
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import numpy as np

from ptr_fast.checkpoint import CheckpointInfo, weights_digest
from ptr_fast.config import RewardConfig, from_dict
from ptr_fast.data.store import EpisodeStore
from ptr_fast.data.transitions import Transitions
from ptr_fast.diagnostics import (
    EpisodeValues,
    divergence,
    late_rise,
    misestimation,
    rank_correlation,
    selection_score,
    summarize,
    value_range,
)
from ptr_fast.errors import DataError
from ptr_fast.files import write_atomically
from ptr_fast.json_files import parse_json
from ptr_fast.learners.registry import kind_of, traits_of
from ptr_fast.resize import resize
from ptr_fast.runtime.policy import Policy
from ptr_fast.valuation import RecordedEpisode, value_episode
from ptr_robot.evaluation.held_out import EvaluationData, run_folder
from ptr_robot.training.familiarity import familiarity_in, ranking_of

__all__ = [
    "METRICS",
    "evaluate_checkpoint",
    "evaluation_key",
    "evaluation_path",
    "saved_evaluation",
    "write_evaluation",
]

SCHEMA_VERSION = 5
"""Of the file, and of the numbers in it: raised whenever a metric or a learner's ranking changes, so that no old one is
compared."""
MAX_CURVES = 12
"""Episodes whose curves are kept in the file; all others keep their numbers."""
MAX_POINTS = 400
"""Points kept per curve."""
METRICS = {
    # key: (name, unit or range, what is better, meaning)
    "score": ("selection score", "-1..1", "high", "Q rises, ends high, and prefers recorded actions"),
    "rank_correlation": ("Q against time", "-1..1", "high", "Spearman's rank correlation along a demonstration"),
    "late_rise": ("late rise of Q", "sd", "high", "last tenth of a demonstration against the rest"),
    "preference": ("recorded over random", "0..1", "high", "share of uniform actions with a lower Q"),
    "bellman_error": ("Bellman error", "reward²", "low", "squared distance of Q to the learner's own target"),
    "action_error": ("action error", "scaled²", "low", "squared error of the mean action, mean over dimensions"),
    "log_prob": ("log-probability", "nats", "high", "of the recorded action"),
    "return_correlation": ("Q against return", "-1..1", "high", "Pearson correlation with the recorded return"),
    "early_rise": ("early rise of Q", "share", "one", "rise of Q over the first half of an episode, of the return's"),
    "return_bias": ("Q - return", "reward", "zero", "mean over the steps whose return is known"),
    "separation_auc": ("success over failure", "0..1", "high", "chance that a good episode has the higher mean Q"),
    "fqe_value": (
        "fitted value",
        "reward",
        "high",
        "Q of the policy at the first steps, fitted to what was trained on",
    ),
    "success_chance": ("chance of success", "0..1", "high", "of the policy's actions, by a classifier of outcomes"),
    "classifier_auc": ("classifier's AUC", "0..1", "", "how well that tells episodes of the evaluation apart"),
    "q_data": ("Q of the data", "reward", "", "mean of min over critics of Q(s, recorded action)"),
    "advantage": ("advantage of the data", "reward", "", "Q(s, recorded action) - Q(s, policy mean)"),
    "policy_gap": ("Q data - policy", "reward", "", "recorded actions against sampled policy actions"),
    "random_gap": ("Q data - random", "reward", "", "recorded actions against uniform actions"),
    "at_bounds": ("actions at bounds", "share", "", "dimensions in which the mean action lies at its bounds"),
    "recorded_at_bounds": ("recorded at bounds", "share", "", "the same of the recorded actions"),
    "share_outside": ("Q out of range", "share", "low", "steps whose Q no policy could earn, slack included"),
    "rank_correlation_averaged": ("averaged Q against time", "-1..1", "high", "rank correlation, averaged critics"),
    "late_rise_averaged": ("late rise, averaged Q", "sd", "high", "the last tenth, averaged critics"),
    "share_outside_averaged": ("averaged Q out of range", "share", "low", "the same for the averaged critics"),
}
NO_GUARANTEE = "No offline metric guarantees success on a robot: try the policy before you trust it."


def rewards_of(info: CheckpointInfo) -> RewardConfig:
    """The reward labels that the run was trained with; the published ones where the checkpoint does not say."""
    rewards = info.run.get("config", {}).get("rewards")
    return RewardConfig() if rewards is None else from_dict(RewardConfig, rewards, "rewards")


def evaluation_path(checkpoint: Path) -> Path:
    """Where the evaluation of a checkpoint is kept."""
    return run_folder(checkpoint) / "evaluation" / f"{checkpoint.resolve().name}.json"


def evaluation_key(info: CheckpointInfo, data: EvaluationData, seed: int) -> str:
    """SHA-256 over everything that the numbers depend on: equal key, equal result."""
    digest = hashlib.sha256((info.path / "files.json").read_bytes())
    ids = [data.store.episodes.episode_id[e] for e in data.episodes]
    about = {key: value for key, value in data.to_json().items() if key != "store"}
    digest.update(json.dumps([SCHEMA_VERSION, about, ids, seed]).encode())
    return digest.hexdigest()


def saved_evaluation(path: Path) -> dict[str, Any] | None:
    """An evaluation written earlier, or None where there is none of this version."""
    if not path.is_file():
        return None
    try:
        result = parse_json(path.read_bytes())
    except ValueError as error:
        raise DataError(f"{path}: not valid JSON ({error}); delete it") from error
    return result if isinstance(result, dict) and result.get("schema_version") == SCHEMA_VERSION else None


def evaluate_checkpoint(
    info: CheckpointInfo, data: EvaluationData, *, seed: int = 0, device: str = "cpu", advance: Any = None
) -> dict[str, Any]:
    """All metrics of one checkpoint, as the JSON values that ``evaluation/<step>.json`` holds (not written here).

    Args:
        advance: called once per finished episode.

    Raises:
        ValueError: the checkpoint does not act.
    """
    begin, traits = time.monotonic(), traits_of(info.config)
    if "acts" not in traits.capabilities:
        raise ValueError(f"{info.path}: {traits.name} does not act: there is nothing to compare with recorded actions")
    try:
        ranking = ranking_of(traits, familiarity_in(info.run))
    except ValueError as error:
        raise DataError(f"{info.path}: the record of its run: {error}") from error
    networks = Policy(info, device).networks
    averaged = info.act.mode != "mean"
    rewards = rewards_of(info)
    limits = None if traits.discount is None else value_range(rewards, traits.discount)
    values = []
    for episode in data.episodes:
        record = record_of(info, data.store, int(episode), rewards)
        values.append(value_episode(info.config, networks, record, info.spec, averaged=averaged, seed=seed))
        if advance is not None:
            advance()
    metrics = metrics_of(values, limits, averaged)
    shown = _choose_curves(data, values)
    return _finite(
        {
            "schema_version": SCHEMA_VERSION,
            "key": evaluation_key(info, data, seed),
            "step": info.step,
            "checkpoint": info.path.name,
            "weights": weights_digest(info),
            "learner": kind_of(info.config).tag,
            "ranking": ranking,
            "networks": "averaged" if averaged else "online",
            "data": {
                **data.to_json(),
                "cameras": [data.store.stored_names.get(camera.name, camera.name) for camera in info.spec.cameras],
                "num_episodes": len(values),
                "num_steps": sum(len(v.rewards) for v in values),
            },
            "seed": seed,
            "value_range": limits,
            "diverged": divergence(metrics, limits, averaged) if limits else None,
            "misestimated": misestimation(metrics, limits) if limits else None,
            "metrics": metrics,
            "episodes": [
                _episode_json(data.store, int(e), v, with_curves=i in shown)
                for i, (e, v) in enumerate(zip(data.episodes, values, strict=True))
            ],
            "seconds": round(time.monotonic() - begin, 3),
        }
    )


def metrics_of(values: Sequence[EpisodeValues], limits: tuple[float, float] | None, averaged: bool) -> dict[str, float]:
    """Those of :data:`METRICS` that there are, NaN where the episodes cannot tell.

    Args:
        limits: as for :func:`ptr_fast.diagnostics.summarize`.
        averaged: the checkpoint acts by averaged networks.
    """
    metrics = summarize(values, limits)
    if limits is not None:
        metrics["score"] = selection_score(metrics, averaged)
    return metrics


def record_of(info: CheckpointInfo, store: EpisodeStore, episode: int, rewards: RewardConfig) -> RecordedEpisode:
    """One stored episode as the checkpoint's learner sees it."""
    spec = info.spec
    rows = Transitions(
        store,
        task_table=spec.tasks,
        action=spec.action,
        rewards=replace(rewards, num_steps=1, lower_bound_returns=False),  # the curves tell what each step pays
        episodes=np.array([episode]),
    )
    if store.meta.state.names != spec.state.names or store.meta.state.units != spec.state.units:
        raise ValueError(f"{store.path}: the state differs: expected {spec.state}, got {store.meta.state}")
    first, num_frames = int(store.episodes.first[episode]), int(store.episodes.num_frames[episode])
    records = range(first, first + num_frames)
    return RecordedEpisode(
        name=store.episodes.episode_id[episode],
        outcome=store.episodes.outcome[episode],
        frames={
            camera.name: resize(
                np.stack([store.frame(camera.name, record) for record in records]), camera.height, camera.width
            )
            for camera in (spec.cameras if "images" in traits_of(info.config).columns else ())
        },
        states=store.state[first : first + num_frames],
        task_id=int(rows.task_id[0]),
        index=rows.record - first,
        next_index=rows.next_record - first,
        actions=rows.actions,
        rewards=rows.rewards,
        masks=rows.masks,
    )


def _choose_curves(data: EvaluationData, values: list[EpisodeValues]) -> set[int]:
    """Every task and outcome first, then by number."""
    groups: dict[tuple[str, bool], list[int]] = {}
    for i, (episode, value) in enumerate(zip(data.episodes, values, strict=True)):
        groups.setdefault((data.store.episodes.task[episode], value.outcome == "failure"), []).append(i)
    turns = [group[turn] for turn in range(len(values)) for group in groups.values() if turn < len(group)]
    return set(turns[:MAX_CURVES])


def _episode_json(store: EpisodeStore, episode: int, values: EpisodeValues, *, with_curves: bool) -> dict[str, Any]:
    num_steps = len(values.rewards)
    entry: dict[str, Any] = {
        "episode_id": store.episodes.episode_id[episode],
        "task": store.episodes.task[episode],
        "kind": store.episodes.kind[episode],
        "outcome": values.outcome,
        "num_steps": num_steps,
        "action_error": float(values.action_error.mean()),
    }
    if len(values.q):
        entry |= {
            "late_rise": late_rise(values.q),
            "rank_correlation": rank_correlation(values.q, np.arange(num_steps)),
            "q_mean": float(values.q.mean()),
            "bellman_error": float(values.bellman_error.mean()),
        }
    if with_curves:
        steps = np.unique(np.linspace(0, num_steps - 1, min(num_steps, MAX_POINTS)).round().astype(int))
        entry["curves"] = {"step": steps.tolist()} | {
            field.name: [round(float(v), 4) for v in getattr(values, field.name)[steps]]
            for field in fields(values)
            if field.name not in ("outcome", "masks") and len(getattr(values, field.name))
        }
    return entry


def _finite(value: Any) -> Any:
    """JSON has no NaN and no infinity: they become null, nested as deep as they are."""
    if isinstance(value, dict):
        return {key: _finite(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def write_evaluation(result: dict[str, Any], path: Path) -> None:
    """Writes one evaluation atomically."""
    path.parent.mkdir(parents=True, exist_ok=True)
    write_atomically(path, (json.dumps(result, indent=1, allow_nan=False) + "\n").encode())


def format_number(value: float | None) -> str:
    """Four digits; a dash where the data could not tell."""
    return "-" if value is None else f"{value:.4g}"
