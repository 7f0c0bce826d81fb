"""Which episodes a checkpoint is evaluated on: what its run held out, or what it did not train on of a given store."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ptr_fast.checkpoint import CheckpointInfo
from ptr_fast.data.store import EpisodeStore
from ptr_fast.errors import DataError
from ptr_robot.run_record import SourceRecord
from ptr_robot.store_places import StorePlaces
from ptr_robot.train_data import find_episodes

__all__ = ["EvaluationData", "held_out", "run_folder", "spread"]


@dataclass(frozen=True, kw_only=True)
class EvaluationData:
    """The episodes to evaluate on.

    Attributes:
        store: open store.
        episodes: episode numbers in it, sorted.
        role: ``prior``, ``target`` or ``given`` (by ``--store``).
        is_held_out: none of the episodes was trained on by this run.
        note: what to know about the choice; empty where all is as it should be.
    """

    store: EpisodeStore
    episodes: np.ndarray
    role: str
    is_held_out: bool
    note: str


def held_out(
    info: CheckpointInfo,
    *,
    places: StorePlaces = StorePlaces(),
    task: str = "",
    max_episodes: int = 20,
    seed: int = 0,
) -> EvaluationData:
    """Finds the episodes to evaluate a checkpoint on.

    The target's held-out episodes where the run has a target, else the prior's; those of training where nothing was
    held out, with a note that says so.

    Args:
        places: another store to evaluate on, or where the run's own have moved to.

    Raises:
        DataError: the run's split or its store is missing, or no episode is left.
        ValueError: an unknown task, or a moved store that the run's record does not name.
    """
    split = _split(info)
    places = places.of_checkpoint(info)
    if places.given is not None:
        data = _given(places.given, split)
    else:
        data = _from_split(info, split, places)
    episodes = data.episodes
    if task:
        names = [data.store.episodes.task[e] for e in episodes]
        if task not in names:
            raise ValueError(
                f"{data.store.path}: no episode of task {task!r} to evaluate on; there: {sorted(set(names))}"
            )
        episodes = episodes[[name == task for name in names]]
    chosen = spread(data.store, episodes, max_episodes, seed)
    return EvaluationData(
        store=data.store, episodes=chosen, role=data.role, is_held_out=data.is_held_out, note=data.note
    )


def _split(info: CheckpointInfo) -> list[dict[str, Any]]:
    split = info.run.get("split") or {}
    if not split:
        path = run_folder(info.path) / "split.json"
        split = json.loads(path.read_bytes()) if path.is_file() else {}
    return split.get("sources", [])


def _from_split(info: CheckpointInfo, split: list[dict[str, Any]], places: StorePlaces) -> EvaluationData:
    if not split:
        raise DataError(f"{info.path}: the run says nothing about held-out episodes (no split.json); name a --store")
    role = "target" if any(source["role"] == "target" for source in split) else "prior"
    sources = [source for source in split if source["role"] == role]
    for key, is_held_out in (("validation", True), ("train", False)):
        best = max(sources, key=lambda source, key=key: len(source[key]))
        if not best[key]:
            continue
        opened = places.open(Path(best["store"]))
        notes = []
        if not is_held_out:
            notes.append("the run held out no episode: these are TRAINING episodes, the numbers flatter the checkpoint")
        if len(sources) > 1:
            notes.append(f"the run has {len(sources)} {role} stores; this is the one with most such episodes")
        return EvaluationData(
            store=opened,
            episodes=np.sort(find_episodes(opened, SourceRecord.from_json(best), best[key])),
            role=role,
            is_held_out=is_held_out,
            note="; ".join(notes),
        )
    raise DataError(f"{info.path}: the run's split names no episode; name a --store")


def _given(path: Path, split: list[dict[str, Any]]) -> EvaluationData:
    opened = EpisodeStore.open(path)
    trained = {episode for source in split for episode in source["train"] if _same_store(source, opened)}
    ids = opened.episodes.episode_id
    fresh = np.array([i for i, episode in enumerate(ids) if episode not in trained], np.int64)
    note, is_held_out = "", True
    if len(fresh) == 0:
        fresh, is_held_out = np.arange(len(ids)), False
        note = "every episode of this store was trained on: the numbers flatter the checkpoint"
    elif len(fresh) < len(ids):
        note = f"{len(ids) - len(fresh)} training episodes of this store are left out"
    return EvaluationData(store=opened, episodes=fresh, role="given", is_held_out=is_held_out, note=note)


def _same_store(source: dict[str, Any], store: EpisodeStore) -> bool:
    return source["fingerprint"] == store.fingerprint() or Path(source["store"]) == store.path.resolve()


def spread(store: EpisodeStore, episodes: np.ndarray, max_episodes: int, seed: int) -> np.ndarray:
    """At most ``max_episodes`` (0: all) episodes, sorted: a seeded choice, in turn from every task and outcome."""
    if len(episodes) == 0:
        raise DataError(f"{store.path}: no episode to evaluate on")
    if not max_episodes or len(episodes) <= max_episodes:
        return np.sort(episodes)
    groups: dict[tuple[str, bool], list[int]] = {}
    for episode in np.random.default_rng(seed).permutation(np.sort(episodes)):
        key = (store.episodes.task[episode], store.episodes.outcome[episode] == "failure")
        groups.setdefault(key, []).append(int(episode))
    rounds = [group[turn] for turn in range(len(episodes)) for group in groups.values() if turn < len(group)]
    return np.sort(np.array(rounds[:max_episodes], np.int64))


def run_folder(checkpoint: Path) -> Path:
    """The run that a checkpoint folder ``RUN/checkpoints/<step>`` belongs to."""
    return checkpoint.resolve().parent.parent
