"""Batches from frames and tables that lie on the device as a whole: sampled and gathered there, no work for the host.

Every frame that a transition names is on the device once, as raw pixels or, in half of that, as YUV 4:2:0 planes; the
next observation of a transition is the frame of another one. A batch names its frames by their places
(:class:`ptr_fast.types.PooledFrames`); they are read when they are augmented.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Literal, Protocol

import numpy as np
import torch

from ptr_fast.data.frames import FrameSource, FrameSourceInfo
from ptr_fast.data.loader import TransitionTable
from ptr_fast.kernels.augment import augment, yuv420
from ptr_fast.types import Batch, PooledFrames

__all__ = ["DeviceFrames", "num_frames_of", "used_records"]

_LOAD_BYTES = 16 << 20  # moved to the device at a time; encoding takes twelve times as much there
_COLUMNS = ("actions", "rewards", "masks", "task_id")


class RowSampler(Protocol):
    """Which transitions make up the batch of a step (:class:`ptr_fast.data.sampler.MixtureSampler`)."""

    def rows(self, step: int | torch.Tensor, device: torch.device | str = "cpu") -> torch.Tensor:
        """int64 ``[b]`` rows of all tables laid end to end."""
        ...


def used_records(transitions: Sequence[TransitionTable], stores: Sequence[object]) -> list[np.ndarray]:
    """Per table the sorted records that it or another table of the same store names: those that have to be there."""
    used: dict[int, np.ndarray] = {}
    for table, store in zip(transitions, stores, strict=True):
        named = [used.get(id(store), np.empty(0, np.int64)), table.record, table.next_record]
        used[id(store)] = np.unique(np.concatenate(named))
    return [used[id(store)] for store in stores]


def num_frames_of(transitions: Sequence[TransitionTable], stores: Sequence[object]) -> int:
    """Frames that :class:`DeviceFrames` would hold."""
    records = dict(zip(map(id, stores), used_records(transitions, stores), strict=True))
    return sum(map(len, records.values()))


class DeviceFrames:
    """Gives the batch of each step, bit by bit :class:`ptr_fast.data.loader.Loader`'s, without leaving the device.

    With ``layout="yuv420"`` the frames are those that :mod:`ptr_fast.kernels.augment.yuv420` keeps, in half the memory.

    Args:
        transitions: one table per source, as the sampler numbers them.
        frames: frame source of each table's store, in the same order; read once. One object for tables of one store.
        sampler: see :class:`RowSampler`.
        device: where everything lies.
        why: why the frames lie there, for :meth:`describe`.
        layout: ``rgb`` or ``yuv420`` (frames of even height and width).

    Attributes:
        on_device: True: :meth:`batch` can be part of a captured step.
        wait_seconds: 0.
        num_frames, num_bytes: frames held, and memory of frames and tables.
        load_seconds: time that loading took.

    Raises:
        ValueError: sources that do not fit together.
        DataError: a frame cannot be decoded.
        torch.OutOfMemoryError: it does not fit.
    """

    on_device = True
    wait_seconds = 0.0

    def __init__(
        self,
        transitions: Sequence[TransitionTable],
        frames: Sequence[FrameSource],
        sampler: RowSampler,
        device: torch.device | str = "cpu",
        why: str = "asked for",
        layout: Literal["rgb", "yuv420"] = "rgb",
    ) -> None:
        if not transitions or len(transitions) != len(frames):
            raise ValueError(f"expected one frame source per table, got {len(transitions)} and {len(frames)}")
        shapes = {
            (source.height, source.width, table.state.shape[1], table.actions.shape[1])
            for table, source in zip(transitions, frames, strict=True)
        }
        if len(shapes) != 1:
            raise ValueError(f"all sources need one (height, width, state dim, action dim), got {sorted(shapes)}")
        begin = time.perf_counter()
        height, width, _, _ = shapes.pop()
        self._sampler, self._device, self._why, self._layout = sampler, torch.device(device), why, layout
        used = used_records(transitions, frames)
        self.num_frames = num_frames_of(transitions, frames)
        frame_shape = (height, width, 3) if layout == "rgb" else (height // 2 * 3, width)
        self._pool = torch.empty((self.num_frames, *frame_shape), dtype=torch.uint8, device=self._device)
        states = np.empty((self.num_frames, transitions[0].state.shape[1]), np.float32)
        places: list[np.ndarray] = []
        next_places: list[np.ndarray] = []
        begins: dict[int, int] = {}  # of a source's frames in the pool
        end = 0
        for table, source, records in zip(transitions, frames, used, strict=True):
            if id(source) not in begins:
                begins[id(source)], end = end, end + len(records)
                _load(source, records, self._pool[end - len(records) : end])
                states[end - len(records) : end] = table.state[records]
            places.append(begins[id(source)] + np.searchsorted(records, table.record))
            next_places.append(begins[id(source)] + np.searchsorted(records, table.next_record))
        self._state = self._to_device(states)
        self._place, self._next_place = (self._to_device(np.concatenate(p)) for p in (places, next_places))
        self._columns = {
            name: self._to_device(np.concatenate([getattr(table, name) for table in transitions])) for name in _COLUMNS
        }
        tables = (self._state, self._place, self._next_place, *self._columns.values())
        self.num_bytes = self._pool.nbytes + sum(t.nbytes for t in tables)
        self.load_seconds = time.perf_counter() - begin

    def _to_device(self, values: np.ndarray) -> torch.Tensor:
        return torch.from_numpy(np.ascontiguousarray(values)).to(self._device)

    @torch.no_grad()
    def batch(self, step: int | torch.Tensor) -> Batch:
        """The batch of a step: a number, or a 0-d int64 tensor on the device, of which nothing is read back."""
        rows = self._sampler.rows(step, self._device)
        place, next_place = self._place.index_select(0, rows), self._next_place.index_select(0, rows)
        return Batch(
            images=PooledFrames(self._pool, place),
            next_images=PooledFrames(self._pool, next_place),
            state=self._state.index_select(0, place),
            next_state=self._state.index_select(0, next_place),
            **{name: values.index_select(0, rows) for name, values in self._columns.items()},
        )

    def describe(self) -> FrameSourceInfo:
        """What lies there, and how fast it becomes a net's input; measures for a few hundredths of a second."""
        self._make(0)  # compiles and loads what a batch needs before the clock runs
        num_rounds, num_samples = 0, 0
        begin = time.perf_counter()
        while num_rounds == 0 or time.perf_counter() - begin < 0.05:
            num_rounds, num_samples = num_rounds + 1, num_samples + self._make(num_rounds)
        return FrameSourceInfo(
            tier="device" if self._layout == "rgb" else "device-yuv420",
            why=self._why,
            num_frames=self.num_frames,
            num_bytes=self.num_bytes,
            frames_per_second=2 * num_samples / (time.perf_counter() - begin),
            load_seconds=self.load_seconds,
        )

    def _make(self, step: int) -> int:
        """Waits for the batch of a step and its frames as a net's input; returns the number of samples."""
        batch = self.batch(step)
        for frames in (batch.images, batch.next_images):
            assert isinstance(frames, PooledFrames)
            augment(frames.pool, None, index_B=frames.index)
        if self._device.type == "cuda":
            torch.cuda.synchronize(self._device)
        return len(batch)

    def close(self) -> None:
        """Nothing to end."""


def _load(source: FrameSource, records: np.ndarray, out: torch.Tensor) -> None:
    """Moves frames to the device through one buffer (pinned for a GPU), as planes where ``out`` is of planes."""
    size = max(1, _LOAD_BYTES // (source.height * source.width * 3))
    on_gpu = out.device.type == "cuda"
    shape = (min(size, len(records)), source.height, source.width, 3)
    buffer = torch.empty(shape, dtype=torch.uint8, pin_memory=on_gpu)
    for first in range(0, len(records), size):
        chunk = records[first : first + size]
        source.gather(chunk, buffer.numpy())
        pixels = buffer[: len(chunk)].to(out.device)
        out[first : first + len(chunk)] = pixels if out.dim() == 4 else yuv420.encode(pixels)
