"""The one writer of a store: episodes in, immutable parts out."""

from __future__ import annotations

import fcntl
import json
import os
import zlib
from dataclasses import fields, is_dataclass, replace
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np
import pyarrow as pa

from ptr_fast.data.store_checks import checked_episode, episode_digest
from ptr_fast.data.store_meta import (
    EPISODE_SCHEMA,
    PART_KEY,
    REWARDS,
    SCHEMA_VERSION,
    Episode,
    StoreMeta,
    column_crc,
    load_meta,
    refuse_inside_a_store,
    save_meta,
)
from ptr_fast.data.store_reader import EpisodeStore
from ptr_fast.errors import DataError
from ptr_fast.files import sync_directory, writing

__all__ = ["StoreWriter"]


class StoreWriter:
    """Adds episodes to a store; a context manager that commits on leaving unless an exception is flying.

    ``add`` checks an episode and keeps it in memory; ``commit`` writes everything added since as one part. A part
    becomes visible at one rename and is never touched again. One writer at a time: the lock dies with its process.
    """

    def __init__(self, path: Path, meta: StoreMeta, lock: _WriterLock) -> None:
        self._path, self._lock = path, lock
        store = EpisodeStore.open(path)
        self.meta = replace(meta, tasks=store.meta.tasks)
        self._ids = set(store.episodes.episode_id)
        self._next_part, self._num_episodes = store.num_parts, store.num_episodes
        self._pending: list[tuple[Episode, str]] = []
        self.pending_bytes = 0
        for folder in ("steps", "episodes"):
            for leftover in (path / folder).glob("*.tmp"):
                leftover.unlink()

    @classmethod
    def create(cls, path: str | Path, meta: StoreMeta) -> StoreWriter:
        """Makes an empty store at ``path`` and a writer for it.

        Raises:
            ValueError: there is a store already, the folder holds something else, or it lies inside another store.
            RuntimeError: another process writes here, or the file system refuses.
        """
        path = Path(path)
        if (path / "meta.json").exists():
            raise ValueError(f"{path}: there is a store already; open it with StoreWriter.append")
        if path.exists() and (not path.is_dir() or any(map(_is_foreign, os.listdir(path)))):
            raise ValueError(f"{path}: expected an empty or new folder for the store")
        refuse_inside_a_store(path)
        for folder in ("steps", "episodes"):
            (path / folder).mkdir(parents=True, exist_ok=True)
        lock = _WriterLock(path)
        try:
            save_meta(path, meta)
            return cls(path, meta, lock)
        except BaseException:
            lock.release()
            raise

    @classmethod
    def append(cls, path: str | Path, meta: StoreMeta | None = None) -> StoreWriter:
        """A writer for the store at ``path``; ``meta``, where given, must describe the same cameras, state and action.

        Raises:
            DataError: there is no store, or it is damaged.
            ValueError: ``meta`` differs; the message names the field.
            RuntimeError: another process writes here.
        """
        path = Path(path)
        stored = load_meta(path)
        for name in ("cameras", "state", "action", "control_hz"):
            if meta is not None and getattr(meta, name) != getattr(stored, name):
                differences = "; ".join(_differences(name, getattr(stored, name), getattr(meta, name)))
                raise ValueError(f"{path}: cannot append, {name} differs: {differences}")
        lock = _WriterLock(path)
        try:
            return cls(path, stored, lock)
        except BaseException:
            lock.release()
            raise

    def __contains__(self, episode_id: str) -> bool:
        return episode_id in self._ids

    @property
    def num_pending(self) -> int:
        """Episodes added and not yet committed."""
        return len(self._pending)

    def add(self, episode: Episode) -> None:
        """Checks an episode and keeps it for the next commit.

        Raises:
            DataError: names the episode, the field, what was expected and what came. Nothing is kept.
        """
        if episode.episode_id in self._ids:
            raise DataError(f"episode {episode.episode_id!r} is in the store already")
        checked, num_bytes = checked_episode(episode, self.meta)
        self._ids.add(episode.episode_id)
        self._pending.append((checked, episode_digest(checked)))
        self.pending_bytes += num_bytes

    def commit(self) -> None:
        """Writes the episodes added so far as one part; nothing to do where there are none.

        Raises:
            RuntimeError: the file system refused (full, a limit, read-only). The store is as it was before.
        """
        if not self._pending:
            return
        name = f"{self._next_part:06d}.arrow"
        steps = self._steps_batch()
        steps_bytes, steps_crc = _write_part(self._path / "steps" / name, steps)
        episodes = self._episodes_batch()
        about = {
            "schema_version": SCHEMA_VERSION,
            "steps_rows": steps.num_rows,
            "steps_bytes": steps_bytes,
            "steps_crc32": steps_crc,
            "columns_crc32": {n: column_crc(steps.column(n)) for n in steps.schema.names},
            "episodes_crc32": {n: column_crc(episodes.column(n)) for n in episodes.schema.names},
        }
        _write_part(
            self._path / "episodes" / name, episodes.replace_schema_metadata({PART_KEY: json.dumps(about).encode()})
        )
        tasks = tuple(dict.fromkeys((*self.meta.tasks, *(episode.task for episode, _ in self._pending))))
        self._next_part += 1
        self._num_episodes += len(self._pending)
        self._pending, self.pending_bytes = [], 0
        if tasks != self.meta.tasks:
            self.update_meta(tasks=tasks)

    def update_meta(self, **changes: Any) -> None:
        """Replaces fields that no stored byte depends on: ``source``, ``tasks``, the bounds in ``action``."""
        meta = replace(self.meta, **changes)
        if meta.steps_schema() != self.meta.steps_schema() or meta.cameras != self.meta.cameras:
            raise ValueError("cameras, the state and action dimensions of a store cannot change")
        if meta != self.meta:
            save_meta(self._path, meta)
        self.meta = meta

    def close(self) -> None:
        """Gives the store up without committing what is pending."""
        self._pending, self.pending_bytes = [], 0
        self._lock.release()

    def __enter__(self) -> StoreWriter:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        try:
            if kind is None:
                self.commit()
        finally:
            self.close()

    def _steps_batch(self) -> pa.RecordBatch:
        episodes = [episode for episode, _ in self._pending]
        counts = [episode.num_frames for episode in episodes]
        num_records = sum(counts)
        frame_index = np.concatenate([np.arange(n, dtype=np.int32) for n in counts])
        episode_index = np.repeat(np.arange(len(counts), dtype=np.int64) + self._num_episodes, counts)
        state = np.concatenate([episode.states for episode in episodes])
        action = np.full((num_records, self.meta.action.dim), np.nan, np.float32)
        first = 0
        for episode in episodes:
            action[first : first + episode.num_steps] = episode.actions
            first += episode.num_frames
        columns: list[pa.Array] = [
            pa.array(frame_index),
            pa.array(episode_index),
            pa.FixedSizeListArray.from_arrays(pa.array(state.reshape(-1)), self.meta.state.dim),
            pa.FixedSizeListArray.from_arrays(pa.array(action.reshape(-1)), self.meta.action.dim),
        ]
        for camera in self.meta.cameras:
            frames = [memoryview(f).cast("B") for episode in episodes for f in episode.frames[camera.name]]
            offsets = np.zeros(num_records + 1, np.int64)
            np.cumsum([frame.nbytes for frame in frames], out=offsets[1:])
            data = pa.py_buffer(b"".join(frames))
            columns.append(
                pa.Array.from_buffers(pa.large_binary(), num_records, [None, pa.py_buffer(offsets), data], null_count=0)
            )
        return pa.RecordBatch.from_arrays(columns, schema=self.meta.steps_schema())

    def _episodes_batch(self) -> pa.RecordBatch:
        first, rows = 0, []
        for episode, digest in self._pending:
            rows.append(
                {
                    **{name: getattr(episode, name) for name in ("episode_id", "task", "num_steps", "num_frames")},
                    **{name: getattr(episode, name) for name in ("outcome", "kind", "domain", "split", "source")},
                    "first_record": first,
                    "part": self._next_part,
                    "digest": digest,
                }
            )
            first += episode.num_frames
        schema = EPISODE_SCHEMA
        if any(episode.rewards is not None for episode, _ in self._pending):
            schema = schema.append(REWARDS)
            for row, (episode, _) in zip(rows, self._pending, strict=True):
                row["rewards"] = [] if episode.rewards is None else episode.rewards
        return pa.RecordBatch.from_pylist(rows, schema=schema)


def _write_part(path: Path, batch: pa.RecordBatch) -> tuple[int, int]:
    """Writes one Arrow IPC file atomically; returns its length and CRC-32."""
    temporary = path.with_name(f"{path.name}.{os.getpid()}.tmp")
    try:
        with open(temporary, "wb") as file:
            sink = _ChecksumSink(file)
            with pa.ipc.new_file(pa.PythonFile(sink, mode="w"), batch.schema) as writer:
                writer.write_batch(batch)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
        sync_directory(path.parent)
    except OSError as error:
        temporary.unlink(missing_ok=True)
        raise RuntimeError(f"cannot write part {path}: {error.strerror or error}; nothing of it is visible") from error
    return sink.num_bytes, sink.crc


class _ChecksumSink:
    """A file that counts and checksums what goes through it."""

    def __init__(self, file: Any) -> None:
        self._file, self.num_bytes, self.crc, self.closed = file, 0, 0, False

    def write(self, data: Any) -> int:
        self._file.write(data)
        self.num_bytes += len(data)
        self.crc = zlib.crc32(data, self.crc)
        return len(data)

    def tell(self) -> int:
        return self.num_bytes

    def flush(self) -> None:
        self._file.flush()

    def close(self) -> None:
        self.closed = True


class _WriterLock:
    """An exclusive lock on ``writer.lock``; the kernel drops it when its process ends, however it ends."""

    def __init__(self, path: Path) -> None:
        self._file = open(path / "writer.lock", "a+")  # noqa: SIM115  held until release
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            self._file.seek(0)
            owner = self._file.read().strip() or "unknown"
            self._file.close()
            raise RuntimeError(f"{path}: another writer has this store open (process {owner})") from error
        try:
            with writing(path / "writer.lock"):
                self._file.truncate(0)
                os.write(self._file.fileno(), str(os.getpid()).encode())
        except OSError:
            self.release()
            raise

    def release(self) -> None:
        self._file.close()


def _is_foreign(name: str) -> bool:
    """Whether a file or folder is none that making a store leaves where it is killed."""
    return name not in ("steps", "episodes", "writer.lock") and not name.startswith(".meta.json.")


def _differences(name: str, stored: Any, new: Any) -> list[str]:
    """The fields that differ, each with what the store and what the new episodes have."""
    if is_dataclass(stored) and type(stored) is type(new):
        pairs = [(f"{name}.{one.name}", getattr(stored, one.name), getattr(new, one.name)) for one in fields(stored)]
    elif isinstance(stored, tuple) and isinstance(new, tuple) and len(stored) == len(new):
        pairs = [(f"{name}[{i}]", *pair) for i, pair in enumerate(zip(stored, new, strict=True))]
    else:
        return [f"{name}: the store has {stored!r}, the new episodes have {new!r}"] if stored != new else []
    return [told for pair in pairs for told in _differences(*pair)]
