"""Batches from frames and tables that lie on the device as a whole: sampled and gathered there, no work for the host.

Every frame that a transition names is on the device once, as raw pixels, in half of that as YUV 4:2:0 planes, or in a
tenth as JPEG; the next observation of a transition is the frame of another one. A batch names its frames by their
places (:class:`ptr_fast.types.PooledFrames`); they are read when they are augmented. JPEG frames are decoded when the
batch is made, into a pool of the batch's own.
"""

from __future__ import annotations

import time
from collections.abc import Collection, Mapping, Sequence
from typing import Any, Literal, Protocol

import numpy as np
import torch

from ptr_fast.data.columns import SCALARS, TransitionTable, check_sources
from ptr_fast.data.frames import FrameSource, FrameSourceInfo
from ptr_fast.data.packed_frames import packed_frames
from ptr_fast.kernels.augment import augment, yuv420
from ptr_fast.kernels.jpeg_frames import JpegPool, decode_frames
from ptr_fast.types import FRAMES, TRANSITION, Batch, PooledFrames, Window

__all__ = ["DeviceFrames", "num_frames_of", "used_records"]

_LOAD_BYTES = 16 << 20  # moved to the device at a time; encoding takes twelve times as much there


class RowSampler(Protocol):
    """Which transitions make up the batch of a step (:class:`ptr_fast.data.sampler.MixtureSampler`)."""

    def rows(self, step: int | torch.Tensor, device: torch.device | str = "cpu") -> torch.Tensor:
        """int64 ``[b]`` rows of all tables laid end to end."""
        ...


def used_records(
    transitions: Sequence[TransitionTable], stores: Sequence[object], columns: Collection[str] = TRANSITION
) -> list[np.ndarray]:
    """Per table the sorted records that it or another table of the same store names: those that have to be there.

    Of an episode they follow each other without a gap, from its first one on.
    """
    used: dict[int, np.ndarray] = {}
    for table, store in zip(transitions, stores, strict=True):
        named = [used.get(id(store), np.empty(0, np.int64)), table.record, table.last_record]
        if any(name.startswith("next_") for name in columns):
            named.append(table.next_record)
        used[id(store)] = np.unique(np.concatenate(named))
    return [used[id(store)] for store in stores]


def num_frames_of(
    transitions: Sequence[TransitionTable], stores: Sequence[object], columns: Collection[str] = TRANSITION
) -> int:
    """Frames of each camera that :class:`DeviceFrames` would hold."""
    records = dict(zip(map(id, stores), used_records(transitions, stores, columns), strict=True))
    return sum(map(len, records.values()))


class DeviceFrames:
    """Gives the batch of each step, bit by bit :class:`ptr_fast.data.loader.Loader`'s, without leaving the device.

    With ``layout="yuv420"`` the frames are those that :mod:`ptr_fast.kernels.augment.yuv420` keeps, in half the memory;
    with ``layout="jpeg"`` they are packed JPEG files (:mod:`ptr_fast.kernels.jpeg_frames`) with the loader's pixels.

    Args:
        transitions: one table per source, as the sampler numbers them.
        frames: frame sources of each table's store by camera, in the same order; read once. One mapping for all tables
            of a store; an empty one where no frames are asked for.
        sampler: see :class:`RowSampler`.
        device: where everything lies.
        why: why the frames lie there, for :meth:`describe`.
        layout: ``rgb``, ``yuv420`` (frames of even height and width) or ``jpeg`` (of stores of ``jpeg-restart``).
        columns: names of the columns that the batches have.
        window: observations and actions of a sample.

    Attributes:
        on_device: True: :meth:`batch` can be part of a captured step.
        wait_seconds: 0.
        num_frames, num_bytes: frames held of all cameras, and memory of frames and tables.
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
        frames: Sequence[Mapping[str, FrameSource]],
        sampler: RowSampler,
        device: torch.device | str = "cpu",
        why: str = "asked for",
        layout: Literal["rgb", "yuv420", "jpeg"] = "rgb",
        columns: Collection[str] = TRANSITION,
        window: Window = Window(),
    ) -> None:
        sizes = check_sources(transitions, frames)
        begin = time.perf_counter()
        self._sampler, self._device, self._why, self._layout = sampler, torch.device(device), why, layout
        self._columns, self._window = frozenset(columns), window
        used = used_records(transitions, frames, columns)
        num_records = num_frames_of(transitions, frames, columns)
        self.num_frames = num_records * len(sizes)
        self._pools: dict[str, torch.Tensor | JpegPool] = {}
        if layout == "jpeg":
            self._pools |= {camera: packed_frames(camera, frames, used, self._device) for camera in sizes}
        else:
            self._pools |= {camera: self._empty_pool(num_records, *size) for camera, size in sizes.items()}
        states, actions = (
            np.empty((num_records, values.shape[1]), np.float32)
            for values in (transitions[0].state, transitions[0].action)
        )
        places: dict[str, list[np.ndarray]] = {name: [] for name in self._place_names()}
        begins: dict[int, int] = {}  # of a store's records among those that are held
        end = 0
        for table, sources, records in zip(transitions, frames, used, strict=True):
            if id(sources) not in begins:
                begins[id(sources)], end = end, end + len(records)
                mine = slice(end - len(records), end)
                for camera, source in sources.items():
                    pool = self._pools[camera]
                    if isinstance(pool, torch.Tensor):
                        _load(source, records, pool[mine])
                states[mine], actions[mine] = table.state[records], table.action[records]
            for name, found in places.items():
                found.append(begins[id(sources)] + np.searchsorted(records, getattr(table, name)))
        self._state, self._action = self._to_device(states), self._to_device(actions)
        self._places = {name: self._to_device(np.concatenate(found)) for name, found in places.items()}
        self._scalars = {
            name: self._to_device(np.concatenate([getattr(table, name) for table in transitions]))
            for name in SCALARS
            if name in self._columns
        }
        tables = (self._state, self._action, *self._places.values(), *self._scalars.values())
        self.num_bytes = sum(t.nbytes for t in (*self._pools.values(), *tables))
        self.load_seconds = time.perf_counter() - begin

    def _empty_pool(self, num_records: int, height: int, width: int) -> torch.Tensor:
        shape = (height, width, 3) if self._layout == "rgb" else (height // 2 * 3, width)
        return torch.empty((num_records, *shape), dtype=torch.uint8, device=self._device)

    def _place_names(self) -> list[str]:
        """The records of a transition whose places are needed."""
        names = ["record"]
        if any(name.startswith("next_") for name in self._columns):
            names.append("next_record")
        if self._window.num_observations > 1 or "observation_mask" in self._columns:
            names.append("first_record")
        if self._window.num_actions > 1 or "action_mask" in self._columns:
            names.append("last_record")
        return names

    def _to_device(self, values: np.ndarray) -> torch.Tensor:
        return torch.from_numpy(np.ascontiguousarray(values)).to(self._device)

    @torch.no_grad()
    def batch(self, step: int | torch.Tensor) -> Batch:
        """The batch of a step: a number, or a 0-d int64 tensor on the device, of which nothing is read back."""
        rows, wanted, window = self._sampler.rows(step, self._device), self._columns, self._window
        place = {name: places.index_select(0, rows) for name, places in self._places.items()}
        columns: dict[str, Any] = {name: values.index_select(0, rows) for name, values in self._scalars.items()}
        for images, state, record in (("images", "state", "record"), ("next_images", "next_state", "next_record")):
            if images not in wanted and state not in wanted:
                continue
            now_B, past_BT = place[record], None
            if window.num_observations > 1:
                ages = torch.arange(1 - window.num_observations, 1, device=self._device)
                past_BT = torch.maximum(now_B.unsqueeze(1) + ages, place["first_record"].unsqueeze(1))
            if images in wanted:
                index_BT = now_B.unsqueeze(1) if past_BT is None else past_BT
                columns[images] = {camera: _pooled(pool, index_BT) for camera, pool in self._pools.items()}
            if state in wanted:
                columns[state] = _rows(self._state, now_B, past_BT)
        now_B, ahead_BH = place["record"], None
        if "observation_mask" in wanted:
            ages = torch.arange(window.num_observations - 1, -1, -1, device=self._device)
            columns["observation_mask"] = (now_B - place["first_record"]).unsqueeze(1) >= ages
        if "last_record" in place:
            steps_BH = now_B.unsqueeze(1) + torch.arange(window.num_actions, device=self._device)
            ahead_BH = torch.minimum(steps_BH, place["last_record"].unsqueeze(1))
            if "action_mask" in wanted:
                columns["action_mask"] = steps_BH == ahead_BH
        if "actions" in wanted:
            columns["actions"] = _rows(self._action, now_B, ahead_BH)
        return Batch(**columns)

    def describe(self) -> FrameSourceInfo:
        """What lies there, and how fast it becomes a net's input; measures for a few hundredths of a second."""
        self._make(0)  # compiles and loads what a batch needs before the clock runs
        num_rounds, num_frames = 0, 0
        begin = time.perf_counter()
        while num_rounds == 0 or time.perf_counter() - begin < 0.05:
            num_rounds, num_frames = num_rounds + 1, num_frames + self._make(num_rounds)
        return FrameSourceInfo(
            tier="device" if self._layout == "rgb" else f"device-{self._layout}",
            why=self._why,
            num_frames=self.num_frames,
            num_bytes=self.num_bytes,
            frames_per_second=num_frames / (time.perf_counter() - begin),
            load_seconds=self.load_seconds,
        )

    def _make(self, step: int) -> int:
        """Waits for the batch of a step and its frames as a net's input; returns the number of frames."""
        batch, num_frames = self.batch(step), 0
        for name in FRAMES:
            for frames in (getattr(batch, name) or {}).values():
                augment(frames.pool, None, index_B=frames.index.flatten())
                num_frames += frames.index.numel()
        if self._device.type == "cuda":
            torch.cuda.synchronize(self._device)
        return num_frames

    def close(self) -> None:
        """Nothing to end."""


def _pooled(pool: torch.Tensor | JpegPool, index_BT: torch.Tensor) -> PooledFrames:
    """Frames of a pool; of packed ones decoded, in the order in which they are named."""
    if isinstance(pool, torch.Tensor):
        return PooledFrames(pool, index_BT)
    decoded = decode_frames(pool, index_BT.reshape(-1))
    return PooledFrames(decoded, torch.arange(len(decoded), device=pool.device).view(index_BT.shape))


def _rows(values: torch.Tensor, now_B: torch.Tensor, window_BN: torch.Tensor | None) -> torch.Tensor:
    """Rows of a table at the places of a window, ``[B, N, D]``; without one of a single place each, ``[B, 1, D]``."""
    if window_BN is None:
        return values.index_select(0, now_B).unsqueeze(1)
    return values.index_select(0, window_BN.view(-1)).view(*window_BN.shape, values.shape[1])


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
