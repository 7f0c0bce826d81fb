"""Batches, prepared ahead of the step that needs them by one background thread."""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import fields
from typing import Any, Protocol, TypeVar

import numpy as np
import torch

from ptr_fast.data.frames import FrameSource
from ptr_fast.types import Batch

__all__ = ["Loader", "Sampler", "TransitionTable", "fill_columns", "split_by_source"]

Partner = TypeVar("Partner")


class Sampler(Protocol):
    """Which transitions make up the batch of a step: a pure function of the step."""

    def indices(self, step: int) -> tuple[np.ndarray, np.ndarray]:
        """int64 ``[b]`` position of the source and int64 ``[b]`` transition inside it."""
        ...


class TransitionTable(Protocol):
    """What the loader reads of :class:`ptr_fast.data.transitions.Transitions`."""

    record: np.ndarray
    next_record: np.ndarray
    state: np.ndarray
    actions: np.ndarray
    rewards: np.ndarray
    masks: np.ndarray
    task_id: np.ndarray


class _Slot:
    """One set of batch buffers: host tensors (pinned for a GPU) and their numpy views."""

    def __init__(self, size: int, height: int, width: int, state_dim: int, action_dim: int, *, pinned: bool) -> None:
        def buffer(*shape: int, dtype: torch.dtype = torch.float32) -> torch.Tensor:
            return torch.empty((size, *shape), dtype=dtype, pin_memory=pinned)

        self.batch = Batch(
            images=buffer(height, width, 3, dtype=torch.uint8),
            next_images=buffer(height, width, 3, dtype=torch.uint8),
            state=buffer(state_dim),
            next_state=buffer(state_dim),
            task_id=buffer(dtype=torch.int64),
            actions=buffer(action_dim),
            rewards=buffer(),
            masks=buffer(),
        )
        self.arrays = {field.name: getattr(self.batch, field.name).numpy() for field in fields(Batch)}
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
        frames: frame source of each table's store, in the same order.
        sampler: see :class:`Sampler`.
        device: where the batches go.
        prefetch: batches prepared ahead, at least 1.

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
        frames: Sequence[FrameSource],
        sampler: Sampler,
        device: torch.device | str = "cpu",
        prefetch: int = 2,
    ) -> None:
        if not transitions or len(transitions) != len(frames):
            raise ValueError(f"expected one frame source per table, got {len(transitions)} and {len(frames)}")
        if prefetch < 1:
            raise ValueError(f"prefetch must be at least 1, got {prefetch}")
        shapes = {
            (source.height, source.width, table.state.shape[1], table.actions.shape[1])
            for table, source in zip(transitions, frames, strict=True)
        }
        if len(shapes) != 1:
            raise ValueError(f"all sources need one (height, width, state dim, action dim), got {sorted(shapes)}")
        shape = shapes.pop()
        self._tables, self._frames, self._sampler = list(transitions), list(frames), sampler
        self._device = torch.device(device)
        size, pinned = len(sampler.indices(0)[0]), self._device.type == "cuda"
        self.wait_seconds = 0.0
        self._changed = threading.Condition()
        # All below is guarded by _changed.
        self._free = deque(_Slot(size, *shape, pinned=pinned) for _ in range(prefetch + 1))
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
        out = slot.arrays
        for table, frames, rows, index in split_by_source(self._tables, self._frames, sources, indices):
            frames.gather(table.record[index], out["images"], rows)
            frames.gather(table.next_record[index], out["next_images"], rows)
            fill_columns(table, index, rows, out)


def split_by_source(
    tables: Sequence[TransitionTable], partners: Sequence[Partner], sources: np.ndarray, indices: np.ndarray
) -> Iterator[tuple[TransitionTable, Partner, np.ndarray, np.ndarray]]:
    """Per source that takes part: its table, its partner, int64 rows of the batch and transitions of the table."""
    for number, (table, partner) in enumerate(zip(tables, partners, strict=True)):
        rows = np.flatnonzero(sources == number)
        if len(rows):
            yield table, partner, rows, indices[rows]


def fill_columns(table: TransitionTable, index: np.ndarray, rows: np.ndarray, out: Mapping[str, np.ndarray]) -> None:
    """Writes all of a batch but its frames: transitions ``index`` of the table into ``rows`` of each array by name."""
    record, next_record = table.record[index], table.next_record[index]
    out["state"][rows], out["next_state"][rows] = table.state[record], table.state[next_record]
    for name in ("actions", "rewards", "masks", "task_id"):
        out[name][rows] = getattr(table, name)[index]
