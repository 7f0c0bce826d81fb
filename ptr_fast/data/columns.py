"""The columns of a batch: their shapes, and how transitions fill them, with windows of observations and actions."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import Any, Protocol, TypeVar

import numpy as np
import torch

from ptr_fast.data.frames import FrameSource
from ptr_fast.types import FRAMES, Batch, Window

__all__ = [
    "TransitionTable",
    "check_sources",
    "empty_columns",
    "fill_columns",
    "past_records",
    "split_by_source",
]

Partner = TypeVar("Partner")
SCALARS = ("rewards", "masks", "returns", "critic_weight", "task_id")
"""Columns of a batch that are one number of a transition each."""


class TransitionTable(Protocol):
    """What the loader reads of :class:`ptr_fast.data.transitions.Transitions`."""

    record: np.ndarray
    next_record: np.ndarray
    first_record: np.ndarray
    last_record: np.ndarray
    state: np.ndarray
    action: np.ndarray
    rewards: np.ndarray
    masks: np.ndarray
    returns: np.ndarray | None
    critic_weight: np.ndarray | None
    task_id: np.ndarray


def check_sources(
    tables: Sequence[TransitionTable], frames: Sequence[Mapping[str, FrameSource]]
) -> dict[str, tuple[int, int]]:
    """Height and width of the frames of every camera, which all sources share.

    Raises:
        ValueError: sources that do not fit together.
    """
    if not tables or len(tables) != len(frames):
        raise ValueError(f"expected one mapping of frame sources per table, got {len(tables)} and {len(frames)}")
    dims = {(table.state.shape[1], table.action.shape[1]) for table in tables}
    if len(dims) != 1:
        raise ValueError(f"all sources need one (state dim, action dim), got {sorted(dims)}")
    sizes = [{camera: (source.height, source.width) for camera, source in mine.items()} for mine in frames]
    for mine in sizes:
        if mine != sizes[0]:
            raise ValueError(f"all sources need the same cameras of one (height, width), got {sizes[0]} and {mine}")
    return sizes[0]


def empty_columns(
    table: TransitionTable,
    sizes: Mapping[str, tuple[int, int]],
    num_batch: int,
    columns: Collection[str],
    window: Window,
    *,
    pinned: bool = False,
) -> Batch:
    """Host tensors of a batch, not filled.

    Args:
        table: gives the widths of states and actions.
        sizes: height and width of the frames of every camera.
        num_batch: B.
        columns, window: as of :class:`Loader`.
        pinned: for copies to a GPU.

    Raises:
        ValueError: a column that a batch does not have.
    """
    past, ahead = window.num_observations, window.num_actions
    states, frames = (past, table.state.shape[1]), {name: (past, *size, 3) for name, size in sizes.items()}
    forms: dict[str, tuple[Any, torch.dtype]] = {
        "images": (frames, torch.uint8),
        "next_images": (frames, torch.uint8),
        "state": (states, torch.float32),
        "next_state": (states, torch.float32),
        "task_id": ((), torch.int64),
        "observation_mask": ((past,), torch.bool),
        "actions": ((ahead, table.action.shape[1]), torch.float32),
        "action_mask": ((ahead,), torch.bool),
        "rewards": ((), torch.float32),
        "masks": ((), torch.float32),
        "returns": ((), torch.float32),
        "critic_weight": ((), torch.float32),
    }
    unknown = sorted(set(columns) - set(forms))
    if unknown:
        raise ValueError(f"columns: a batch has {list(forms)}, got {unknown}")

    def buffer(shape: tuple[int, ...], dtype: torch.dtype) -> torch.Tensor:
        return torch.empty((num_batch, *shape), dtype=dtype, pin_memory=pinned)

    buffers: dict[str, Any] = {
        name: {camera: buffer(size, dtype) for camera, size in shape.items()}
        if name in FRAMES
        else buffer(shape, dtype)
        for name, (shape, dtype) in forms.items()
        if name in columns
    }
    return Batch(**buffers)


def split_by_source(
    tables: Sequence[TransitionTable], partners: Sequence[Partner], sources: np.ndarray, indices: np.ndarray
) -> Iterator[tuple[TransitionTable, Partner, np.ndarray, np.ndarray]]:
    """Per source that takes part: its table, its partner, int64 rows of the batch and transitions of the table."""
    for number, (table, partner) in enumerate(zip(tables, partners, strict=True)):
        rows = np.flatnonzero(sources == number)
        if len(rows):
            yield table, partner, rows, indices[rows]


def past_records(
    table: TransitionTable, index: np.ndarray, columns: Collection[str], window: Window
) -> dict[str, np.ndarray]:
    """Records of the observations that transitions ``index`` are made of.

    Returns:
        By column (``images``, ``state`` and those of the next observation) int64 ``[n, T]``.
    """
    out: dict[str, np.ndarray] = {}
    for named, mine in ((table.record, ("images", "state")), (table.next_record, ("next_images", "next_state"))):
        if not any(name in columns for name in mine):
            continue
        records = named[index][:, None]
        if window.num_observations > 1:
            ages = np.arange(1 - window.num_observations, 1)
            records = np.maximum(records + ages, table.first_record[index][:, None])
        out |= dict.fromkeys(mine, records)
    return out


def fill_columns(
    table: TransitionTable,
    index: np.ndarray,
    rows: np.ndarray,
    records: Mapping[str, np.ndarray],
    out: Mapping[str, np.ndarray],
    window: Window,
) -> None:
    """Writes all of a batch but its frames: transitions ``index`` of the table into ``rows`` of each array by name.

    Args:
        records: of their observations, see :func:`past_records`.
    """
    for name, values in out.items():
        if name in ("state", "next_state"):
            values[rows] = table.state.take(records[name], axis=0)
        elif name in SCALARS:
            values[rows] = getattr(table, name)[index]
    if "observation_mask" in out:
        steps_before = (table.record[index] - table.first_record[index])[:, None]
        out["observation_mask"][rows] = steps_before >= np.arange(window.num_observations - 1, -1, -1)
    if "action_mask" in out or window.num_actions > 1:
        ahead, last = table.record[index][:, None] + np.arange(window.num_actions), table.last_record[index][:, None]
        if "action_mask" in out:
            out["action_mask"][rows] = ahead <= last
        if "actions" in out:
            out["actions"][rows] = table.action.take(np.minimum(ahead, last), axis=0)
    elif "actions" in out:
        out["actions"][rows] = table.action.take(table.record[index][:, None], axis=0)
