"""Which transitions make up the batch of a step: a pure function of (seed, step), so that resuming needs no state."""

from __future__ import annotations

from collections.abc import Sequence
from fractions import Fraction

import numpy as np

__all__ = ["MixtureSampler"]


class MixtureSampler:
    """Uniform sampling with replacement from one group of stores, or from two in an exact proportion.

    The n-th sample since the start of training comes from the first group exactly if ``floor((n + 1) * mix)`` exceeds
    ``floor(n * mix)``: over any prefix the number of samples of that group is off by less than one. (The reference
    floors per device and per batch, so that 0.9 becomes 57/64 on one device and 7/8 on eight.) The whole batch is drawn
    by every rank and then split, so the samples of a step do not depend on the number of ranks.

    Args:
        groups: number of transitions of each store, in one group (pre-training) or two (old data, target data).
        mix: share of the first group, in [0, 1]; ignored where there is one group. Inside a group every transition is
            equally likely.
        batch_size: samples of a step over all ranks; a multiple of ``world_size``.
        seed: with the step it determines every draw.
        rank, world_size: this process takes every ``world_size``-th sample.

    Raises:
        ValueError: an empty group, a mix outside [0, 1], or a batch that does not split evenly.
    """

    def __init__(
        self,
        groups: Sequence[Sequence[int]],
        mix: float,
        batch_size: int,
        seed: int,
        rank: int = 0,
        world_size: int = 1,
    ) -> None:
        if len(groups) not in (1, 2):
            raise ValueError(f"expected one or two groups of stores, got {len(groups)}")
        if any(sum(group) < 1 for group in groups):
            raise ValueError(f"every group needs at least one transition, got sizes {[list(g) for g in groups]}")
        if not 0.0 <= mix <= 1.0:
            raise ValueError(f"mix must lie in [0, 1], got {mix}")
        if batch_size < 1 or batch_size % world_size:
            raise ValueError(f"batch_size {batch_size} must be a positive multiple of the number of ranks {world_size}")
        if not 0 <= rank < world_size:
            raise ValueError(f"rank must lie in [0, {world_size}), got {rank}")
        self.group_sizes = np.array([sum(group) for group in groups], np.int64)
        self.group_begins = np.cumsum(self.group_sizes) - self.group_sizes
        self.store_begins = np.cumsum([0] + [size for group in groups for size in group])[:-1]
        self.mix = Fraction(str(mix)) if len(groups) == 2 else Fraction(1)
        self.batch_size = batch_size
        self.seed = seed
        self.rank = rank
        self.world_size = world_size

    def num_from_first(self, num_samples: int) -> int:
        """How many of the first ``num_samples`` samples of training come from the first group."""
        return num_samples * self.mix.numerator // self.mix.denominator

    def indices(self, step: int) -> tuple[np.ndarray, np.ndarray]:
        """Samples of one step.

        Args:
            step: 0, 1, 2, ...

        Returns:
            store: int64 ``[batch_size / world_size]``, position among all stores of all groups.
            index: int64 of the same shape, a transition of that store.
        """
        begin = step * self.batch_size
        first = self.num_from_first(begin + self.batch_size) - self.num_from_first(begin)
        rng = np.random.default_rng((self.seed, step))
        group = rng.permutation(np.repeat(np.array([0, 1]), [first, self.batch_size - first]))
        row = (rng.random(self.batch_size) * self.group_sizes[group]).astype(np.int64) + self.group_begins[group]
        store = np.searchsorted(self.store_begins, row, side="right") - 1
        mine = slice(self.rank, None, self.world_size)
        return store[mine], (row - self.store_begins[store])[mine]
