"""Metrics on held-out episodes while a run trains (``--evaluate-every``): those of ``ptr-fast evaluate``, as curves.

They are taken of copies of the networks, without a random number of the run's: nothing of the training changes.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from torch import nn

from ptr_fast.checkpoint import CheckpointInfo
from ptr_fast.data.store import EpisodeStore
from ptr_fast.diagnostics import value_range
from ptr_fast.learners.registry import make_networks, traits_of
from ptr_fast.valuation import RecordedEpisode, value_episode
from ptr_robot.evaluation.held_out import held_out, spread
from ptr_robot.evaluation.metrics import METRICS, format_number, metrics_of, record_of
from ptr_robot.training.loop import Run

__all__ = ["MAX_EPISODES", "MAX_FRAMES", "as_checkpoint", "few_enough", "held_out_metrics", "still_networks"]

MAX_EPISODES = 20
"""Episodes that are looked at; as many as ``ptr-fast evaluate`` takes."""
MAX_FRAMES = 1000
"""Frames of these episodes together: longer ones are fewer, at least one."""


def held_out_metrics(run: Run) -> Callable[[], dict[str, float]]:
    """What measures the run's learner as it is at the moment: metrics by name, NaN where the episodes cannot tell.

    It always looks at the same held-out episodes, with the same sampled actions. Their frames are read when it is first
    called, and kept.

    Raises:
        ValueError: the learner does not act, or the run holds no episode out.
    """
    record = run.record
    traits = traits_of(record.learner)
    if "acts" not in traits.capabilities:
        raise ValueError(
            f"evaluate_every: {traits.name} does not act, there is nothing to compare with recorded actions"
        )
    info = as_checkpoint(run)
    data = held_out(info, max_episodes=0)
    if data.num_trained_on:
        raise ValueError(
            "evaluate_every: the run holds no episode out: leave it at 0, or take a data.validation_share above 0, or "
            "fewer num_demos than the target has"
        )
    episodes = few_enough(data.store, data.episodes)
    print(
        f"held-out metrics every {run.loop.evaluate_every:,} updates: {len(episodes)} of {len(data.episodes)} episodes "
        f"({int(data.store.episodes.num_frames[episodes].sum()):,} frames) of {data.store.path}"
    )
    limits = None if traits.discount is None else value_range(run.rewards, traits.discount)
    networks = still_networks(run)
    averaged = record.act.mode != "mean"
    seen: list[RecordedEpisode] = []

    def measure() -> dict[str, float]:
        if not seen:
            seen.extend(record_of(info, data.store, int(episode), run.rewards) for episode in episodes)
        for name, network in run.learner.networks().items():
            networks[name].load_state_dict(network.state_dict())
        values = [value_episode(record.learner, networks, episode, record.spec, averaged=averaged) for episode in seen]
        metrics = metrics_of(values, limits, averaged)
        shown = [name for name in ("score", "bellman_error", "action_error") if name in metrics]
        print("held out: " + ", ".join(f"{METRICS[name][0]} {format_number(metrics[name])}" for name in shown))
        return metrics

    return measure


def as_checkpoint(run: Run) -> CheckpointInfo:
    """What a checkpoint of the run as it begins would say of itself; it need not be there."""
    record = run.record
    return CheckpointInfo(
        path=run.out / "checkpoints" / f"{record.first_step:06d}",
        step=record.first_step,
        config=record.learner,
        spec=record.spec,
        act=record.act,
        run=record.to_json(),
    )


def still_networks(run: Run) -> dict[str, nn.Module]:
    """Copies of the learner's networks as they are, that do not train; where the learner is."""
    networks = make_networks(run.record.learner, run.record.spec, traits_of(run.record.learner).networks)
    for name, network in run.learner.networks().items():
        networks[name].load_state_dict(network.state_dict())
        networks[name].to(run.learner.device).requires_grad_(False).eval()
    return networks


def few_enough(store: EpisodeStore, episodes: np.ndarray, seed: int = 0, share: float = 1.0) -> np.ndarray:
    """As many of the episodes, chosen as ``ptr-fast evaluate`` does, as both limits allow; at least one.

    Args:
        share: of the limits, where several stores are looked at.
    """
    for count in range(min(int(share * MAX_EPISODES), len(episodes)), 1, -1):
        chosen = spread(store, episodes, count, seed)
        if store.episodes.num_frames[chosen].sum() <= share * MAX_FRAMES:
            return chosen
    return spread(store, episodes, 1, seed)
