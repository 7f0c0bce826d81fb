"""Where the pixels of a batch come from: memory, the store's memory map, or JPEG files decoded on the way.

:func:`open_frames` chooses. Raw frames are copied straight out of the memory map (the page cache is the memory, shared
by all processes, and opening costs nothing). JPEG frames are decoded once where they fit the memory budget; otherwise
each gather decodes what it needs.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from ptr_fast import native
from ptr_fast.data.decode import SimpleJpegDecoder
from ptr_fast.data.store import EpisodeStore
from ptr_fast.errors import DataError

__all__ = [
    "DecodedFrames",
    "FrameSource",
    "FrameSourceInfo",
    "JpegFrames",
    "MappedFrames",
    "free_memory",
    "open_frames",
]

_DEFAULT_SHARE = 0.5  # of the free memory, for decoded frames
_LOAD_FRAMES = 4096  # decoded at a time when a store is loaded


@dataclass(frozen=True, kw_only=True)
class FrameSourceInfo:
    """What a frame source is, for logs and ``ptr-fast info``.

    Attributes:
        tier: ``decoded`` (pixels in memory), ``mapped`` (raw frames in the store's memory map) or ``jpeg``.
        why: why this tier was chosen.
        num_frames: frames that can be gathered.
        num_bytes: memory held for pixels (decoded), or size of the frames in the store (mapped, jpeg).
        frames_per_second: measured here and now on frames drawn at random.
        load_seconds: time that opening took.
    """

    tier: str
    why: str
    num_frames: int
    num_bytes: int
    frames_per_second: float
    load_seconds: float

    def __str__(self) -> str:
        return (
            f"{self.tier} ({self.why}): {self.num_frames} frames, {self.num_bytes / 1e6:.0f} MB, "
            f"{self.frames_per_second:,.0f} frames/s, opened in {self.load_seconds:.1f} s"
        )


class FrameSource(Protocol):
    """All frames of one camera of one store, by record number.

    Attributes:
        height, width: pixels.
        num_frames: records of the store.
    """

    height: int
    width: int
    num_frames: int

    def gather(self, records: np.ndarray, out: np.ndarray, rows: np.ndarray | None = None) -> None:
        """Writes frame ``records[i]`` to ``out[rows[i]]`` (to ``out[i]`` where ``rows`` is None).

        Args:
            records: int64 ``[n]``, in [0, num_frames).
            out: uint8 ``[m, H, W, 3]``, contiguous, n <= m.
            rows: int64 ``[n]``, distinct, in [0, m).

        Raises:
            ValueError: a record or row out of range, or an array of another shape or dtype.
            DataError: a frame cannot be decoded; the message names store, camera and record.
        """
        ...

    def describe(self) -> FrameSourceInfo:
        """What this source is and how fast it is; measures for a few hundredths of a second."""
        ...

    def close(self) -> None:
        """Ends the source's threads, if it has any."""
        ...


def open_frames(
    store: EpisodeStore, camera: str, memory_budget_bytes: int | None = None, num_threads: int = 1
) -> FrameSource:
    """The fastest frame source that fits.

    Args:
        store: open store.
        camera: name of one of its cameras.
        memory_budget_bytes: for decoded JPEG frames; None means half of the memory that is free now. 0 never decodes
            ahead.
        num_threads: threads that copy or decode.

    Raises:
        ValueError: unknown camera.
        DataError: a frame cannot be decoded.
    """
    spec = store.meta.camera(camera)
    if spec.encoding == "raw":
        why = "the store holds raw pixels"
        return MappedFrames(store.frame_parts(camera), spec.height, spec.width, num_threads, why)
    needed = store.num_records * spec.height * spec.width * 3
    budget = int(free_memory() * _DEFAULT_SHARE) if memory_budget_bytes is None else memory_budget_bytes
    sizes = f"{needed / 1e6:.0f} MB of pixels, budget {budget / 1e6:.0f} MB"
    if needed <= budget:
        return DecodedFrames(store, camera, num_threads, f"fits: {sizes}")
    why = f"does not fit: {sizes}" if budget else "not decoded ahead"
    return JpegFrames(store, camera, num_threads, why)


class MappedFrames:
    """Frames of one size in the given buffers, copied by native threads (by numpy without the native module).

    Args:
        parts: as :meth:`EpisodeStore.frame_parts` gives them; the buffers are kept alive.
        height, width: pixels.
        num_threads: threads that copy.
    """

    tier = "mapped"

    def __init__(
        self,
        parts: Sequence[tuple[int, np.ndarray, np.ndarray]],
        height: int,
        width: int,
        num_threads: int = 1,
        why: str = "asked for",
    ) -> None:
        self.height, self.width, self._threads, self._why = height, width, num_threads, why
        frame_bytes = height * width * 3
        self.num_bytes = sum(data.nbytes for _, _, data in parts)
        self._copier = _make_copier(parts, frame_bytes)
        self.num_frames = self._copier.num_records
        self.load_seconds = 0.0

    def gather(self, records: np.ndarray, out: np.ndarray, rows: np.ndarray | None = None) -> None:
        _check_out(out, self.height, self.width)
        self._copier.gather(records, rows, out, self._threads)

    def describe(self) -> FrameSourceInfo:
        return _describe(self, self.tier, self._why, self.num_bytes, self.load_seconds)

    def close(self) -> None:
        pass


class DecodedFrames(MappedFrames):
    """All frames of a camera, decoded once, in memory."""

    tier = "decoded"

    def __init__(self, store: EpisodeStore, camera: str, num_threads: int = 1, why: str = "asked for") -> None:
        begin = time.perf_counter()
        spec = store.meta.camera(camera)
        pixels = np.empty((store.num_records, spec.height, spec.width, 3), np.uint8)
        frames = JpegFrames(store, camera, num_threads)
        for first in range(0, store.num_records, _LOAD_FRAMES):
            last = min(first + _LOAD_FRAMES, store.num_records)
            frames.gather(np.arange(first, last, dtype=np.int64), pixels[first:last])
        frames.close()
        offsets = np.arange(store.num_records + 1, dtype=np.int64) * (spec.height * spec.width * 3)
        super().__init__([(0, offsets, pixels.reshape(-1))], spec.height, spec.width, num_threads, why)
        self.load_seconds = time.perf_counter() - begin


class JpegFrames:
    """Frames that are decoded each time they are gathered."""

    tier = "jpeg"

    def __init__(self, store: EpisodeStore, camera: str, num_threads: int = 1, why: str = "asked for") -> None:
        spec = store.meta.camera(camera)
        self.height, self.width, self.num_frames, self._why = spec.height, spec.width, store.num_records, why
        self._store, self._camera = store, camera
        self._decoder = SimpleJpegDecoder(spec.height, spec.width, num_threads)
        self.num_bytes = sum(int(offsets[-1]) for _, offsets, _ in store.frame_parts(camera))

    def gather(self, records: np.ndarray, out: np.ndarray, rows: np.ndarray | None = None) -> None:
        _check_out(out, self.height, self.width)
        _check_indices(records, rows, self.num_frames, len(out))
        encoded = self.encoded(records)
        try:
            self._decoder.decode_into(encoded, out, rows)
        except DataError as error:
            # The decoder knows the position in this gather; a reader of the message wants the record.
            raise self._with_record(records, encoded) from error

    def encoded(self, records: np.ndarray) -> list[memoryview]:
        """The JPEG files of records, without a copy."""
        return [self._store.frame_bytes(self._camera, int(record)) for record in records]

    @contextlib.contextmanager
    def naming(self, records: np.ndarray) -> Iterator[None]:
        """Around work on the files of records: an error about ``frame i`` of them becomes one about its record.

        Raises:
            DataError: names store, camera and record.
        """
        try:
            yield
        except ValueError as error:
            frame, _, detail = str(error).rpartition("frame ")[2].partition(": ")
            number, detail = (int(frame), detail) if frame.isdigit() else (0, str(error))
            where = f"{self._store.path}: camera {self._camera!r}, record {records[number]}"
            raise DataError(f"{where}: {detail}") from error

    def describe(self) -> FrameSourceInfo:
        return _describe(self, self.tier, self._why, self.num_bytes, 0.0)

    def close(self) -> None:
        self._decoder.close()

    def _with_record(self, records: np.ndarray, encoded: Sequence[memoryview]) -> DataError:
        for record, data in zip(records, encoded, strict=True):
            try:
                self._decoder.decode([data])
            except DataError as error:
                detail = str(error).partition(": ")[2]
                return DataError(f"{self._store.path}: camera {self._camera!r}, record {record}: {detail}")
        raise AssertionError("a frame that failed to decode decodes now")


class _NumpyCopier:
    """What csrc/data/frame_gather does, for a machine without the native module."""

    def __init__(self, parts: Sequence[tuple[int, np.ndarray, np.ndarray]], frame_bytes: int) -> None:
        for first, offsets, data in parts:
            sizes = np.diff(offsets)
            if (sizes != frame_bytes).any() or (len(sizes) and (offsets[0] < 0 or offsets[-1] > data.size)):
                raise ValueError(f"parts: the part at record {first} does not hold frames of {frame_bytes} bytes")
        self._firsts = np.array([first for first, _, _ in parts], np.int64)
        self._parts, self._frame_bytes = parts, frame_bytes
        self.num_records = sum(len(offsets) - 1 for _, offsets, _ in parts)

    def gather(self, records: np.ndarray, rows: np.ndarray | None, out: np.ndarray, num_threads: int) -> None:
        _check_indices(records, rows, self.num_records, len(out))
        flat = out.reshape(len(out), -1)
        numbers = np.searchsorted(self._firsts, records, side="right") - 1
        for i, (record, number) in enumerate(zip(records, numbers, strict=True)):
            first, offsets, data = self._parts[number]
            begin = offsets[record - first]
            flat[i if rows is None else rows[i]] = data[begin : begin + self._frame_bytes]


def _make_copier(parts: Sequence[tuple[int, np.ndarray, np.ndarray]], frame_bytes: int) -> Any:
    module = native.module()
    if module is None:
        native.warn_missing()
        return _NumpyCopier(parts, frame_bytes)
    return module.FrameGather(list(parts), frame_bytes)


def _check_out(out: np.ndarray, height: int, width: int) -> None:
    if out.dtype != np.uint8 or out.shape[1:] != (height, width, 3) or not out.flags.c_contiguous:
        raise ValueError(f"out: expected contiguous uint8 [n, {height}, {width}, 3], got {out.dtype} {out.shape}")


def _check_indices(records: np.ndarray, rows: np.ndarray | None, num_records: int, num_rows: int) -> None:
    for name, values, end in (("records", records, num_records), ("rows", rows, num_rows)):
        if values is None:
            if len(records) > num_rows:
                raise ValueError(f"out: expected room for {len(records)} frames, got {num_rows}")
            continue
        if values.dtype != np.int64 or values.shape != records.shape:
            raise ValueError(f"{name}: expected int64 {records.shape}, got {values.dtype} {values.shape}")
        bad = (values < 0) | (values >= end)
        if bad.any():
            where = int(np.argmax(bad))
            raise ValueError(f"{name}[{where}]: expected 0 to {end - 1}, got {values[where]}")


def _describe(source: Any, tier: str, why: str, num_bytes: int, load_seconds: float) -> FrameSourceInfo:
    batch = min(64, source.num_frames)
    rate = 0.0
    if batch:
        rng = np.random.default_rng(0)
        out = np.empty((batch, source.height, source.width, 3), np.uint8)
        begin, rounds = time.perf_counter(), 0
        while rounds == 0 or time.perf_counter() - begin < 0.05:
            source.gather(rng.integers(0, source.num_frames, batch), out)
            rounds += 1
        rate = rounds * batch / (time.perf_counter() - begin)
    return FrameSourceInfo(
        tier=tier,
        why=why,
        num_frames=source.num_frames,
        num_bytes=num_bytes,
        frames_per_second=rate,
        load_seconds=load_seconds,
    )


def free_memory() -> int:
    """Bytes that this process can still use: the system's available memory, or what its control group leaves it."""
    available = next(
        int(line.split()[1]) * 1024
        for line in Path("/proc/meminfo").read_text().splitlines()
        if line.startswith("MemAvailable:")
    )
    group = Path("/sys/fs/cgroup")
    try:
        limit, used = (group / "memory.max").read_text().strip(), int((group / "memory.current").read_text())
    except OSError:  # no control group, or one of version 1
        return available
    return available if limit == "max" else min(available, int(limit) - used)
