"""What a checkpoint's policy would earn, estimated from the episodes that its run trained on.

Fitted on those: the Q function of the policy (fitted Q evaluation), and a classifier of success that looks at
observation and action. Read off on the episodes of the evaluation: Q at their first step, and how likely the policy's
actions are to end in success. Both look at the embedding of the checkpoint's own encoder, the state and the task
(:mod:`ptr_fast.policy_evaluation`). A policy that plays chunks is taken for one that decides anew at every step.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from torch import nn

from ptr_fast.checkpoint import CheckpointInfo, load_networks
from ptr_fast.data.store import EpisodeStore
from ptr_fast.diagnostics import area_under_curve, value_range
from ptr_fast.learners.registry import encodes_of, make_networks, traits_of
from ptr_fast.policy_evaluation import ActionFeatures, fitted_q, predicted, success_weights
from ptr_fast.runtime.policy import Policy
from ptr_fast.valuation import RecordedEpisode, actions_on_episode, embedded_episode
from ptr_robot.evaluation.held_out import EvaluationData, trained_episodes
from ptr_robot.evaluation.metrics import record_of, rewards_of
from ptr_robot.training.store_places import StorePlaces

__all__ = ["DISCOUNT", "FITTED", "MAX_FITTED_EPISODES", "fitted_metrics", "with_fitted"]

FITTED = ("fqe_value", "success_chance", "classifier_auc")
"""The metrics of this kind, as :data:`ptr_robot.evaluation.metrics.METRICS` explains them."""
DISCOUNT = 0.98
"""Of the fitted Q, whatever the learner's own: the values of all learners are then comparable."""
MAX_FITTED_EPISODES = 100
"""Training episodes that are fitted, a seeded choice from every task and outcome: what bounds the time."""


@dataclass(frozen=True, kw_only=True)
class Steps:
    """Episodes as the fits look at them.

    Shapes: F frames and N steps of all episodes.

    Attributes:
        groups: of all frames ``[F, D_i]``: embedding, state, task as one-hot.
        policy: float32 ``[F, A]``, the policy's actions, scaled.
        index, next_index: int64 ``[N]``, the frames of s and s'.
        actions: float32 ``[N, A]``, recorded, scaled.
        rewards, masks: ``[N]``.
        episode: int64 ``[N]``, counts the episodes.
        first: int64 ``[episodes]``, their first frames.
        outcomes: of the episodes.
    """

    groups: tuple[np.ndarray, ...]
    policy: np.ndarray
    index: np.ndarray
    next_index: np.ndarray
    actions: np.ndarray
    rewards: np.ndarray
    masks: np.ndarray
    episode: np.ndarray
    first: np.ndarray
    outcomes: tuple[str, ...]

    def at(self, frames: np.ndarray) -> list[np.ndarray]:
        """The groups of some frames."""
        return [group[frames] for group in self.groups]


def fitted_metrics(
    info: CheckpointInfo, data: EvaluationData, places: StorePlaces, *, seed: int = 0, device: str = "cpu"
) -> dict[str, Any]:
    """The metrics in :data:`FITTED` of one checkpoint, and what they were fitted on.

    Args:
        data: the episodes to read them off.
        places: where the run's stores lie now.

    Returns:
        ``{"metrics", "fitted_on": {"num_episodes", "num_successes", "num_failures", "num_steps", "discount",
        "unknown"}}``. ``success_chance`` and ``classifier_auc`` are None where all fitted episodes ended alike, which
        ``unknown`` then says, and ``classifier_auc`` where those of the evaluation did.

    Raises:
        DataError: the run does not say what it trained on, or a store is missing.
        ValueError: the checkpoint does not act.
    """
    networks = Policy(info, device).networks
    if "encodes" in traits_of(info.config).capabilities and encodes_of(info.config).encoder_network() not in networks:
        more = make_networks(info.config, info.spec, [encodes_of(info.config).encoder_network()])
        load_networks(info, more)
        networks |= {name: network.to(device) for name, network in more.items()}
    trained = trained_episodes(info, places, MAX_FITTED_EPISODES, seed)
    fit = _steps(info, networks, trained, seed)
    seen = _steps(info, networks, [(data.store, data.episodes)], seed)
    features = ActionFeatures(fit.at(fit.index), fit.actions, seed=seed)
    limits = value_range(rewards_of(info), DISCOUNT)
    recorded = features(fit.at(fit.index), fit.actions)
    next_features = features(fit.at(fit.next_index), fit.policy[fit.next_index])
    weights = fitted_q(recorded, next_features, fit.rewards, fit.masks, DISCOUNT, limits)
    first = features(seen.at(seen.first), seen.policy[seen.first])
    metrics = {"fqe_value": float(np.clip(first @ weights, *limits).mean())}
    metrics |= _by_classifier(features, recorded, fit, seen)
    num_successes, num_failures = (fit.outcomes.count(outcome) for outcome in ("success", "failure"))
    told = f"{num_successes} successes and {num_failures} failures were fitted"
    return {
        "metrics": {name: None if math.isnan(value) else value for name, value in metrics.items()},
        "fitted_on": {
            "num_episodes": len(fit.outcomes),
            "num_successes": num_successes,
            "num_failures": num_failures,
            "num_steps": len(fit.index),
            "discount": DISCOUNT,
            "unknown": "" if num_successes and num_failures else f"{told}: nothing tells one from the other",
        },
    }


def with_fitted(result: dict[str, Any], fitted: dict[str, Any]) -> dict[str, Any]:
    """An evaluation with the metrics that :func:`fitted_metrics` gave."""
    return {**result, "metrics": {**result["metrics"], **fitted["metrics"]}, "fitted_on": fitted["fitted_on"]}


def _by_classifier(features: ActionFeatures, recorded: np.ndarray, fit: Steps, seen: Steps) -> dict[str, float]:
    """What the classifier says of the policy, and how well it tells the evaluation's own episodes apart."""
    outcome = np.array(fit.outcomes)[fit.episode]
    known = outcome != "unknown"
    weights = success_weights(recorded[known], outcome[known] == "success", fit.episode[known])
    if weights is None:
        return {"success_chance": math.nan, "classifier_auc": math.nan}
    chance = predicted(features(seen.at(seen.index), seen.policy[seen.index]), weights)
    recorded_chance = predicted(features(seen.at(seen.index), seen.actions), weights)
    numbers = range(len(seen.outcomes))
    by_episode = [float(recorded_chance[seen.episode == number].mean()) for number in numbers]
    good, bad = (
        [chance for chance, outcome in zip(by_episode, seen.outcomes, strict=True) if outcome == wanted]
        for wanted in ("success", "failure")
    )
    return {
        "success_chance": float(np.mean([chance[seen.episode == number].mean() for number in numbers])),
        "classifier_auc": area_under_curve(good, bad),
    }


def _steps(
    info: CheckpointInfo,
    networks: dict[str, nn.Module],
    chosen: Sequence[tuple[EpisodeStore, np.ndarray]],
    seed: int,
) -> Steps:
    """Reads, embeds and acts on episodes."""
    rewards, parts = rewards_of(info), []
    for store, episodes in chosen:
        for number in episodes:
            record = record_of(info, store, int(number), rewards)
            embedding = embedded_episode(info.config, networks, record)
            policy = actions_on_episode(info.config, networks, record, info.spec, info.act, seed)
            parts.append((record, embedding, policy))
    records: list[RecordedEpisode] = [record for record, _, _ in parts]
    first = np.cumsum([0, *(len(record.states) for record in records)])[:-1]
    one_hot = np.eye(info.spec.tasks.num_slots)[
        np.repeat([r.task_id for r in records], [len(r.states) for r in records])
    ]

    def joined(values: Sequence[np.ndarray]) -> np.ndarray:
        return np.concatenate(values)

    return Steps(
        groups=(joined([embedding for _, embedding, _ in parts]), joined([r.states for r in records]), one_hot),
        policy=joined([policy for _, _, policy in parts]),
        index=joined([record.index + start for record, start in zip(records, first, strict=True)]),
        next_index=joined([record.next_index + start for record, start in zip(records, first, strict=True)]),
        actions=joined([record.actions for record in records]),
        rewards=joined([record.rewards for record in records]).astype(np.float64),
        masks=joined([record.masks for record in records]).astype(np.float64),
        episode=np.repeat(np.arange(len(records)), [len(record.index) for record in records]),
        first=first,
        outcomes=tuple(record.outcome for record in records),
    )
