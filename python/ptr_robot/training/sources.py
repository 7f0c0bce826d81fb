"""The stores of a run, open, and which of their episodes train and which are held out."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from ptr_fast.config import PolicySpec, RewardConfig
from ptr_fast.data.store import EpisodeStore
from ptr_fast.data.transitions import Transitions
from ptr_fast.errors import DataError
from ptr_fast.learners.preparation import TrainingData
from ptr_robot.training.run_record import EpisodeRecord, SourceRecord
from ptr_robot.training.store_places import StorePlaces

__all__ = ["Source", "find_episodes", "first_few", "reopen", "training_data", "transitions_of"]


@dataclass(frozen=True, kw_only=True)
class Source:
    """Episodes of one store that take part in a run.

    Attributes:
        role: ``prior`` (broad or old data) or ``target`` (the new task).
        store: the open store.
        train, validation: episode numbers inside the store.
        weights: how often the steps of a task are drawn compared with others of the same role; 1 for tasks not named.
    """

    role: str
    store: EpisodeStore
    train: np.ndarray
    validation: np.ndarray
    weights: Mapping[str, float] = field(default_factory=dict)

    def record(self) -> SourceRecord:
        """The choice by episode id, so that it survives whatever happens to the store."""
        return SourceRecord.of(self.role, self.store, self.train, self.validation, self.weights)

    @staticmethod
    def from_record(record: SourceRecord, places: StorePlaces = StorePlaces()) -> Source:
        """Opens the recorded store and finds the recorded episodes again, in their order.

        Raises:
            DataError: there is no store, or recorded episodes are gone from it or are no longer what they were; names
                them.
        """
        store = places.open(record.store, record.cameras)
        found = find_episodes(store, record, (*record.train, *record.validation))
        train, validation = np.split(found, [len(record.train)])
        return Source(role=record.role, store=store, train=train, validation=validation, weights=record.weights)


def find_episodes(store: EpisodeStore, record: SourceRecord, ids: Sequence[str]) -> np.ndarray:
    """Numbers of recorded episodes in an open store, int64 ``[len(ids)]``.

    Raises:
        DataError: some are gone, or no longer what they were; names them.
    """
    number = {episode_id: i for i, episode_id in enumerate(store.episodes.episode_id)}
    advice = f"name a store that has them: --store {record.store}=NEW"
    gone = [repr(name) for name in ids if name not in number]
    if gone:
        raise DataError(
            f"{store.path}: {len(gone)} of {len(ids)} episodes that the record of the run names are gone: "
            f"{first_few(gone)}; put them back, or {advice}"
        )
    changed = []
    for name in ids:
        was = record.episodes.get(name)
        if was is not None and (difference := _difference(was, EpisodeRecord.of(store, number[name]))):
            changed.append(f"{name!r} ({difference})")
    if changed:
        raise DataError(
            f"{store.path}: {len(changed)} of {len(ids)} episodes that the record of the run names are not what they "
            f"were: {first_few(changed)}; put the old ones back, or {advice}"
        )
    return np.array([number[name] for name in ids], np.int64)


def _difference(was: EpisodeRecord, now: EpisodeRecord) -> str:
    """What of an episode is not as recorded; empty where all is."""
    if was.digest != now.digest:
        return "other actions or frames: its digest differs"
    if was.states != now.states:
        return "other states: their checksum differs"
    for name in ("task", "outcome"):
        if getattr(was, name) != getattr(now, name):
            return f"{name} {getattr(was, name)!r} became {getattr(now, name)!r}"
    return ""


def first_few(names: Sequence[str], count: int = 8) -> str:
    """The first few of many names, and how many more there are."""
    more = f" and {len(names) - count} more" if len(names) > count else ""
    return ", ".join(names[:count]) + more


def reopen(records: Sequence[SourceRecord], places: StorePlaces) -> list[Source]:
    """The sources of a record, as they were: what is new in their stores is named and left out.

    Raises:
        DataError: as :meth:`Source.from_record`.
    """
    sources = []
    for record in records:
        source = Source.from_record(record, places)
        ids, known = source.store.episodes.episode_id, {*record.train, *record.validation, *(record.others or ())}
        new = [repr(name) for name in ids if name not in known]
        where = f"{record.role} data {source.store.path}"
        if new and record.others is not None:
            print(f"{where}: {len(new)} episodes are new since the run began and are left out: {first_few(new)}")
        if record.others is None and source.store.fingerprint() != record.fingerprint:
            print(
                f"{where}: the store has changed and the run's record, of an older version, has no digests: the "
                f"{len(record.train) + len(record.validation)} episodes of the run are known by their ids alone"
                + (f"; {len(new)} others are left out: {first_few(new)}" if new else "")
            )
        sources.append(source)
    return sources


def transitions_of(
    source: Source, spec: PolicySpec, rewards: RewardConfig, episodes: np.ndarray, discount: float | None = None
) -> Transitions:
    """The transitions of some episodes of a source, with rewards, masks, scaled actions and task slots.

    ``discount``: of the learner's Q values, which targets that look further than one step need.
    """
    return Transitions(
        source.store,
        task_table=spec.tasks,
        action=spec.action,
        rewards=rewards,
        discount=discount,
        episodes=episodes,
    )


def training_data(
    sources: Sequence[Source], spec: PolicySpec, rewards: RewardConfig, discount: float | None = None
) -> TrainingData:
    """All steps that a run trains on, for a learner that fits something to them before its first update.

    ``discount``: as of :func:`transitions_of`.
    """
    tables = [transitions_of(source, spec, rewards, source.train, discount) for source in sources if len(source.train)]
    firsts = np.cumsum([0, *(table.store.num_episodes for table in tables)])
    return TrainingData(
        actions=np.concatenate([table.action[table.record] for table in tables]),
        state=np.concatenate([table.state[table.record] for table in tables]),
        task_id=np.concatenate([table.task_id for table in tables]),
        rewards=np.concatenate([table.rewards for table in tables]),
        masks=np.concatenate([table.masks for table in tables]),
        episode=np.concatenate([table.episode + first for table, first in zip(tables, firsts, strict=False)]),
    )
