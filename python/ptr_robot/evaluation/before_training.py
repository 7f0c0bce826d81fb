"""What is measured of a fine-tuning before its first update: whether its critic knows the task."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import numpy as np
from torch import nn

from ptr_fast.checkpoint import CheckpointInfo
from ptr_fast.config import RewardConfig
from ptr_fast.diagnostics import rank_correlation
from ptr_fast.learners.registry import traits_of
from ptr_fast.valuation import value_episode
from ptr_robot.evaluation.during_training import as_checkpoint, few_enough, still_networks
from ptr_robot.evaluation.metrics import record_of
from ptr_robot.training.familiarity import Familiarity
from ptr_robot.training.loop import Run
from ptr_robot.training.sources import Source

__all__ = ["familiarity_of"]


def familiarity_of(run: Run) -> Familiarity | None:
    """That of a fine-tuning before its first update; None where it has no critic, or no old data to compare with.

    It looks at the demonstrations, those that are trained on too, and at held-out old episodes (at those of
    training where none was held out); failures are left out.
    """
    if traits_of(run.record.learner).discount is None:
        return None
    info, networks = as_checkpoint(run), still_networks(run)
    demonstrations, old = (
        _climbs(info, networks, run.rewards, [source for source in run.sources if source.role == role])
        for role in ("target", "prior")
    )
    if not (demonstrations and old):
        return None
    return Familiarity(
        demonstrations=float(np.mean(demonstrations)),
        old=float(np.mean(old)),
        num_demonstrations=len(demonstrations),
        num_old=len(old),
    )


def _climbs(
    info: CheckpointInfo, networks: Mapping[str, nn.Module], rewards: RewardConfig, sources: Sequence[Source]
) -> list[float]:
    """Rank correlation of Q and time along some of the episodes of these sources; unknown ones are left out."""
    averaged = info.act.mode != "mean"
    found, chosen = [], [(source.store, episodes) for source in sources if len(episodes := _good(source))]
    for store, episodes in chosen:
        for episode in few_enough(store, episodes, share=1.0 / len(chosen)):
            record = record_of(info, store, int(episode), rewards)
            values = value_episode(info.config, networks, record, info.spec, averaged=averaged)
            q = values.q_averaged if averaged else values.q
            found.append(rank_correlation(q, np.arange(len(q))))
    return [each for each in found if math.isfinite(each)]


def _good(source: Source) -> np.ndarray:
    """Numbers of the episodes that did not fail: held-out ones where there are any; of demonstrations all."""
    parts = [source.validation, source.train]
    looked_at = [np.sort(np.concatenate(parts))] if source.role == "target" else parts
    good = [[i for i in part if source.store.episodes.outcome[i] != "failure"] for part in looked_at]
    return np.array(next((part for part in good if part), []), int)
