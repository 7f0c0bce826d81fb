"""How one of several proposals is chosen by their values.

Shapes: K proposals, H actions of a chunk, A action.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np

__all__ = ["Choice", "Choose", "SteeringConfig", "choose", "proposal_seed"]

Choose = Literal["max", "softmax", "average"]


@dataclass(frozen=True, kw_only=True)
class SteeringConfig:
    """How the critic chooses.

    Attributes:
        choose: ``max``: the proposal of the largest Q. ``softmax``: one drawn with the probability exp(Q / temperature)
            over its sum. ``average``: the mean of the ``num_best`` proposals of the largest Q.
        temperature: of ``softmax``, in units of Q.
        num_best: of ``average``; all of them where fewer came.
    """

    choose: Choose = "max"
    temperature: float = 1.0
    num_best: int = 4

    def __post_init__(self) -> None:
        if self.choose not in get_args(Choose):
            raise ValueError(f"choose: expected one of {list(get_args(Choose))}, got {self.choose!r}")
        if not 0.0 < self.temperature < float("inf"):
            raise ValueError(f"temperature must be a positive number, got {self.temperature:g}")
        if self.num_best < 1:
            raise ValueError(f"num_best must be at least 1, got {self.num_best}")


@dataclass(frozen=True, kw_only=True)
class Choice:
    """What the critic made of some proposals.

    Attributes:
        actions: float32 ``[H, A]``, raw units.
        q: float32 ``[K]`` of the finite proposals, in their order.
        index: of the chosen proposal among them; of the best one where several are averaged.
        first: whether the first of ``q`` is the proposer's first proposal, so that the two can be compared.
        num_clipped: finite proposals whose first action lay outside the critic's bounds.
        num_dropped: proposals that were not finite.
    """

    actions: np.ndarray
    q: np.ndarray
    index: int
    first: bool
    num_clipped: int
    num_dropped: int


def proposal_seed(seed: int, index: int) -> int:
    """Seed of proposal ``index`` of a decision; the first has the decision's own, as without a critic."""
    return seed if index == 0 else int(np.random.SeedSequence([seed, index]).generate_state(1, np.uint64)[0] >> 1)


def choose(q: np.ndarray, proposals: np.ndarray, config: SteeringConfig, seed: int = 0) -> tuple[np.ndarray, int]:
    """The actions float32 ``[H, A]`` that are chosen, and the index of the (best) proposal that they are of.

    Args:
        q: finite ``[K]``. proposals: ``[K, H, A]``. seed: of ``softmax``.
    """
    best_first = np.argsort(-q, kind="stable")
    if config.choose == "average":
        best = best_first[: config.num_best]
        return proposals[best].mean(axis=0, dtype=np.float64).astype(np.float32), int(best[0])
    index = int(best_first[0])
    if config.choose == "softmax":
        weight = np.exp((q.astype(np.float64) - q.max()) / config.temperature)
        index = int(np.random.default_rng(seed).choice(len(q), p=weight / weight.sum()))
    return proposals[index], index
