"""Batches whose frames DALI decodes, for JPEG stores too large to be kept decoded; on a GPU the pixels stay there.

Whole batches of encoded bytes go from the store's memory map into one persistent pipeline. It works ahead on its own
threads and, with the ``mixed`` decoder, on its own stream, while the step computes.
"""

from __future__ import annotations

import importlib.util
import time
from collections import deque
from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch

from ptr_fast.data.columns import (
    TransitionTable,
    empty_columns,
    fill_columns,
    past_records,
    split_by_source,
)
from ptr_fast.data.decode import SimpleJpegDecoder, jpeg_pipeline
from ptr_fast.data.loader import Sampler
from ptr_fast.data.store import EpisodeStore
from ptr_fast.errors import DataError
from ptr_fast.types import FRAMES, TRANSITION, Batch, Window

__all__ = ["DaliLoader", "why_not_dali"]


def why_not_dali(stores: Sequence[EpisodeStore], cameras: Sequence[str]) -> str | None:
    """None where :class:`DaliLoader` can read these stores, else why not."""
    if importlib.util.find_spec("nvidia") is None or importlib.util.find_spec("nvidia.dali") is None:
        return "DALI is not installed: pip install 'ptr-fast[dali]'"
    for store in stores:
        for camera in cameras:
            if not store.meta.camera(camera).is_jpeg:
                return f"{store.path} holds raw frames of camera {camera!r}, there is nothing to decode"
    return None


Place = tuple[EpisodeStore, int]  # store and record of a frame


@dataclass(frozen=True)
class _Ahead:
    """A step that the pipeline works on: its number, its batch without frames, the place of every frame."""

    step: int
    batch: Batch
    places: list[Place]


class DaliLoader:
    """Gives the batch of each step, like :class:`ptr_fast.data.loader.Loader`, from a DALI pipeline.

    Args:
        transitions: one table per source, as the sampler numbers them.
        stores: the JPEG store of each table.
        cameras: names of the cameras, each of one size in all stores.
        sampler: which transitions make up a step.
        device: where the batches go; a GPU decodes there, a CPU decodes on ``num_threads`` threads.
        prefetch: batches that the pipeline works on ahead, at least 1.
        num_threads: CPU threads of the pipeline.
        columns: names of the columns that the batches have; some of them hold frames.
        window: observations and actions of a sample.

    Attributes:
        wait_seconds: time that :meth:`batch` has waited for the pipeline, summed since the start.
        on_device: False: the host makes the batches.

    Raises:
        ValueError: sources that do not fit together.
        RuntimeError: DALI cannot read these stores (:func:`why_not_dali`).
    """

    on_device = False

    def __init__(
        self,
        transitions: Sequence[TransitionTable],
        stores: Sequence[EpisodeStore],
        cameras: Sequence[str],
        sampler: Sampler,
        device: torch.device | str = "cpu",
        prefetch: int = 2,
        num_threads: int = 2,
        columns: Collection[str] = TRANSITION,
        window: Window = Window(),
    ) -> None:
        if not transitions or len(transitions) != len(stores):
            raise ValueError(f"expected one store per table, got {len(transitions)} and {len(stores)}")
        if prefetch < 1:
            raise ValueError(f"prefetch must be at least 1, got {prefetch}")
        reason = why_not_dali(stores, cameras)
        if reason:
            raise RuntimeError(reason)
        self._sizes = {camera: _size(stores, camera) for camera in cameras}
        self._tables, self._stores = list(transitions), list(stores)
        self._frames = [name for name in FRAMES if name in columns]
        self._columns, self._window = frozenset(columns), window
        self._sampler, self._device = sampler, torch.device(device)
        self._prefetch, self._threads = prefetch, num_threads
        self._size = len(sampler.indices(0)[0])
        self.wait_seconds = 0.0
        self._ahead: deque[_Ahead] = deque()
        self._pipeline = self._build()

    def batch(self, step: int) -> Batch:
        """The batch of ``step``. Steps that follow each other come from the pipeline's work ahead; others start over.

        Raises:
            RuntimeError: the loader is closed.
            DataError: a frame of this step cannot be decoded; the message names store, camera and record.
        """
        if self._pipeline is None:
            raise RuntimeError("the loader is closed")
        if self._ahead and self._ahead[0].step != step:
            self._start_over()
        # The first run of a pipeline takes as many batches as its queue is deep; every later run takes one.
        for later in range(len(self._ahead), 1 + self._prefetch):
            self._feed(step + later)
        self._pipeline.schedule_run()
        head = self._ahead.popleft()
        begin = time.perf_counter()
        try:
            decoded = self._pipeline.share_outputs()
        except RuntimeError as error:
            self._start_over()  # a pipeline that has failed stays failed
            raise self._find_damage(head, error) from error
        self.wait_seconds += time.perf_counter() - begin
        try:
            pixels = {c: self._pixels(mine, c, head) for c, mine in zip(self._sizes, decoded, strict=True)}
        finally:
            self._pipeline.release_outputs()
        batch = head.batch
        if self._device.type == "cuda":
            batch = batch.map(lambda value: value.pin_memory()).to(self._device)
        shape = (len(self._frames), self._size, self._window.num_observations)
        by_camera = {camera: mine.unflatten(0, shape) for camera, mine in pixels.items()}
        frames: dict[str, Any] = {
            name: {c: mine[i] for c, mine in by_camera.items()} for i, name in enumerate(self._frames)
        }
        return replace(batch, **frames)

    def close(self) -> None:
        """Lets go of the pipeline. Safe to call twice."""
        self._ahead.clear()
        self._pipeline = None

    def __enter__(self) -> DaliLoader:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def _build(self) -> Any:
        pipeline = jpeg_pipeline(
            [f"encoded {number}" for number in range(len(self._sizes))],
            self._device,
            len(self._frames) * self._size * self._window.num_observations,
            self._threads,
            prefetch_queue_depth=self._prefetch + 1,
        )
        pipeline.build()
        return pipeline

    def _start_over(self) -> None:
        self._ahead.clear()
        self._pipeline = self._build()

    def _feed(self, step: int) -> None:
        """Puts the encoded frames of a step into the pipeline's input queue."""
        sources, indices = self._sampler.indices(step)
        batch = empty_columns(self._tables[0], {}, self._size, self._columns - set(FRAMES), self._window)
        columns = {name: value.numpy() for name, value in batch.columns().items()}
        records = np.empty((len(self._frames), self._size, self._window.num_observations), np.int64)
        for table, _, rows, index in split_by_source(self._tables, self._stores, sources, indices):
            past = past_records(table, index, self._columns, self._window)
            fill_columns(table, index, rows, past, columns, self._window)
            for mine, name in zip(records, self._frames, strict=True):
                mine[rows] = past[name]
        numbers = np.broadcast_to(sources[:, None], records.shape).reshape(-1)
        places = [(self._stores[n], r) for n, r in zip(numbers.tolist(), records.reshape(-1).tolist(), strict=True)]
        for number, camera in enumerate(self._sizes):
            frames = [np.frombuffer(store.frame_bytes(camera, record), np.uint8) for store, record in places]
            self._pipeline.feed_input(f"encoded {number}", frames)
        self._ahead.append(_Ahead(step, batch, places))

    def _pixels(self, decoded: Any, camera: str, head: _Ahead) -> torch.Tensor:
        height, width = self._sizes[camera]
        for place, shape in zip(head.places, decoded.shape(), strict=True):
            if tuple(shape) != (height, width, 3):
                got = f"{shape[0]}x{shape[1]}"
                raise _error(place, camera, f"expected {height}x{width} pixels, got {got}")
        # The pipeline writes its buffer again as soon as it is released: copy.
        if self._device.type == "cuda":
            copy = torch.from_dlpack(decoded.as_tensor()).clone()
            # DALI does not know of a copy on our stream: the buffer may only be released when it is done.
            torch.cuda.current_stream(self._device).synchronize()
            return copy
        return torch.from_numpy(np.array(decoded.as_tensor()))

    def _find_damage(self, head: _Ahead, error: RuntimeError) -> Exception:
        """DALI fails as a batch; the culprit is the first frame that libjpeg-turbo refuses too."""
        for camera, size in self._sizes.items():
            decoder = SimpleJpegDecoder(*size)
            for store, record in head.places:
                try:
                    decoder.decode([store.frame_bytes(camera, record)])
                except DataError as cause:
                    return _error((store, record), camera, str(cause).partition(": ")[2])
        return RuntimeError(f"DALI failed at step {head.step}, though every frame decodes with libjpeg-turbo: {error}")


def _size(stores: Sequence[EpisodeStore], camera: str) -> tuple[int, int]:
    sizes = {(store.meta.camera(camera).height, store.meta.camera(camera).width) for store in stores}
    if len(sizes) != 1:
        raise ValueError(f"camera {camera!r}: all stores need one (height, width), got {sorted(sizes)}")
    return sizes.pop()


def _error(place: Place, camera: str, detail: str) -> DataError:
    store, record = place
    return DataError(f"{store.path}: camera {camera!r}, record {record}: {detail}")
