"""Which transitions make up the batch of a step: a pure function of (seed, step), so that resuming needs no state."""

from __future__ import annotations

from collections.abc import Sequence
from fractions import Fraction

import numpy as np
import torch

from ptr_fast.kernels.counter_random import Stream, uniform_bits

__all__ = ["MixtureSampler"]

_MAX_ROWS = 2**31 - 1  # a product with a 32-bit word stays within int64


class MixtureSampler:
    """Uniform sampling with replacement from one group of stores, or from two in an exact proportion.

    After any number of steps the number of samples of the first group is off its share by less than one: step t gets
    ``floor((t + 1) * B * mix) - floor(t * B * mix)`` of them. (The reference floors per device and per batch, so that
    0.9 becomes 57/64 on one device and 7/8 on eight.) A sample is a function of (seed, step, its number in the batch
    over all ranks), computed in integers: the same on the host and on the device, whatever the number of ranks.

    Note "Fair shares". The numbers of a batch that belong to the first group follow each other, shifted by one from
    step to step: of the numbers r, r + W, ... that rank r takes, the groups have their shares but for one sample.

    Args:
        groups: number of transitions of each store, in one group (pre-training) or two (old data, target data).
        mix: share of the first group, in [0, 1]; ignored where there is one group. Inside a group every transition is
            equally likely (to within 2**-33 of its probability).
        batch_size: samples of a step over all ranks; a multiple of ``world_size``.
        seed: with the step and the number of the sample it determines every draw.
        rank, world_size: this process takes every ``world_size``-th sample.

    Raises:
        ValueError: an empty group, one of 2**31 transitions or more, a mix outside [0, 1], or a batch that does not
            split evenly.
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
        if any(sum(group) > _MAX_ROWS for group in groups):
            raise ValueError(f"expected at most {_MAX_ROWS} transitions in a group, got {[sum(g) for g in groups]}")
        if not 0.0 <= mix <= 1.0:
            raise ValueError(f"mix must lie in [0, 1], got {mix}")
        if batch_size < 1 or batch_size % world_size:
            raise ValueError(f"batch_size {batch_size} must be a positive multiple of the number of ranks {world_size}")
        if not 0 <= rank < world_size:
            raise ValueError(f"rank must lie in [0, {world_size}), got {rank}")
        self.group_sizes = [sum(group) for group in groups]
        self.store_begins = np.cumsum([0] + [size for group in groups for size in group])[:-1]
        self.mix = Fraction(str(mix)).limit_denominator(_MAX_ROWS) if len(groups) == 2 else Fraction(1)
        self.batch_size = batch_size
        self.seed = seed
        self.rank = rank
        self.world_size = world_size
        self._numbers: dict[torch.device, torch.Tensor] = {}

    def rows(self, step: int | torch.Tensor, device: torch.device | str = "cpu") -> torch.Tensor:
        """Samples of one step, as rows of all tables laid end to end, store after store.

        Args:
            step: 0, 1, 2, ..., or a 0-d int64 tensor on the device; nothing is read back from it.
            device: where the rows go.

        Returns:
            int64 ``[batch_size / world_size]``.
        """
        numbers = self._numbers_on(torch.device(device))
        words = uniform_bits(self.seed, Stream.BATCH, step, numbers, 2)
        is_first = (numbers + step) % self.batch_size < self._num_from_first(step)
        first, second = self.group_sizes[0], self.group_sizes[-1]
        size = is_first * (first - second) + second
        begin = (~is_first) * first if len(self.group_sizes) == 2 else 0
        # The upper word of the product of a 64-bit fraction and the size.
        return ((words[:, 0] * size + (words[:, 1] * size >> 32)) >> 32) + begin

    def indices(self, step: int) -> tuple[np.ndarray, np.ndarray]:
        """Samples of one step, by store.

        Args:
            step: 0, 1, 2, ...

        Returns:
            store: int64 ``[batch_size / world_size]``, position among all stores of all groups.
            index: int64 of the same shape, a transition of that store.
        """
        row = self.rows(step).numpy()
        store = np.searchsorted(self.store_begins, row, side="right") - 1
        return store, row - self.store_begins[store]

    def _num_from_first(self, step: int | torch.Tensor) -> int | torch.Tensor:
        """Samples of the first group in a step. Products stay below 2**63: the fraction's terms are below 2**31."""
        share, whole = self.mix.numerator, self.mix.denominator
        owed = step * self.batch_size % whole * share % whole
        return (owed + self.batch_size * share) // whole

    def _numbers_on(self, device: torch.device) -> torch.Tensor:
        """Numbers of this rank's samples in the batch, int64 ``[b]``; made once per device."""
        if device not in self._numbers:
            self._numbers[device] = torch.arange(self.rank, self.batch_size, self.world_size, device=device)
        return self._numbers[device]
