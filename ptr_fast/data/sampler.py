"""Which transitions make up the batch of a step: a pure function of (seed, step), so that resuming needs no state."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from fractions import Fraction
from typing import Any

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

    Note "Weights". Transitions of a group that have the same weight are a part of it, and the parts too are drawn in
    exact proportion, by their weights times their sizes: after any number of samples of a group, those of each of its P
    parts are off their share by less than the depth of a binary tree over the parts, ``ceil(log2(P))`` (two weights:
    by less than one). Every node of the tree deals its samples to its two sides as the mix deals them to the groups.

    Args:
        groups: number of transitions of each store, in one group (pre-training) or two (old data, target data).
        mix: share of the first group, in [0, 1]; ignored where there is one group. Inside a group every transition is
            equally likely (to within 2**-33 of its probability).
        batch_size: samples of a step over all ranks; a multiple of ``world_size``.
        seed: with the step and the number of the sample it determines every draw.
        rank, world_size: this process takes every ``world_size``-th sample.
        weights: how often a transition is drawn compared with others of its group, positive, float64 ``[N]`` over all
            tables laid end to end. None, or one weight for the whole of each group: all are equally likely, and the
            samples are the same, bit for bit.

    Raises:
        ValueError: weights that are not positive and finite, an empty group, one of 2**31 transitions or more, a mix
            outside [0, 1], or a batch that does not split evenly.
    """

    def __init__(
        self,
        groups: Sequence[Sequence[int]],
        mix: float,
        batch_size: int,
        seed: int,
        rank: int = 0,
        world_size: int = 1,
        weights: np.ndarray | None = None,
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
        self._parts = None if weights is None else _Parts.of(weights, self.group_sizes)
        self._parts_on: dict[torch.device, _Parts] = {}

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
        position, num_from_first = (numbers + step) % self.batch_size, self._num_from_first(step)
        is_first = position < num_from_first
        if self._parts is not None:
            begun = _share_of(step * self.batch_size, self.mix.numerator, self.mix.denominator)
            nth = torch.where(is_first, position + begun, position - num_from_first + (step * self.batch_size - begun))
            return self._parts_at(torch.device(device)).rows(is_first, nth, words)
        first, second = self.group_sizes[0], self.group_sizes[-1]
        size = is_first * (first - second) + second
        begin = (~is_first) * first if len(self.group_sizes) == 2 else 0
        return _below(words, size) + begin

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

    def _parts_at(self, device: torch.device) -> _Parts:
        """The parts on a device; moved there once."""
        assert self._parts is not None
        if device not in self._parts_on:
            self._parts_on[device] = self._parts.to(device)
        return self._parts_on[device]


@dataclass(frozen=True, kw_only=True)
class _Parts:
    """The parts of all groups (note "Weights"): a binary tree for each group; all of them are int64 tensors.

    Attributes:
        share, whole: ``[nodes]``; a node deals ``share / whole`` of its samples to its left side. A leaf: 0 and 1.
        left, right: ``[nodes]``, the node on that side; a leaf is its own right side.
        begin, size: ``[nodes]``, the rows of a leaf in ``order``.
        order: ``[N]``, all rows, part by part.
        roots: ``[2]``, of the first and the last group.
        depth: of the deepest tree.
    """

    share: torch.Tensor
    whole: torch.Tensor
    left: torch.Tensor
    right: torch.Tensor
    begin: torch.Tensor
    size: torch.Tensor
    order: torch.Tensor
    roots: torch.Tensor
    depth: int

    @staticmethod
    def of(weights: np.ndarray, group_sizes: Sequence[int]) -> _Parts | None:
        """The parts of weights ``[N]``; None where each group has one weight."""
        weights = np.asarray(weights, np.float64)
        if weights.shape != (sum(group_sizes),):
            raise ValueError(f"expected one weight for each of {sum(group_sizes)} transitions, got {weights.shape}")
        if not (np.isfinite(weights).all() and (weights > 0).all()):
            raise ValueError("weights must be positive finite numbers")
        nodes: list[tuple[int, ...]] = []  # share, whole, left, right, begin, size
        order, roots, depth, begin = [], [], 0, 0
        for group_size in group_sizes:
            values, which, counts = np.unique(
                weights[begin : begin + group_size], return_inverse=True, return_counts=True
            )
            order.append(begin + np.argsort(which, kind="stable"))
            begins = begin + np.cumsum(counts) - counts
            leaves = list(zip(map(_fraction, values), begins.tolist(), counts.tolist(), strict=True))
            depth = max(depth, _add(nodes, leaves))
            roots.append(len(nodes) - 1)
            begin += group_size
        if depth == 0:
            return None
        columns = [torch.tensor(column, dtype=torch.int64) for column in zip(*nodes, strict=True)]
        return _Parts(
            **dict(zip(("share", "whole", "left", "right", "begin", "size"), columns, strict=True)),
            order=torch.from_numpy(np.concatenate(order)),
            roots=torch.tensor([roots[0], roots[-1]]),
            depth=depth,
        )

    def to(self, device: torch.device) -> _Parts:
        """The same on a device."""
        moved: dict[str, Any] = {n: v.to(device) for n, v in vars(self).items() if isinstance(v, torch.Tensor)}
        return replace(self, **moved)

    def rows(self, is_first: torch.Tensor, nth: torch.Tensor, words: torch.Tensor) -> torch.Tensor:
        """Rows ``[b]`` of samples: whether of the first group, their number among all of their group, two words."""
        node = torch.where(is_first, self.roots[0], self.roots[1])
        for _ in range(self.depth):
            share, whole = self.share[node], self.whole[node]
            before = _share_of(nth, share, whole)
            goes_left = _share_of(nth + 1, share, whole) > before
            nth = torch.where(goes_left, before, nth - before)
            node = torch.where(goes_left, self.left[node], self.right[node])
        return self.order[self.begin[node] + _below(words, self.size[node])]


def _add(nodes: list[tuple[int, ...]], leaves: Sequence[tuple[Fraction, int, int]]) -> int:
    """Appends the tree of (weight, begin, size) to the nodes, its root last; returns its depth."""
    if len(leaves) == 1:
        _, begin, size = leaves[0]
        nodes.append((0, 1, len(nodes), len(nodes), begin, size))
        return 0
    middle = len(leaves) // 2
    total, on_the_left = (sum(weight * size for weight, _, size in part) for part in (leaves, leaves[:middle]))
    share = Fraction(on_the_left, total).limit_denominator(_MAX_ROWS)
    depth_left = _add(nodes, leaves[:middle])
    left = len(nodes) - 1
    depth_right = _add(nodes, leaves[middle:])
    nodes.append((share.numerator, share.denominator, left, len(nodes) - 1, 0, 1))
    return 1 + max(depth_left, depth_right)


def _fraction(number: float) -> Fraction:
    """The number as it is written: 0.1 is a tenth."""
    return Fraction(str(float(number)))


def _share_of(count: Any, share: Any, whole: Any) -> Any:
    """``floor(count * share / whole)`` in integers below 2**63, for share <= whole < 2**31."""
    return count // whole * share + count % whole * share // whole


def _below(words: torch.Tensor, size: torch.Tensor) -> torch.Tensor:
    """int64 ``[b]`` in [0, size): the upper word of the product of a 64-bit fraction ``[b, 2]`` and the size."""
    return (words[:, 0] * size + (words[:, 1] * size >> 32)) >> 32
