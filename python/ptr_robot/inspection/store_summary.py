"""The numbers of a store: what is in it, by task and by dimension. Reads no frame."""

from __future__ import annotations

from collections import Counter
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ptr_fast.config import to_dict

__all__ = ["DimensionRange", "StoreSummary", "TaskSummary", "summarize"]


@dataclass(frozen=True, kw_only=True)
class TaskSummary:
    """One task: how many episodes and steps, how long, how they ended, who made them, where.

    Attributes:
        task: its name.
        episodes, steps: counts.
        shortest, median, longest: steps per episode.
        outcomes, kinds, domains: number of episodes by word; an empty domain is left out.
    """

    task: str
    episodes: int
    steps: int
    shortest: int
    median: float
    longest: int
    outcomes: dict[str, int]
    kinds: dict[str, int]
    domains: dict[str, int]


@dataclass(frozen=True, kw_only=True)
class DimensionRange:
    """One dimension of states or actions, in ``unit``.

    Attributes:
        name, unit: as the store says.
        minimum, p1, median, p99, maximum, std: over all records (states) or steps (actions).
        low, high: bounds of an action; None for a state.
        below, above: share of steps outside the bounds, which are clipped when loaded; None for a state.
    """

    name: str
    unit: str
    minimum: float
    p1: float
    median: float
    p99: float
    maximum: float
    std: float
    low: float | None = None
    high: float | None = None
    below: float | None = None
    above: float | None = None


@dataclass(frozen=True, kw_only=True)
class StoreSummary:
    """Everything ``inspect`` prints, as plain values.

    Attributes:
        path: the store's folder. ``num_bytes``: its size on disk. ``fingerprint``: of its content.
        episodes, steps, records, parts: counts. ``hours``: recorded time.
        meta: ``meta.json`` as plain JSON values.
        splits: number of episodes by split.
        tasks: by number of episodes, most first.
        states, actions: ranges by dimension; empty for a store without episodes.
    """

    path: str
    num_bytes: int
    fingerprint: str
    episodes: int
    steps: int
    records: int
    parts: int
    hours: float
    meta: dict[str, Any]
    splits: dict[str, int]
    tasks: tuple[TaskSummary, ...]
    states: tuple[DimensionRange, ...]
    actions: tuple[DimensionRange, ...]

    def to_json(self) -> dict[str, Any]:
        return asdict(self)


def summarize(store: Any) -> StoreSummary:
    """The numbers of an open ``EpisodeStore``; reads the episode table, states and actions."""
    meta, table = store.meta, store.episodes
    has_action = np.isfinite(store.action).all(axis=1)
    return StoreSummary(
        path=str(store.path),
        num_bytes=_size(store.path),
        fingerprint=store.fingerprint(),
        episodes=store.num_episodes,
        steps=store.num_steps,
        records=int(store.is_held.sum()),
        parts=store.num_parts,
        hours=store.num_steps / meta.control_hz / 3600,
        meta=to_dict(meta),
        splits=dict(Counter(split or "none" for split in table.split)),
        tasks=_tasks(table),
        states=_ranges(meta.state.names, meta.state.units, store.state[store.is_held]),
        actions=_ranges(meta.action.names, meta.action.units, store.action[has_action], meta.action),
    )


def _tasks(table: Any) -> tuple[TaskSummary, ...]:
    members: dict[str, list[int]] = {}
    for episode, task in enumerate(table.task):
        members.setdefault(task, []).append(episode)
    summaries = []
    for task, episodes in members.items():
        lengths = np.asarray(table.num_steps, np.int64)[episodes]
        domains = Counter(table.domain[e] for e in episodes)
        domains.pop("", None)
        summaries.append(
            TaskSummary(
                task=task,
                episodes=len(episodes),
                steps=int(lengths.sum()),
                shortest=int(lengths.min()),
                median=float(np.median(lengths)),
                longest=int(lengths.max()),
                outcomes=dict(Counter(table.outcome[e] for e in episodes).most_common()),
                kinds=dict(Counter(table.kind[e] for e in episodes).most_common()),
                domains=dict(domains.most_common()),
            )
        )
    return tuple(sorted(summaries, key=lambda summary: (-summary.episodes, summary.task)))


def _ranges(
    names: tuple[str, ...], units: tuple[str, ...], values: np.ndarray, bounds: Any = None
) -> tuple[DimensionRange, ...]:
    if len(values) == 0:
        return ()
    quantiles = np.quantile(values, [0.0, 0.01, 0.5, 0.99, 1.0], axis=0)
    std = values.std(axis=0, dtype=np.float64)
    ranges = []
    for i, (name, unit) in enumerate(zip(names, units, strict=True)):
        minimum, p1, median, p99, maximum = (float(q) for q in quantiles[:, i])
        clipped = {}
        if bounds is not None:
            low, high = bounds.low[i], bounds.high[i]
            slack = 1e-6 * (high - low)  # bounds are float64, data float32
            clipped = {
                "low": low,
                "high": high,
                "below": float((values[:, i] < low - slack).mean()),
                "above": float((values[:, i] > high + slack).mean()),
            }
        ranges.append(
            DimensionRange(
                name=name,
                unit=unit,
                minimum=minimum,
                p1=p1,
                median=median,
                p99=p99,
                maximum=maximum,
                std=float(std[i]),
                **clipped,
            )
        )
    return tuple(ranges)


def _size(path: Path) -> int:
    return sum(file.stat().st_size for file in path.rglob("*") if file.is_file())
