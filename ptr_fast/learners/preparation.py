"""What a learner may do before its first update: look at the training data as a whole and fit something to it.

What it fits lies in buffers or parameters of its networks: so it is saved with them, and a run that goes on, acts or is
fine-tuned has it. The first process of a run fits it and gives it to the others (:func:`prepare`).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import torch

from ptr_fast.learners.distributed import Ranks
from ptr_fast.nets.state_scale import state_scales

__all__ = ["Prepares", "TrainingData", "prepare"]


@dataclass(frozen=True, kw_only=True)
class TrainingData:
    """All steps that a run trains on, store by store and episode by episode, N steps.

    Attributes:
        actions: float32 ``[N, A]``, scaled.
        state: float32 ``[N, S]``, raw units.
        task_id: int64 ``[N]``.
        rewards, masks: float32 ``[N]``.
        episode: int64 ``[N]``, counts the episodes of all stores.
    """

    actions: np.ndarray
    state: np.ndarray
    task_id: np.ndarray
    rewards: np.ndarray
    masks: np.ndarray
    episode: np.ndarray


class Prepares(Protocol):
    """A learner that has something to fit before its first update."""

    def prepare(self, data: TrainingData) -> None:
        """Fits it, into buffers or parameters of its networks; a function of the data and the learner's seed."""


def prepare(learner: Any, data: Callable[[], TrainingData], ranks: Ranks) -> None:
    """Fits the scales of the state, and lets a learner that :class:`Prepares` fit what it needs.

    Once, and every rank gets the same bits.
    """
    scales = state_scales(learner.networks().values())

    def fit() -> None:
        found = data()
        for scale in scales:
            scale.fit(torch.from_numpy(found.state).to(scale.mean.device))
        if hasattr(learner, "prepare"):
            learner.prepare(found)

    if scales or hasattr(learner, "prepare"):
        ranks.on_first(fit)
        ranks.broadcast(learner.networks())
