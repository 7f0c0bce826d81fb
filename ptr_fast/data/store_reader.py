"""The reader of a store: memory maps, zero-copy views, and checks that name what is damaged."""

from __future__ import annotations

import copy
import hashlib
import json
import zlib
from bisect import bisect_right
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import simplejpeg

from ptr_fast.config import to_dict
from ptr_fast.data.store_meta import (
    EPISODE_SCHEMA,
    FRAME_PREFIX,
    PART_KEY,
    REWARDS,
    SCHEMA_VERSION,
    StoreMeta,
    column_buffers,
    column_crc,
    load_meta,
)
from ptr_fast.errors import DataError
from ptr_fast.files import git_lfs_advice

__all__ = ["EpisodeStore", "EpisodeTable"]


@dataclass(frozen=True, kw_only=True)
class EpisodeTable:
    """Columns of the episode table; row e is episode e of the store.

    Attributes:
        num_steps, num_frames: int32; transitions and frames.
        first_record: int64; record of frame 0 inside its part.
        part: int32; number of the part.
        first: int64; record of frame 0 in the store.
        episode_id, task, outcome, kind, domain, split, source, digest: list of str; as in ``Episode``. ``digest`` is
            the SHA-256 of actions and frames, so that the same episode under two names can be found.
        rewards: float32 ``[T]`` of each episode as they were recorded, None where none were.
    """

    episode_id: list[str]
    task: list[str]
    num_steps: np.ndarray
    num_frames: np.ndarray
    first_record: np.ndarray
    part: np.ndarray
    outcome: list[str]
    kind: list[str]
    domain: list[str]
    split: list[str]
    source: list[str]
    digest: list[str]
    rewards: list[np.ndarray | None]
    first: np.ndarray

    def __len__(self) -> int:
        return len(self.episode_id)


class EpisodeStore:
    """A store opened for reading. What a writer commits later is seen by the next ``open``.

    Attributes:
        path: the store's folder.
        meta: :class:`StoreMeta`.
        episodes: :class:`EpisodeTable`.
        num_parts, num_episodes, num_records, num_steps: counts; a step is a transition.
        stored_names: name of each camera in the files, by its name here (see :meth:`renamed`).
    """

    def __init__(self, path: Path, meta: StoreMeta, parts: list[_Part]) -> None:
        self.path, self._parts = path, parts
        self._firsts = [0]
        for part in parts:
            self._firsts.append(self._firsts[-1] + part.num_rows)
        self.episodes = _episode_table(parts, self._firsts)
        self.meta = replace(meta, tasks=tuple(dict.fromkeys((*meta.tasks, *self.episodes.task))))
        self.num_parts, self.num_episodes = len(parts), len(self.episodes)
        self.num_records = self._firsts[-1]
        self.num_steps = int(self.episodes.num_steps.sum(dtype=np.int64))
        self._views: dict[str, list[tuple[memoryview, memoryview]]] = {}
        self.stored_names = {camera.name: camera.name for camera in meta.cameras}
        self._identity = to_dict(self.meta)

    @classmethod
    def open(cls, path: str | Path) -> EpisodeStore:
        """Opens a store: cheap checks only (lengths, schemas, the episode table's checksums); frames are not read.

        Raises:
            DataError: names the part, the column, what was expected and what came.
        """
        path = Path(path)
        meta = load_meta(path)
        schema = meta.steps_schema()
        names = sorted(file.name for file in (path / "episodes").glob("*.arrow"))
        for number, name in enumerate(names):
            if name != f"{number:06d}.arrow":
                raise DataError(f"{path}: part episodes/{number:06d}.arrow is missing")
        return cls(path, meta, [_Part(path, name, schema) for name in names])

    def renamed(self, names: Mapping[str, str]) -> EpisodeStore:
        """The same store with other names for some of its cameras; a camera whose name another one takes is left out.

        Args:
            names: new names by old ones.

        Raises:
            ValueError: an unknown camera, or a name that is given twice.
        """
        if len(set(names.values())) < len(names):
            raise ValueError(f"{self.path}: two cameras cannot have one name, got {dict(names)}")
        cameras = {old: replace(self.meta.camera(old), name=new) for old, new in names.items()}
        kept = {c.name: c for c in self.meta.cameras if c.name not in names and c.name not in names.values()}
        ordered = [{**cameras, **kept}[c.name] for c in self.meta.cameras if c.name in cameras or c.name in kept]
        store = copy.copy(self)
        store.meta, store._views = replace(self.meta, cameras=tuple(ordered)), {}
        olds = {new: old for old, new in names.items()}
        store.stored_names = {c.name: self.stored_names[olds.get(c.name, c.name)] for c in ordered}
        return store

    @cached_property
    def state(self) -> np.ndarray:
        """float32 ``[num_records, S]``; read once, checked against its CRC-32."""
        return self._lowdim("state", self.meta.state.dim)

    @cached_property
    def action(self) -> np.ndarray:
        """float32 ``[num_records, A]``, raw units; NaN in a record without one: a last frame's, or of no episode."""
        out = self._lowdim("action", self.meta.action.dim)
        out[~self.is_held] = np.nan
        return out

    @cached_property
    def is_held(self) -> np.ndarray:
        """bool ``[num_records]``; False of records that belong to no episode, which an edited store may have."""
        if self.num_records == int(self.episodes.num_frames.sum(dtype=np.int64)):
            return np.ones(self.num_records, bool)
        held = np.zeros(self.num_records, bool)
        for first, count in zip(self.episodes.first, self.episodes.num_frames, strict=True):
            held[first : first + count] = True
        return held

    def frame_bytes(self, camera: str, record: int) -> memoryview:
        """The stored bytes of one frame, without a copy: a JPEG file, or ``H * W * 3`` raw bytes."""
        if not 0 <= record < self.num_records:
            raise ValueError(f"record {record} is outside the store's {self.num_records} records")
        views = self._views.get(camera)
        if views is None:
            parts = self.frame_parts(camera)
            views = self._views[camera] = [(offsets.data, data.data) for _, offsets, data in parts]
        number = bisect_right(self._firsts, record) - 1
        offsets, data = views[number]
        row = record - self._firsts[number]
        return data[offsets[row] : offsets[row + 1]]

    def frame(self, camera: str, record: int) -> np.ndarray:
        """One frame, uint8 ``[H, W, 3]`` RGB.

        Raises:
            DataError: the stored bytes are not a JPEG of the camera's size.
        """
        spec, data = self.meta.camera(camera), self.frame_bytes(camera, record)
        if spec.encoding == "raw":
            return np.frombuffer(data, np.uint8).reshape(spec.height, spec.width, 3)
        try:
            image = simplejpeg.decode_jpeg(data, colorspace="RGB")
        except ValueError as error:
            raise DataError(f"{self.path}: camera {camera!r}, record {record}: not a JPEG file ({error})") from error
        if image.shape != (spec.height, spec.width, 3):
            raise DataError(
                f"{self.path}: camera {camera!r}, record {record}: expected {spec.height}x{spec.width}, "
                f"got {image.shape[0]}x{image.shape[1]}"
            )
        return image

    def frame_parts(self, camera: str) -> list[tuple[int, np.ndarray, np.ndarray]]:
        """The mapped buffers of a camera, one entry per part: (first record, offsets, data).

        ``offsets`` is int64 ``[n + 1]`` and rises from 0 to at most ``len(data)``; ``data`` is uint8. Frame
        ``first + i`` is ``data[offsets[i]:offsets[i + 1]]``. Both are views of the memory map.
        """
        spec = self.meta.camera(camera)
        frame_size = spec.height * spec.width * 3 if spec.encoding == "raw" else None
        return [
            (first, *part.frames(FRAME_PREFIX + self.stored_names[camera], frame_size))
            for first, part in zip(self._firsts, self._parts, strict=False)
        ]

    def fingerprint(self) -> str:
        """SHA-256 over the meta and every part's checksums and lengths; cheap, and equal only for equal content."""
        digest = hashlib.sha256(json.dumps(self._identity, sort_keys=True).encode())
        for part in self._parts:
            digest.update(json.dumps(part.about, sort_keys=True).encode())
        return digest.hexdigest()

    def part_about(self, number: int) -> dict[str, Any]:
        """The checksums and counts that a part of the store keeps of itself (note "store layout")."""
        return dict(self._parts[number].about)

    @property
    def num_bytes(self) -> int:
        """Size of all steps files."""
        return sum(part.about["steps_bytes"] for part in self._parts)

    def verify(self) -> None:
        """Reads every byte of every part and compares its CRC-32.

        Raises:
            DataError: the first damage found (see :meth:`damage`).
        """
        for message in self.damage():
            raise DataError(message)

    def damage(self) -> Iterator[str]:
        """One message per damaged part, naming the part, the column and both checksums; reads the whole store."""
        for part in self._parts:
            yield from part.damage()

    def _lowdim(self, name: str, dim: int) -> np.ndarray:
        out = np.empty((self.num_records, dim), np.float32)
        for first, part in zip(self._firsts, self._parts, strict=False):
            part.check_column(name)
            out[first : first + part.num_rows] = column_buffers(part.column(name))[0].reshape(-1, dim)
        return out


class _Part:
    """One committed part: its episode rows in memory and its steps file mapped."""

    def __init__(self, path: Path, name: str, schema: pa.Schema) -> None:
        self.file, self._steps_file = path / "episodes" / name, path / "steps" / name
        self.rows = _read_batch(self.file)
        self.about: dict[str, Any] = self._read_about()
        if self.rows.schema.remove_metadata() not in (EPISODE_SCHEMA, EPISODE_SCHEMA.append(REWARDS)):
            raise DataError(f"{self.file}: expected columns {EPISODE_SCHEMA.names}, got {self.rows.schema.names}")
        for column in self.rows.schema.names:
            _check_crc(self.file, column, self.about["episodes_crc32"].get(column), self.rows.column(column))
        if not self._steps_file.is_file():
            raise DataError(f"{self._steps_file}: missing, though {self.file.name} of the episode table names it")
        size = self._steps_file.stat().st_size
        if size != self.about["steps_bytes"]:
            why = f"got {size} ({git_lfs_advice(self._steps_file) or 'truncated?'})"
            raise DataError(f"{self._steps_file}: expected {self.about['steps_bytes']} bytes, {why}")
        self._steps = _read_batch(self._steps_file)
        self._names, self._stored_as = schema.names, self.about.get("stored_as", {})
        stored = self._steps.schema.remove_metadata()
        if "stored_as" in self.about:
            fits = all(pa.field(self._stored_as.get(field.name, field.name), field.type) in stored for field in schema)
        else:
            fits = stored == schema
        if not fits:
            raise DataError(f"{self._steps_file}: expected columns {schema.names}, got {self._steps.schema.names}")
        self.num_rows: int = self._steps.num_rows
        num_frames = int(column_buffers(self.rows.column("num_frames"))[0].sum(dtype=np.int64))
        expected = num_frames + self.about.get("hidden_rows", 0)
        if not self.num_rows == self.about["steps_rows"] == expected:
            raise DataError(
                f"{self._steps_file}: expected {expected} records (the frames of its episodes), got {self.num_rows}"
            )

    def _read_about(self) -> dict[str, Any]:
        try:
            about = json.loads((self.rows.schema.metadata or {})[PART_KEY])
            version, keys = about["schema_version"], set(about)
        except (KeyError, TypeError, ValueError) as error:
            raise DataError(f"{self.file}: the part's checksums are missing from its schema metadata") from error
        needed = {"steps_rows", "steps_bytes", "steps_crc32", "columns_crc32", "episodes_crc32"}
        if version != SCHEMA_VERSION or not needed <= keys:
            raise DataError(f"{self.file}: expected part version {SCHEMA_VERSION} with {sorted(needed)}, got {about}")
        return about

    def column(self, name: str) -> pa.Array:
        column = self._steps.column(self._stored_as.get(name, name))
        if column.null_count or column.offset:
            raise DataError(f"{self._steps_file}: column {name!r}: expected no nulls, got {column.null_count}")
        return column

    def frames(self, name: str, frame_size: int | None) -> tuple[np.ndarray, np.ndarray]:
        offsets, data = column_buffers(self.column(name))
        sizes = np.diff(offsets)
        good = offsets[0] == 0 and offsets[-1] <= len(data) and bool((sizes >= 0).all())
        if good and frame_size is not None:
            good = bool((sizes == frame_size).all())
        if not good:
            raise DataError(f"{self._steps_file}: column {name!r}: the offsets of its frames are damaged")
        return offsets, data[: offsets[-1]]

    def check_column(self, name: str) -> None:
        stored = self._stored_as.get(name, name)
        _check_crc(self._steps_file, stored, self.about["columns_crc32"].get(stored), self.column(name))

    def damage(self) -> Iterator[str]:
        crc = 0
        with open(self._steps_file, "rb") as file:
            while block := file.read(1 << 22):
                crc = zlib.crc32(block, crc)
        if crc == self.about["steps_crc32"]:
            return
        found = []
        for name in self._names:
            try:
                self.check_column(name)
            except DataError as error:
                found.append(str(error))
        expected = self.about["steps_crc32"]
        yield "; ".join(found) or f"{self._steps_file}: expected CRC-32 {expected:#010x}, got {crc:#010x}"


def _check_crc(file: Path, name: str, expected: int | None, column: pa.Array) -> None:
    crc = column_crc(column)
    if crc != expected:
        wanted = "none recorded" if expected is None else f"{expected:#010x}"
        raise DataError(f"{file}: column {name!r}: expected CRC-32 {wanted}, got {crc:#010x} (damaged)")


def _read_batch(file: Path) -> pa.RecordBatch:
    try:
        # one thread: there is nothing to decode, and waking a pool costs more than the read
        reader = pa.ipc.open_file(pa.memory_map(str(file)), options=pa.ipc.IpcReadOptions(use_threads=False))
        if reader.num_record_batches != 1:
            raise DataError(f"{file}: expected one record batch, got {reader.num_record_batches}")
        batch = reader.get_batch(0)
        batch.validate()
        _ = batch.schema.names
    except (pa.ArrowException, OSError, UnicodeDecodeError) as error:
        raise DataError(f"{file}: not a readable Arrow file ({git_lfs_advice(file) or error})") from error
    return batch


def _episode_table(parts: list[_Part], firsts: list[int]) -> EpisodeTable:
    columns: dict[str, Any] = {}
    for field in EPISODE_SCHEMA:
        pieces = [part.rows.column(field.name) for part in parts]
        if pa.types.is_string(field.type):
            columns[field.name] = [text for piece in pieces for text in piece.to_pylist()]
        else:
            empty = np.zeros(0, field.type.to_pandas_dtype())
            columns[field.name] = np.concatenate([empty, *(column_buffers(piece)[0] for piece in pieces)])
    rewards = [rows for part in parts for rows in _rewards(part.rows)]
    first = columns["first_record"] + np.asarray(firsts, np.int64)[columns["part"]]
    return EpisodeTable(**columns, rewards=rewards, first=first)


def _rewards(rows: pa.RecordBatch) -> list[np.ndarray | None]:
    """Recorded rewards of the episodes of a part; None for those without."""
    if REWARDS.name not in rows.schema.names:
        return [None] * rows.num_rows
    offsets, values = column_buffers(rows.column(REWARDS.name))
    return [values[i:j] if j > i else None for i, j in zip(offsets, offsets[1:], strict=False)]
