"""What the files of runs and of trials hold, as far as reports and diagnoses look at it; they may hold more."""

from __future__ import annotations

from typing import Any, NotRequired, TypedDict

from ptr_robot.training.familiarity import Familiarity
from ptr_robot.training.run_record import Split

__all__ = ["Evaluation", "MetricsRow", "Record", "Rollout", "Selection", "Trial"]

Numbers = list[float | None]


class MetricsRow(TypedDict):
    """A line of ``metrics.jsonl``; everything else in it is a number by its key, or is not drawn."""

    step: int
    time_s: NotRequired[float]


class Loop(TypedDict):
    """``config.loop`` of a record."""

    num_steps: NotRequired[int]


class Config(TypedDict):
    """``config`` of a record."""

    learner: NotRequired[dict[str, Any] | None]
    loop: NotRequired[Loop]


class Start(TypedDict):
    """Where the weights of a run came from; ``path`` in records of version 1."""

    step: int
    checkpoint: NotRequired[str | None]
    path: NotRequired[str]


class AncestorSource(TypedDict):
    """A store that an ancestor trained on."""

    train: dict[str, Any]


class Ancestor(TypedDict):
    """A run whose weights went into this one."""

    sources: list[AncestorSource] | None


class Record(TypedDict):
    """``train_config.json``."""

    config: NotRequired[Config]
    split: NotRequired[Split | None]
    parent: NotRequired[Start | None]
    checkpoint: NotRequired[Start | None]
    ancestors: NotRequired[list[Ancestor] | None]
    versions: NotRequired[dict[str, str] | None]
    familiarity: NotRequired[Familiarity | None]


class Data(TypedDict):
    """On what an evaluation or a selection was made; older ones tell one camera, and not ``num_trained_on``."""

    store: str
    is_held_out: bool | None
    num_episodes: int
    num_steps: int
    note: str
    num_trained_on: NotRequired[int]
    unknown: NotRequired[str]
    camera: NotRequired[str]
    cameras: NotRequired[list[str]]


class Curves(TypedDict):
    """One value per kept step of an episode; those of values are there where the learner has a critic."""

    step: list[int]
    returns: NotRequired[Numbers]
    q: NotRequired[Numbers]
    q_averaged: NotRequired[Numbers]
    q_random: NotRequired[Numbers]
    value: NotRequired[Numbers]
    advantage: NotRequired[Numbers]


class EvaluatedEpisode(TypedDict):
    """An episode of an evaluation."""

    episode_id: str
    task: str
    outcome: str
    num_steps: int
    q_mean: NotRequired[float | None]
    rank_correlation: NotRequired[float | None]
    curves: NotRequired[Curves]


class Evaluation(TypedDict):
    """``evaluation/<step>.json``."""

    step: int
    networks: str
    data: Data
    value_range: tuple[float, float] | None
    metrics: dict[str, float | None]
    episodes: list[EvaluatedEpisode]


class Ranked(TypedDict):
    """A checkpoint of a selection."""

    step: int
    value: float | None
    excluded: str | None
    doubt: NotRequired[str | None]
    metrics: dict[str, float | None]


class Selection(TypedDict):
    """``selection.json``."""

    selected: int | None
    metric: str | None
    networks: str
    data: Data
    ranking: list[Ranked]


class Trial(TypedDict):
    """One trial; ``seed`` is that of its start."""

    success: bool
    seed: NotRequired[int]
    num_steps: NotRequired[int]
    reached: NotRequired[bool | None]
    lifted: NotRequired[bool | None]


class Plan(TypedDict):
    """How trials were run, where it was told."""

    frame_delay: NotRequired[int]
    state_delay: NotRequired[int]
    play: NotRequired[str]
    execute: NotRequired[int]
    ensemble_decay: NotRequired[float]
    start: NotRequired[str]
    distractors: NotRequired[int]
    max_steps: NotRequired[int]
    policy_task: NotRequired[str]


class Rollout(TypedDict):
    """A result of ``ptr-fast rollout``."""

    policy: str
    mode: str
    task: str
    kitchen: str
    trials: list[Trial]
    checkpoint: NotRequired[str | None]
    step: NotRequired[int | None]
    successes: NotRequired[int]
    num_trials: NotRequired[int]
    candidates: NotRequired[int]
    elites: NotRequired[int]
    steered: NotRequired[dict[str, Any]]
    plan: NotRequired[Plan]
