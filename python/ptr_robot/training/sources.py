"""From stores to the batches of a run: which episodes train, which are held out, and one loader over all of them."""

from __future__ import annotations

import zlib
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from ptr_fast.config import PolicySpec, RewardConfig, TaskTable
from ptr_fast.data.store import EpisodeStore
from ptr_fast.data.transitions import Transitions
from ptr_fast.errors import DataError
from ptr_fast.learners.preparation import TrainingData
from ptr_fast.types import CameraSpec
from ptr_robot.training.config import DataConfig
from ptr_robot.training.run_record import EpisodeRecord, SourceRecord
from ptr_robot.training.store_places import StorePlaces
from ptr_robot.training.weights import check_weights, factors, parse_weights

__all__ = [
    "Source",
    "choose_demos",
    "find_episodes",
    "first_few",
    "make_spec",
    "reopen",
    "select_prior",
    "select_target",
    "tell_cameras",
    "transitions_of",
    "with_cameras_of",
]


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


def choose_demos(store: EpisodeStore, task: str, episodes: np.ndarray, seed: int) -> np.ndarray:
    """The episodes of a task in a seeded order that depends on their ids alone; a few-shot subset is its beginning."""
    ids = np.array([store.episodes.episode_id[i] for i in episodes], dtype=object)
    ordered = np.asarray(episodes)[np.argsort(ids.astype(str), kind="stable")]
    return np.random.default_rng((seed, zlib.crc32(task.encode()))).permutation(ordered)


def _by_part(store: EpisodeStore, order: np.ndarray, parts: Mapping[str, str], first: str) -> np.ndarray:
    """Episodes in their order, but those of part ``first`` before all others, and those of another part behind."""
    place = [{first: 0, None: 1}.get(parts.get(store.episodes.digest[i]), 2) for i in order]
    return order[np.argsort(place, kind="stable")]


def _episodes_by_task(store: EpisodeStore, domains: Sequence[str]) -> dict[str, np.ndarray]:
    known = sorted(set(store.episodes.domain))
    for domain in domains:
        if domain not in known:
            raise ValueError(f"{store.path}: no episode of domain {domain!r}; it has {known}")
    by_task: dict[str, list[int]] = {}
    for i, (task, domain) in enumerate(zip(store.episodes.task, store.episodes.domain, strict=True)):
        if not domains or domain in domains:
            by_task.setdefault(task, []).append(i)
    return {task: np.array(episodes, np.int64) for task, episodes in by_task.items()}


def _of(store: EpisodeStore, episodes: np.ndarray, outcomes: Sequence[str], kinds: Sequence[str]) -> np.ndarray:
    """Those of the episodes that have one of the outcomes and one of the kinds; an empty choice takes all."""
    table = store.episodes
    kept = [(not outcomes or table.outcome[i] in outcomes) and (not kinds or table.kind[i] in kinds) for i in episodes]
    return episodes[np.array(kept, bool)]


def _check_words(stores: Sequence[EpisodeStore], outcomes: Sequence[str], kinds: Sequence[str]) -> None:
    """Raises ValueError where no store has an episode of an outcome or kind that is asked for, with those there are."""
    for what, words in (("outcome", outcomes), ("kind", kinds)):
        counts = Counter(word for store in stores for word in getattr(store.episodes, what))
        for word in words:
            if word not in counts:
                known = ", ".join(f"{name!r} ({count} episodes)" for name, count in counts.most_common())
                where = ", ".join(str(store.path) for store in stores)
                raise ValueError(f"{where}: no episode of {what} {word!r}; there are: {known or 'no episodes'}")


def select_prior(data: DataConfig, seed: int, parts: Mapping[str, str] | None = None) -> list[Source]:
    """The episodes of a pre-training run, store by store.

    Args:
        parts: of a branch: ``train`` or ``validation`` by digest, for episodes that have a part already.

    Raises:
        ValueError: a store is named twice, a task, domain, outcome or kind is not there, a task has fewer episodes than
            asked, or a weight names what is not trained on.
        DataError: a store is missing or broken, or nothing is left to train on.
    """
    if len({path.resolve() for path in data.stores}) < len(data.stores):
        raise ValueError(f"data.stores: name each store once, got {', '.join(map(str, data.stores))}")
    sources = []
    seen_tasks: set[str] = set()
    without: dict[str, int] = {}
    stores = [EpisodeStore.open(path) for path in data.stores]
    _check_words(stores, data.outcomes, data.kinds)
    weights = parse_weights(data.weights)
    for path, store in zip(data.stores, stores, strict=True):
        train, validation = [], []
        by_task = _episodes_by_task(store, data.domains)
        seen_tasks |= set(by_task)
        for task, episodes in by_task.items():
            if (data.tasks and task not in data.tasks) or task in data.exclude_tasks:
                continue
            episodes = _of(store, episodes, data.outcomes, data.kinds)
            if not len(episodes):
                continue
            order = choose_demos(store, task, episodes, seed)
            if data.num_demos > len(order):
                raise ValueError(
                    f"{path}: asked for {data.num_demos} demonstrations of {task!r}, the store has {len(order)}"
                    + _told_filter(data.outcomes, data.kinds)
                )
            order = _by_part(store, order, parts or {}, "train" if data.num_demos else "validation")
            if data.num_demos:
                chosen, held_out = np.split(order, [data.num_demos])
            else:
                held_out, chosen = np.split(order, [int(data.validation_share * len(order))])
            train.append(chosen)
            validation.append(held_out)
            if not len(held_out):
                without[task] = len(order)
        trained = dict.fromkeys(store.episodes.task[i] for chosen in train for i in chosen)
        sources.append(
            Source(
                role="prior",
                store=store,
                train=_joined(train),
                validation=_joined(validation),
                weights=factors(weights, store.path, trained),
            )
        )
    for task in (*data.tasks, *data.exclude_tasks):
        if task not in seen_tasks:
            raise ValueError(f"no store has the task {task!r}; tasks there: {sorted(seen_tasks)}")
    if not any(len(source.train) for source in sources):
        raise DataError(
            f"{', '.join(map(str, data.stores))}: no episode is left to train on"
            + _told_filter(data.outcomes, data.kinds)
        )
    tasks = {source.store.episodes.task[i] for source in sources for i in source.train}
    check_weights(weights, [source.store.path for source in sources if len(source.train)], tasks)
    if without:
        print(_tell_without(without, data))
    return sources


def _told_filter(outcomes: Sequence[str], kinds: Sequence[str]) -> str:
    """What the filters ask for, for the end of an error."""
    told = [f"{name} {', '.join(words)}" for name, words in (("outcome", outcomes), ("kind", kinds)) if words]
    return f" of {' and '.join(told)}" if told else ""


def _tell_without(without: Mapping[str, int], data: DataConfig) -> str:
    """Tasks of which nothing is held out, fewest episodes first, and why."""
    tasks = [f"{task!r} ({count} episodes)" for task, count in sorted(without.items(), key=lambda item: item[1])]
    why = f"all their episodes are demonstrations (data.num-demos {data.num_demos})"
    if not data.num_demos:
        share = data.validation_share
        why = f"data.validation-share {share:g} holds none out of so few" if share else "data.validation-share is 0"
    return f"nothing is held out of {len(tasks)} tasks, {why}: {first_few(tasks)}"


def _joined(parts: list[np.ndarray]) -> np.ndarray:
    return np.sort(np.concatenate(parts)) if parts else np.zeros(0, np.int64)


def select_target(
    path: Path,
    task: str,
    domains: Sequence[str],
    num_demos: int,
    seed: int,
    parts: Mapping[str, str] | None = None,
    outcomes: Sequence[str] = (),
    kinds: Sequence[str] = (),
) -> tuple[Source, str]:
    """The demonstrations of a new task; its other episodes are held out. ``parts``: as in :func:`select_prior`.

    Args:
        outcomes, kinds: only episodes of these; all others are neither demonstrations nor held out.

    Returns:
        The source and the task's name.

    Raises:
        ValueError: the task must be named or is unknown, or it has fewer episodes than ``num_demos``.
    """
    store = EpisodeStore.open(path)
    _check_words([store], outcomes, kinds)
    chosen = {name: _of(store, some, outcomes, kinds) for name, some in _episodes_by_task(store, domains).items()}
    by_task = {name: some for name, some in chosen.items() if len(some)}
    if not task:
        if len(by_task) != 1:
            raise ValueError(f"{path}: name the target task, it has {len(by_task)}: {sorted(by_task)}")
        (task,) = by_task
    if task not in by_task:
        told = _told_filter(outcomes, kinds)
        raise ValueError(f"{path}: no task {task!r}{told and f' with an episode{told}'}; it has {sorted(by_task)}")
    order = _by_part(store, choose_demos(store, task, by_task[task], seed), parts or {}, "train")
    if num_demos > len(order):
        raise ValueError(
            f"{path}: asked for {num_demos} demonstrations of {task!r}, it has {len(order)}"
            f"{_told_filter(outcomes, kinds)}; use --num-demos {max(1, len(order) - 1)} to hold one out"
        )
    if num_demos == len(order):
        advice = f"; --num-demos {num_demos - 1} holds one out" if num_demos > 1 else ""
        print(f"nothing is held out: all {num_demos} episodes of {task!r} in {path} are demonstrations{advice}")
    source = Source(role="target", store=store, train=np.sort(order[:num_demos]), validation=np.sort(order[num_demos:]))
    return source, task


def make_spec(sources: Sequence[Source], cameras: Sequence[str], num_task_slots: int) -> PolicySpec:
    """What the policy will see and command, from the first store; the others must agree.

    Args:
        cameras: their names, in order; empty takes the first one of the store.

    Raises:
        ValueError: no such camera, or two stores differ in camera size, state, action space or control rate.
    """
    meta = sources[0].store.meta
    _check_finished(sources[0].store)
    chosen = [_camera(sources[0].store, name) for name in cameras or [meta.cameras[0].name]]
    names = sorted({source.store.episodes.task[i] for source in sources for i in source.train})
    num_slots = num_task_slots or len(names) + max(8, len(names))
    spec = PolicySpec(
        cameras=tuple(chosen),
        state=meta.state,
        action=meta.action,
        tasks=TaskTable(names=tuple(names), num_slots=num_slots),
        control_hz=meta.control_hz,
    )
    for source in sources[1:]:
        check_matches(source.store, spec)
    return spec


def tell_cameras(sources: Sequence[Source], spec: PolicySpec, advice: str) -> None:
    """Says which cameras are trained on where a store has others."""
    names = [camera.name for camera in spec.cameras]
    others = dict.fromkeys(c.name for source in sources for c in source.store.meta.cameras if c.name not in names)
    if others:
        mine = "camera that is trained on is" if len(names) == 1 else "cameras that are trained on are"
        told = " and ".join(", ".join(map(repr, names)).rsplit(", ", 1))
        print(f"the {mine} {told}, not {', '.join(map(repr, others))}: {advice}")


def with_cameras_of(target: Source, spec: PolicySpec, pairs: Sequence[str]) -> Source:
    """A target whose cameras go by the names that a checkpoint has for them.

    Args:
        pairs: ``STORE=CHECKPOINT``, of ``--camera-map``; a camera that no pair names keeps its name.

    Raises:
        ValueError: a pair that is none, or a camera that is missing, unknown or named twice; lists both sides.
    """
    has, wanted = [c.name for c in target.store.meta.cameras], [c.name for c in spec.cameras]
    both = f"the checkpoint sees {wanted}, the store has {has}"
    named: dict[str, str] = {}
    for pair in pairs:
        stored, equals, name = pair.partition("=")
        if not equals or stored not in has or name not in wanted or stored in named or name in named.values():
            told = f"camera-map: expected STORE=CHECKPOINT, each once, got {pair!r}: {both}"
            raise ValueError(f"{target.store.path}: {told}")
        named[stored] = name
    store = target.store.renamed(named)
    missing = [name for name in wanted if name not in store.stored_names]
    if missing:
        told = f"no camera {', '.join(map(repr, missing))}: {both}; name them with --camera-map STORE=CHECKPOINT"
        raise ValueError(f"{store.path}: {told}")
    return replace(target, store=store)


def _camera(store: EpisodeStore, name: str) -> CameraSpec:
    cameras = {camera.name: camera for camera in store.meta.cameras}
    if name not in cameras:
        raise ValueError(f"{store.path}: no camera {name!r}; it has {sorted(cameras)}")
    return cameras[name]


def _check_finished(store: EpisodeStore) -> None:
    """Refuses a store whose conversion was killed before it had measured the actions' bounds."""
    if store.meta.action.bounds_source == "unfinished":
        raise DataError(
            f"{store.path}: the action bounds are placeholders, the conversion did not come to its end; "
            "run the same convert command again"
        )


def check_matches(store: EpisodeStore, spec: PolicySpec, *, with_bounds: bool = True) -> None:
    """Refuses a store whose frames, state or actions mean something else than the policy's.

    Args:
        with_bounds: also where the bounds differ. Those of a store that the policy was trained on may have moved since,
            where they are computed from what the store holds; the policy keeps its own.

    Raises:
        ValueError: naming the first difference.
    """
    _check_finished(store)
    pairs: list[tuple[str, Any, Any]] = [
        (f"size of camera {mine.name!r}", (mine.height, mine.width), (theirs.height, theirs.width))
        for mine in spec.cameras
        for theirs in [_camera(store, mine.name)]
    ]
    pairs += [
        ("state names", spec.state.names, store.meta.state.names),
        ("state units", spec.state.units, store.meta.state.units),
        ("action names", spec.action.names, store.meta.action.names),
        ("action units", spec.action.units, store.meta.action.units),
        ("action low bounds", spec.action.low, store.meta.action.low),
        ("action high bounds", spec.action.high, store.meta.action.high),
        ("control rate in Hz", spec.control_hz, store.meta.control_hz),
    ]
    for what, expected, got in pairs:
        if expected != got and (with_bounds or not what.endswith("bounds")):
            told = "; convert this store again with --layout STORE_OR_RUN, which takes what that one says, or --bounds"
            advice = told if what.startswith("action") else ""
            raise ValueError(f"{store.path}: {what} differs: expected {expected}, got {got}{advice}")


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


def training_data(sources: Sequence[Source], spec: PolicySpec, rewards: RewardConfig) -> TrainingData:
    """All steps that a run trains on, for a learner that fits something to them before its first update."""
    tables = [transitions_of(source, spec, rewards, source.train) for source in sources if len(source.train)]
    firsts = np.cumsum([0, *(table.store.num_episodes for table in tables)])
    return TrainingData(
        actions=np.concatenate([table.action[table.record] for table in tables]),
        state=np.concatenate([table.state[table.record] for table in tables]),
        task_id=np.concatenate([table.task_id for table in tables]),
        rewards=np.concatenate([table.rewards for table in tables]),
        masks=np.concatenate([table.masks for table in tables]),
        episode=np.concatenate([table.episode + first for table, first in zip(tables, firsts, strict=False)]),
    )


def with_tasks(spec: PolicySpec, tasks: Sequence[str]) -> PolicySpec:
    """The spec with a slot for every task: the one it has, or the next spare one."""
    return replace(spec, tasks=spec.tasks.with_tasks(tasks))
