"""Batches, prepared ahead of the step that needs them by one background thread."""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Collection, Mapping, Sequence
from typing import Any, Protocol

import numpy as np
import torch

from ptr_fast.data.columns import (
    TransitionTable,
    check_sources,
    empty_columns,
    fill_columns,
    past_records,
    split_by_source,
)
from ptr_fast.data.frames import FrameSource
from ptr_fast.types import FRAMES, TRANSITION, Batch, Window

__all__ = ["Loader", "Sampler"]


class Sampler(Protocol):
    """Which transitions make up the batch of a step: a pure function of the step."""

    def indices(self, step: int) -> tuple[np.ndarray, np.ndarray]:
        """int64 ``[b]`` position of the source and int64 ``[b]`` transition inside it."""
        ...


class _Slot:
    """One set of batch buffers: host tensors (pinned for a GPU) and their numpy views, frames of all observations in
    one row."""

    def __init__(self, batch: Batch) -> None:
        self.batch = batch
        self.arrays = {name: value.numpy() for name, value in batch.columns().items() if name not in FRAMES}
        self.frames = {
            name: {camera: frames.flatten(0, 1).numpy() for camera, frames in getattr(batch, name).items()}
            for name in FRAMES
            if getattr(batch, name) is not None
        }
        self.copied: Any = None  # CUDA event: the copy to the device has read the buffers


class Loader:
    """Gives the batch of each step; while a step computes, the batches of the next ones are prepared in order.

    A batch is a pure function of (sampler, step): the order in which steps are asked for, the number of threads and
    ``prefetch`` change no bit of it.

    The host buffers are a ring of ``prefetch + 1`` sets, filled again and again. On the CPU the tensors of a batch are
    these buffers: they hold until the next call of :meth:`batch`; whoever wants to keep them clones them. On a GPU
    :meth:`batch` gives fresh device tensors, copied from pinned buffers on the current stream.

    Args:
        transitions: one table per source, as the sampler numbers them.
        frames: frame sources of each table's store by camera, in the same order; none are needed where no frames are
            asked for.
        sampler: see :class:`Sampler`.
        device: where the batches go.
        prefetch: batches prepared ahead, at least 1.
        columns: names of the columns that the batches have.
        window: observations and actions of a sample.

    Attributes:
        wait_seconds: time that :meth:`batch` has waited for a batch, summed since the start.
        on_device: False: the host makes the batches.

    Raises:
        ValueError: sources that do not fit together.
    """

    on_device = False

    def __init__(
        self,
        transitions: Sequence[TransitionTable],
        frames: Sequence[Mapping[str, FrameSource]],
        sampler: Sampler,
        device: torch.device | str = "cpu",
        prefetch: int = 2,
        columns: Collection[str] = TRANSITION,
        window: Window = Window(),
    ) -> None:
        if prefetch < 1:
            raise ValueError(f"prefetch must be at least 1, got {prefetch}")
        sizes = check_sources(transitions, frames)
        self._columns, self._window = frozenset(columns), window
        self._tables, self._frames, self._sampler = list(transitions), list(frames), sampler
        self._device = torch.device(device)
        size, pinned = len(sampler.indices(0)[0]), self._device.type == "cuda"
        self.wait_seconds = 0.0
        self._changed = threading.Condition()
        # All below is guarded by _changed.
        self._free = deque(
            _Slot(empty_columns(transitions[0], sizes, size, columns, window, pinned=pinned))
            for _ in range(prefetch + 1)
        )
        self._ready: deque[tuple[int, _Slot]] = deque()
        self._lent: _Slot | None = None
        self._next: int | None = None  # step that the thread takes up next; None: nothing to do
        self._due = 0  # step that follows the last one given out
        self._round = 0  # a batch of an earlier round is thrown away
        self._failure: tuple[int, BaseException] | None = None
        self._closed = False
        self._thread = threading.Thread(target=self._work, name="ptr-fast-loader", daemon=True)
        self._thread.start()

    def batch(self, step: int) -> Batch:
        """The batch of ``step``. Steps that follow each other come from the prepared ones; any other step starts over.

        Raises:
            RuntimeError: the loader is closed.
            DataError, ValueError: whatever made preparing this batch fail, raised here for this step.
        """
        with self._changed:
            if self._closed:
                raise RuntimeError("the loader is closed")
            if self._lent is not None:
                self._free.append(self._lent)
                self._lent = None
            if self._next is None or step != self._due:
                self._start_at(step)
            self._changed.notify_all()
            begin = time.perf_counter()
            while not self._ready and self._failure is None and not self._closed:
                self._changed.wait()
            self.wait_seconds += time.perf_counter() - begin
            if self._closed:
                raise RuntimeError("the loader was closed while a batch was waited for")
            if not self._ready:
                assert self._failure is not None
                error, self._next, self._failure = self._failure[1], None, None
                raise error
            ready_step, slot = self._ready.popleft()
            assert ready_step == step
            self._due = step + 1
            self._lent = slot
        return slot.batch if self._device.type == "cpu" else self._to_device(slot)

    def close(self) -> None:
        """Stops the thread and waits for it. Safe to call twice."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()
        if self._thread is not threading.current_thread():
            self._thread.join()

    def __enter__(self) -> Loader:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def _start_at(self, step: int) -> None:
        self._round += 1
        self._next = self._due = step
        self._failure = None
        while self._ready:
            self._free.append(self._ready.popleft()[1])

    def _to_device(self, slot: _Slot) -> Batch:
        batch = slot.batch.to(self._device)
        slot.copied = torch.cuda.Event()
        slot.copied.record(torch.cuda.current_stream(self._device))
        return batch

    def _work(self) -> None:
        while True:
            with self._changed:
                while not self._closed and (self._next is None or self._failure is not None or not self._free):
                    self._changed.wait()
                if self._closed:
                    return
                assert self._next is not None
                slot, step, current = self._free.popleft(), self._next, self._round
                self._next += 1
            failure: BaseException | None = None
            try:
                self._fill(slot, step)
            except BaseException as error:  # noqa: BLE001  (handed to the caller of batch())
                failure = error
            with self._changed:
                if current != self._round or failure is not None:
                    self._free.append(slot)
                    if failure is not None and current == self._round:
                        self._failure = (step, failure)
                else:
                    self._ready.append((step, slot))
                self._changed.notify_all()

    def _fill(self, slot: _Slot, step: int) -> None:
        if slot.copied is not None:
            slot.copied.synchronize()
            slot.copied = None
        sources, indices = self._sampler.indices(step)
        for table, frames, rows, index in split_by_source(self._tables, self._frames, sources, indices):
            records = past_records(table, index, self._columns, self._window)
            places = _rows_of_windows(rows, self._window.num_observations)
            for name, by_camera in slot.frames.items():
                for camera, out in by_camera.items():
                    frames[camera].gather(records[name].reshape(-1), out, places)
            fill_columns(table, index, rows, records, slot.arrays, self._window)


def _rows_of_windows(rows: np.ndarray, num_observations: int) -> np.ndarray:
    """Where the observations of rows of a batch lie among the observations of all rows."""
    if num_observations == 1:
        return rows
    return (rows[:, None] * num_observations + np.arange(num_observations)).reshape(-1)
