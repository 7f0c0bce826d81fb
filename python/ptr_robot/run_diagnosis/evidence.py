"""What the checks of a run look at: what it was told, its curves, and the episodes that it trains on."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, fields
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from ptr_fast.config import ActConfig, LearnerConfig, PolicySpec, RewardConfig, from_dict
from ptr_fast.diagnostics import value_range
from ptr_fast.errors import DataError
from ptr_fast.learners.divergence import Remedy
from ptr_fast.learners.registry import traits_of
from ptr_fast.learners.traits import Traits
from ptr_robot.evaluation.ranking import evaluate_run
from ptr_robot.report.runs import Metrics, RunData, read_run
from ptr_robot.training.config import LoopConfig
from ptr_robot.training.familiarity import Familiarity, familiarity_in
from ptr_robot.training.run_record import recorded_sources
from ptr_robot.training.sources import Source, find_episodes
from ptr_robot.training.store_places import StorePlaces

__all__ = ["Point", "RunEvidence", "gather", "option"]

NO_VALUES = (np.empty(0, int), np.empty(0))
MAX_NEIGHBOURS = 2000
"""Steps that are compared with each other to see whether recorded actions follow from the state."""


class Point(NamedTuple):
    """A number of a run and the step that it was taken at."""

    step: int
    value: float


@dataclass(frozen=True, kw_only=True)
class RunEvidence:
    """One run.

    Attributes:
        run: the files of its folder.
        learner, rewards, act, loop: what it was told.
        spec: what its policy sees and commands; None: neither the record nor a checkpoint says so.
        held_out: metrics on held-out episodes over updates, by their names in
            :data:`ptr_robot.evaluation.metrics.METRICS`; from ``--evaluate-every``, else from its checkpoints.
        unmeasured: why there are none; empty where there are.
        sources: the episodes that it trains on; None: their stores are not there.
        unopened: why not; empty where they are.
    """

    run: RunData
    learner: LearnerConfig
    rewards: RewardConfig
    act: ActConfig
    loop: LoopConfig
    spec: PolicySpec | None
    held_out: Metrics
    unmeasured: str
    sources: tuple[Source, ...] | None
    unopened: str

    @property
    def path(self) -> str:
        return str(self.run.path)

    @cached_property
    def traits(self) -> Traits:
        return traits_of(self.learner)

    @cached_property
    def familiarity(self) -> Familiarity | None:
        """What its critic knew of the task before fine-tuning."""
        return familiarity_in(self.run.config)

    @cached_property
    def limits(self) -> tuple[float, float] | None:
        """Smallest and largest return there can be; None for a learner that knows no values."""
        return None if self.traits.discount is None else value_range(self.rewards, self.traits.discount)

    @property
    def width(self) -> float:
        """Of the range of returns; of a learner that knows values."""
        assert self.limits is not None
        return self.limits[1] - self.limits[0]

    @property
    def has_many_modes(self) -> bool:
        """Whether its policy keeps several ways apart, as a clone of people does that proposes actions to a critic."""
        return "sample" in self.traits.modes

    @property
    def old_share(self) -> float | None:
        """Share of the prior data in a batch (``--mix``) of a run that has, or could have, demonstrations besides."""
        split, parent = self.run.config.get("split") or {}, self.run.config.get("parent") or {}
        roles = {source["role"] for source in split.get("sources", [])}
        could_mix = "target" in roles and ("prior" in roles or parent.get("kind") == "finetune")
        return split.get("mix") if could_mix else None

    @property
    def critic_share(self) -> float | None:
        """Share of the prior data in the loss of a critic that may have its own (``--critic-mix``); else None."""
        if not self.old_share or "critic_weight" not in self.traits.optional_columns:
            return None
        told = (self.run.config.get("config") or {}).get("critic_mix")
        return self.old_share if told is None else told

    @property
    def is_finished(self) -> bool:
        return self.run.last_step >= self.loop.num_steps

    def has(self, name: str) -> bool:
        """Whether the learner's configuration has a field of this name. Fields of one name mean the same everywhere."""
        return any(field.name == name for field in fields(self.learner))

    def curve(self, name: str) -> tuple[np.ndarray, np.ndarray]:
        """Steps and values of a metric on held-out episodes; empty where it was not measured."""
        return self.held_out.get(name, NO_VALUES)

    def now(self, name: str) -> Point | None:
        """The newest value of a metric on held-out episodes: median over the last tenth of its curve."""
        return _late(*self.curve(name))

    def reported(self, key: str) -> Point | None:
        """The newest value of a number of the updates: median over the last tenth of its reports."""
        return _late(*self.run.metrics.get(key, NO_VALUES))

    def last_row(self) -> dict[str, float]:
        """The newest value of every number that the updates reported."""
        return {key: float(values[-1]) for key, (_, values) in self.run.metrics.items()}

    @cached_property
    def outcomes(self) -> Counter[str]:
        """How many of the episodes that it trains on have which outcome; empty where they are not there."""
        return Counter(s.store.episodes.outcome[i] for s in self.sources or () for i in s.train)

    @cached_property
    def lengths(self) -> np.ndarray:
        """Steps of the episodes that it trains on and that did not fail, int64 ``[E]``."""
        return np.array(
            [
                s.store.episodes.num_steps[i]
                for s in self.sources or ()
                for i in s.train
                if s.store.episodes.outcome[i] != "failure"
            ],
            np.int64,
        )

    @cached_property
    def explained_by_state(self) -> float | None:
        """Share of the variance of recorded actions that the nearest state of another episode of the task explains.

        1: one way to do it, always alike; towards 0: several ways, pauses, noise. None where it cannot be told: frames
        are a part of what the policy sees, or fewer than two episodes are there.
        """
        if self.spec is None or not self.sources or "images" in self.traits.columns:
            return None
        sources = [source for source in self.sources if len(source.train)]
        firsts = np.cumsum([0, *(source.store.num_episodes for source in sources)])
        parts = [_steps_of(source, self.spec, int(first)) for source, first in zip(sources, firsts, strict=False)]
        states, actions, episodes, tasks = (np.concatenate(column) for column in zip(*parts, strict=True))
        chosen = np.random.default_rng(0).permutation(len(states))[:MAX_NEIGHBOURS]
        return _explained(states[chosen], actions[chosen], episodes[chosen], tasks[chosen])


def _late(steps: np.ndarray, values: np.ndarray) -> Point | None:
    known = np.isfinite(values)
    if not known.any():
        return None
    count = max(1, int(known.sum()) // 10)
    return Point(int(steps[known][-1]), float(np.median(values[known][-count:])))


def _steps_of(source: Source, spec: PolicySpec, first_episode: int) -> tuple[np.ndarray, ...]:
    """States, scaled actions, episode numbers (from ``first_episode`` on) and tasks of the steps of a source."""
    table = source.store.episodes
    rows, episodes, tasks = [], [], []
    for i in source.train:
        first, count = int(table.first[i]), int(table.num_steps[i])
        rows.append(np.arange(first, first + count))
        episodes.append(np.full(count, first_episode + i))
        tasks.append(np.full(count, table.task[i], dtype=object))
    index = np.concatenate(rows)
    actions = spec.action.scale(np.asarray(source.store.action[index], np.float32))
    return np.asarray(source.store.state[index]), actions, np.concatenate(episodes), np.concatenate(tasks)


def _explained(states: np.ndarray, actions: np.ndarray, episodes: np.ndarray, tasks: np.ndarray) -> float | None:
    centred = states.astype(np.float64) - states.mean(axis=0, dtype=np.float64)
    spread = centred.std(axis=0)
    varies = spread > 1e-6 * (1.0 + np.abs(states).max(axis=0))  # others are constant but for their rounding
    scaled = centred[:, varies] / spread[varies]
    square = (scaled**2).sum(axis=1)
    distance = square[:, None] + square[None] - 2 * scaled @ scaled.T
    distance[(episodes[:, None] == episodes[None]) | (tasks[:, None] != tasks[None])] = np.inf
    nearest, variance = distance.argmin(axis=1), actions.var(axis=0).mean()
    known = np.isfinite(distance[np.arange(len(states)), nearest])
    if not known.any() or variance == 0:
        return None
    # Two draws of one law differ by twice its variance.
    unexplained = 0.5 * ((actions - actions[nearest]) ** 2)[known].mean()
    return float(1.0 - unexplained / variance)


def option(name: str, value: float | str) -> str:
    """A setting as words of a command: ``--learner.cql-alpha 1``."""
    return " ".join(Remedy(seen="", settings=((name, value),)).options())


def gather(
    path: Path, places: StorePlaces, device: str = "cpu", advance: Callable[[], None] | None = None
) -> RunEvidence:
    """Reads a run; where it has no curves of held-out metrics, its checkpoints are evaluated, as ``select`` does.

    Raises:
        DataError: no run there, a broken file, or a learner that is not installed.
    """
    run = read_run(path)
    told = run.config.get("config")
    if not isinstance(told, dict) or "learner" not in told:
        raise DataError(f"{path / 'train_config.json'}: says nothing about the run's learner; expected a run's record")
    try:
        learner: Any = from_dict(LearnerConfig, told["learner"], "learner")
        rewards = from_dict(RewardConfig, told.get("rewards") or {}, "rewards")
        act = from_dict(ActConfig, told.get("act") or {}, "act")
        loop = from_dict(LoopConfig, told.get("loop") or {}, "loop")
        spec = from_dict(PolicySpec, run.config["spec"], "spec") if run.config.get("spec") else None
    except ValueError as error:
        raise DataError(f"{path / 'train_config.json'}: {error}") from error
    held_out, unmeasured = _held_out(run, places, device, advance)
    sources, unopened = _sources(run, places)
    return RunEvidence(
        run=run,
        learner=learner,
        rewards=rewards,
        act=act,
        loop=loop,
        spec=spec,
        held_out=held_out,
        unmeasured=unmeasured,
        sources=sources,
        unopened=unopened,
    )


def _held_out(
    run: RunData, places: StorePlaces, device: str, advance: Callable[[], None] | None
) -> tuple[Metrics, str]:
    curves = {key.removeprefix("held_out/"): c for key, c in run.metrics.items() if key.startswith("held_out/")}
    if curves:
        return curves, ""
    if run.choice is None:
        return {}, run.problem or "the run has no checkpoint yet, and was told no --evaluate-every"
    try:
        evaluations = evaluate_run(run.path, places=places, device=device, advance=advance)
    except ValueError as error:  # DataError is one
        return {}, str(error)
    on_training = [e for e in evaluations if e["data"]["num_trained_on"]]
    if on_training:
        return {}, "the run holds no episode out"
    names = {name for evaluation in evaluations for name in evaluation["metrics"]}
    found = {
        name: [(e["step"], e["metrics"][name]) for e in evaluations if e["metrics"].get(name) is not None]
        for name in names
    }
    return {name: (np.array([s for s, _ in c]), np.array([v for _, v in c])) for name, c in found.items() if c}, ""


def _sources(run: RunData, places: StorePlaces) -> tuple[tuple[Source, ...] | None, str]:
    sources, records = [], recorded_sources(run.config, str(run.path / "train_config.json"))
    try:
        for record in records:
            store = places.open(record.store, record.cameras)
            train = find_episodes(store, record, record.train)
            sources.append(Source(role=record.role, store=store, train=train, validation=np.empty(0, np.int64)))
    except DataError as error:
        return None, str(error)
    return tuple(sources), ""
