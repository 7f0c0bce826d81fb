"""Which episodes a checkpoint is evaluated on: those that neither its run nor an ancestor trained on, checked again."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from ptr_fast.checkpoint import CheckpointInfo
from ptr_fast.data.store import EpisodeStore
from ptr_fast.errors import DataError
from ptr_fast.json_files import read_json
from ptr_fast.learners.registry import traits_of
from ptr_fast.runtime.observation import Carry, Observation
from ptr_fast.runtime.policy import Policy
from ptr_robot.training.matching import with_camera_names
from ptr_robot.training.run_record import SourceRecord, recorded_sources
from ptr_robot.training.sources import find_episodes, first_few
from ptr_robot.training.store_places import StorePlaces
from ptr_robot.training.trained_on import TrainedOn

FLATTERED = "these are TRAINING episodes, the numbers flatter the checkpoint"

__all__ = [
    "EvaluationData",
    "episodes_of",
    "held_out",
    "observed",
    "run_folder",
    "spread",
    "told_kind",
    "trained_episodes",
]


@dataclass(frozen=True, kw_only=True)
class EvaluationData:
    """The episodes to evaluate on.

    Attributes:
        store: open store.
        episodes: episode numbers in it, sorted.
        role: ``prior``, ``target`` or ``given`` (by ``--store``).
        num_trained_on: how many of the episodes the run or an ancestor is known to have trained on.
        unknown: what is not known about that; empty where all is.
        note: what else to know about the choice; empty where all is as it should be.
    """

    store: EpisodeStore
    episodes: np.ndarray
    role: str
    num_trained_on: int
    unknown: str
    note: str

    @property
    def is_held_out(self) -> bool | None:
        """Whether no episode was trained on by the run or an ancestor; None where nobody can say."""
        return False if self.num_trained_on else None if self.unknown else True

    def to_json(self) -> dict[str, Any]:
        """What an evaluation keeps of it; ``camera_names`` where the checkpoint has others than the store."""
        renamed = {stored: name for name, stored in self.store.stored_names.items() if stored != name}
        return {
            "store": str(self.store.path.resolve()),
            "fingerprint": self.store.fingerprint(),
            "role": self.role,
            "is_held_out": self.is_held_out,
            "num_trained_on": self.num_trained_on,
            "unknown": self.unknown,
            "note": self.note,
            **({"camera_names": renamed} if renamed else {}),
        }


def told_kind(data: Mapping[str, Any]) -> str:
    """In words: how many episodes of which kind an evaluation judged by, and how many of them were trained on.

    Args:
        data: ``data`` of an evaluation or a selection; older ones do not have ``num_trained_on``.
    """
    kind = {True: "held-out ", False: "TRAINING ", None: ""}[data["is_held_out"]]
    words = f"{data['num_episodes']} {kind}episodes ({data['num_steps']} steps) of {data['store']}, "
    if "num_trained_on" not in data:
        return words + "whether any was trained on by an ancestor of the run was not checked"
    words += f"{data['num_trained_on']} of them trained on by the run or its ancestors"
    return words + (f" as far as is known ({data['unknown']})" if data.get("unknown") else "")


def held_out(
    info: CheckpointInfo,
    *,
    places: StorePlaces = StorePlaces(),
    task: str = "",
    max_episodes: int = 20,
    seed: int = 0,
    any_task: bool = False,
) -> EvaluationData:
    """Finds the episodes to evaluate a checkpoint on.

    The target's held-out episodes where the run has a target, else the prior's; those of training where nothing was
    held out, with a note that says so. What the run or one of its ancestors trained on is left out.

    Args:
        places: another store to evaluate on, or where the run's own have moved to.
        any_task: also episodes of tasks that the checkpoint does not know.

    Raises:
        DataError: the run's split or its store is missing, or no episode is left.
        ValueError: a task that the checkpoint does not know, a moved store that the run's record does not name, or a
            camera of the checkpoint that the other store does not have.
    """
    record = _record(info)
    places = places.of_checkpoint(info)
    trained, known = TrainedOn(record, places), None if any_task else info.spec.tasks.names
    if places.given is not None:
        store = EpisodeStore.open(places.given)
        if places.camera_map or "images" in traits_of(info.config).columns:
            store = with_camera_names(store, info.spec, places.camera_map)
        episodes = _of_task(store, np.arange(store.num_episodes), task, known)
        if not len(episodes):
            raise ValueError(
                f"{store.path}: no episode of task {task!r} to evaluate on; there: {sorted(set(store.episodes.task))}"
            )
        data = _choose(store, episodes, "given", trained)
    else:
        data = _from_split(info.path, recorded_sources(record, str(info.path)), places, trained, task, known)
    return replace(data, episodes=spread(data.store, data.episodes, max_episodes, seed))


def _record(info: CheckpointInfo) -> dict[str, Any]:
    """That of the checkpoint; the split of an older one lies in its run's folder."""
    path = run_folder(info.path) / "split.json"
    if info.run.get("split") or not path.is_file():
        return info.run
    return {**info.run, "split": read_json(path)}


def _of_task(store: EpisodeStore, episodes: np.ndarray, task: str, known: tuple[str, ...] | None) -> np.ndarray:
    """The episodes of a task, or all; they must be of tasks that the checkpoint knows (None: of any)."""
    names = np.array([store.episodes.task[e] for e in episodes], dtype=object)
    chosen = names == task if task else np.full(len(names), True)
    if known is not None and (foreign := sorted(set(names[chosen]) - set(known))):
        both = [repr(name) for name in sorted(set(names) & set(known))]
        advice = f"name one that it knows with --task: {first_few(both)}"
        if not both:
            advice = f"it knows {first_few([*map(repr, known)])}, and none of them is here to be named with --task"
        unknown = first_few([*map(repr, foreign)])
        raise ValueError(f"{store.path}: the checkpoint does not know the tasks {unknown} of this store; {advice}")
    return episodes[chosen]


def _choose(store: EpisodeStore, episodes: np.ndarray, role: str, trained: TrainedOn) -> EvaluationData:
    """Those that were not trained on, or else all of them."""
    fresh, used, by = trained.split(store, episodes)
    whose = "" if role == "given" else f"{role} "
    note = f"{len(used)} of {len(episodes)} {whose}episodes were trained on ({by}): " if len(used) else ""
    if len(used):
        note += "they are no held-out data and are left out" if len(fresh) else FLATTERED
    return EvaluationData(
        store=store,
        episodes=fresh if len(fresh) else episodes,
        role=role,
        num_trained_on=0 if len(fresh) else len(used),
        unknown="; ".join(trained.unknown),
        note=note,
    )


def _from_split(
    checkpoint: Path,
    split: list[SourceRecord],
    places: StorePlaces,
    trained: TrainedOn,
    task: str,
    known: tuple[str, ...] | None,
) -> EvaluationData:
    if not split:
        raise DataError(f"{checkpoint}: the run says nothing about held-out episodes (no split.json); name a --store")
    role = "target" if any(source.role == "target" for source in split) else "prior"
    sources = [source for source in split if source.role == role]
    if not any(source.train or source.validation for source in sources):
        raise DataError(f"{checkpoint}: the run's split names no episode; name a --store")
    found: list[EvaluationData] = []
    here: set[str] = set()
    for part in ("validation", "train"):
        for source in sources:
            if not (ids := getattr(source, part)):
                continue
            store = places.open(source.store, source.cameras)
            episodes = np.sort(find_episodes(store, source, ids))
            here |= {store.episodes.task[e] for e in episodes}
            episodes = _of_task(store, episodes, task, known)
            if len(episodes):
                found.append(_choose(store, episodes, role, trained))
        if any(not data.num_trained_on for data in found):
            break
    if not found:
        raise ValueError(f"{checkpoint}: no episode of task {task!r} to evaluate on; there: {sorted(here)}")
    best = max(found, key=lambda data: (not data.num_trained_on, len(data.episodes)))
    several = f"the run has {len(sources)} {role} stores; this is the one with most such episodes"
    return replace(best, note="; ".join(filter(None, (best.note, several if len(sources) > 1 else ""))))


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


def trained_episodes(
    info: CheckpointInfo, places: StorePlaces, max_episodes: int, seed: int
) -> list[tuple[EpisodeStore, np.ndarray]]:
    """At most so many of the episodes that a checkpoint's run trained on, from all of its stores: a seeded choice.

    Every store gives as many, as far as it has them; in turn from its tasks and outcomes.

    Raises:
        DataError: the record names none, or a store is missing.
    """
    places = replace(places, given=None, camera_map=()).of_checkpoint(info)
    found = []
    for source in recorded_sources(_record(info), str(info.path)):
        if source.train:
            store = places.open(source.store, source.cameras)
            found.append((store, find_episodes(store, source, source.train)))
    if not found:
        raise DataError(f"{info.path}: the record of the run names no episode that it trained on")
    left, chosen = max_episodes, []
    by_size = sorted(range(len(found)), key=lambda number: len(found[number][1]))
    for place, number in enumerate(by_size):
        store, episodes = found[number]
        share = max(1, left // (len(by_size) - place))
        chosen.append((store, spread(store, episodes, share, seed)))
        left = max(0, left - len(chosen[-1][1]))
    return chosen


def run_folder(checkpoint: Path) -> Path:
    """The run that a checkpoint folder ``RUN/checkpoints/<step>`` belongs to."""
    return checkpoint.resolve().parent.parent


def episodes_of(
    places: StorePlaces, episode_ids: tuple[str, ...], info: CheckpointInfo, any_task: bool
) -> tuple[EpisodeStore, list[int], bool | None]:
    """The store that ``places`` give, or a run's own; numbers of the episodes, the named ones or the first two that
    were not trained on; whether none of them was (None: unknown). ``any_task``: also of tasks that the checkpoint does
    not know."""
    data = held_out(info, places=places, max_episodes=0, any_task=any_task or bool(episode_ids))
    if not episode_ids:
        return data.store, [int(e) for e in data.episodes[:2]], data.is_held_out
    number = {episode_id: i for i, episode_id in enumerate(data.store.episodes.episode_id)}
    unknown = [e for e in episode_ids if e not in number]
    if unknown:
        raise ValueError(f"{data.store.path}: no episode {unknown[0]!r}")
    return data.store, [number[e] for e in episode_ids], None


def observed(store: EpisodeStore, policy: Policy, episode: int, step: int, task: str) -> tuple[Observation, Carry]:
    """What a policy sees in a step of a stored episode, and what it kept of the steps before."""
    first = int(store.episodes.first[episode])
    past = range(max(step - policy.window.num_observations + 1, 0), step + 1)
    seen = [
        Observation(
            {camera.name: store.frame(camera.name, first + t) for camera in policy.spec.cameras},
            np.asarray(store.state[first + t], np.float32),
            task,
        )
        for t in past
    ]
    return seen[-1], tuple(seen[:-1])
