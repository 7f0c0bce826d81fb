"""Which episodes of a store a new run trains on, and which it holds out."""

from __future__ import annotations

import zlib
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from ptr_fast.data.store import EpisodeStore
from ptr_fast.errors import DataError
from ptr_robot.training.config import DataConfig
from ptr_robot.training.sources import Source, first_few
from ptr_robot.training.weights import check_weights, factors, parse_weights

__all__ = ["choose_demos", "select_prior", "select_target"]


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
