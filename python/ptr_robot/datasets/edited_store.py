"""Stores made of others without rewriting a frame: some episodes left out, others' added, labels and names changed.

The new store's steps files are hard links to those of the stores it is made from (copies where its folder is on another
file system), and only its small episode tables are written. A steps file is never changed once it is written, so the
old stores stay as they are, may be appended to, and may be deleted. The whole store is made under another name and
renamed: it is there whole or not at all.
"""

from __future__ import annotations

import errno
import json
import os
import shutil
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from ptr_fast.data.store import EpisodeStore, StoreMeta
from ptr_fast.data.store_meta import (
    EPISODE_SCHEMA,
    FRAME_PREFIX,
    PART_KEY,
    REWARDS,
    column_crc,
    refuse_inside_a_store,
    save_meta,
)
from ptr_fast.errors import DataError
from ptr_fast.files import sync_directory, writing
from ptr_robot.datasets.spaces import measured_bounds

__all__ = ["Edit", "merged_meta", "write_edited"]


@dataclass(frozen=True, kw_only=True)
class Edit:
    """What becomes of one store.

    Attributes:
        store: the store.
        keep: episodes that are taken, by number, bool ``[num_episodes]``.
        columns: new values of columns of the episode table, a list as long as the table each.
        cameras: new names by old ones.
    """

    store: EpisodeStore
    keep: np.ndarray
    columns: Mapping[str, Sequence[str]]
    cameras: Mapping[str, str]

    def camera_name(self, name: str) -> str:
        """What a camera is called in the new store."""
        return self.cameras.get(name, name)


def merged_meta(edits: Sequence[Edit]) -> StoreMeta:
    """The meta of a store with the episodes of all edits.

    Bounds that were measured are measured again where they differ; those that somebody stated must agree.

    Raises:
        ValueError: the stores do not fit each other; names the field, and what each of them has.
    """
    first, names = edits[0].store, [str(edit.store.path) for edit in edits]
    meta = replace(first.meta, cameras=_cameras(edits[0]))
    for edit in edits[1:]:
        other = replace(edit.store.meta, cameras=_cameras(edit))
        pairs = {
            "cameras": ({c.name: c for c in meta.cameras}, {c.name: c for c in other.cameras}),
            "state": (meta.state, other.state),
            "control_hz": (meta.control_hz, other.control_hz),
            "action": (_labels(meta), _labels(other)),
        }
        for name, (mine, yours) in pairs.items():
            if mine != yours:
                raise ValueError(f"{name} differ: {names[0]} has {mine}, {edit.store.path} has {yours}")
    bounds = {(edit.store.meta.action.low, edit.store.meta.action.high) for edit in edits}
    action = first.meta.action
    if len(bounds) > 1:
        stated = [edit for edit in edits if edit.store.meta.action.bounds_source != "data"]
        if stated:
            told = f"{stated[0].store.path} has {stated[0].store.meta.action.bounds_source!r}"
            raise ValueError(f"bounds of the actions differ, and {told}; convert with the same --bounds")
        rows = np.concatenate([_kept_actions(edit) for edit in edits])
        action = measured_bounds(action, rows, None)
    tasks = dict.fromkeys(task for edit in edits for task in _column(edit, "task"))
    sources = [{"store": str(edit.store.path), **edit.store.meta.source} for edit in edits]
    source = sources[0] if len(sources) == 1 else {"format": "merged", "stores": sources}
    return replace(meta, action=action, tasks=tuple(tasks), source=source)


def write_edited(out: Path, edits: Sequence[Edit]) -> int:
    """Writes the store ``out`` with the episodes of all edits; returns how many bytes of frames had to be copied.

    Raises:
        ValueError: ``out`` is there or inside a store, no episode is left, an id is there twice, or the stores do not
            fit each other.
        OSError: the file system refuses; nothing is left.
    """
    if out.exists():
        raise ValueError(f"{out}: there already; choose another folder")
    refuse_inside_a_store(out)
    if not any(edit.keep.any() for edit in edits):
        raise ValueError(f"{out}: no episode would be in it")
    _check_ids(edits)
    meta = merged_meta(edits)
    temporary = out.with_name(f".{out.name}.{os.getpid()}.tmp")
    copied, number = 0, 0
    with writing(out):
        try:
            for folder in ("steps", "episodes"):
                (temporary / folder).mkdir(parents=True)
            for edit in edits:
                for part in range(edit.store.num_parts):
                    table = _episode_rows(edit, part, number)
                    if table.num_rows:
                        copied += _place(edit.store.path / "steps" / f"{part:06d}.arrow", temporary / "steps", number)
                        about = _about(edit, part, table)
                        _write_table(temporary / "episodes" / f"{number:06d}.arrow", table, about)
                        number += 1
            save_meta(temporary, meta)
            EpisodeStore.open(temporary)  # what cannot be read is not put in place
            for written in (temporary / "steps", temporary / "episodes", temporary):
                sync_directory(written)
            os.replace(temporary, out)
            sync_directory(out.parent)
        finally:
            shutil.rmtree(temporary, ignore_errors=True)
    return copied


def _cameras(edit: Edit) -> tuple[Any, ...]:
    cameras = tuple(replace(camera, name=edit.camera_name(camera.name)) for camera in edit.store.meta.cameras)
    names = [camera.name for camera in cameras]
    if unknown := set(edit.cameras) - {camera.name for camera in edit.store.meta.cameras}:
        have = [camera.name for camera in edit.store.meta.cameras]
        raise ValueError(f"{edit.store.path}: no camera {sorted(unknown)[0]!r}; it has {have}")
    if len(set(names)) < len(names):
        raise ValueError(f"{edit.store.path}: two cameras cannot have one name, got {names}")
    return cameras


def _labels(meta: StoreMeta) -> tuple[Any, ...]:
    return meta.action.names, meta.action.units, meta.action.clip


def _kept_actions(edit: Edit) -> np.ndarray:
    table = edit.store.episodes
    rows = [edit.store.action[table.first[e] : table.first[e] + table.num_steps[e]] for e in np.flatnonzero(edit.keep)]
    return np.concatenate(rows) if rows else np.zeros((0, edit.store.meta.action.dim), np.float32)


def _column(edit: Edit, name: str) -> list[str]:
    values = edit.columns.get(name, getattr(edit.store.episodes, name))
    return [value for value, kept in zip(values, edit.keep, strict=True) if kept]


def _check_ids(edits: Iterable[Edit]) -> None:
    seen: dict[str, Path] = {}
    for edit in edits:
        for episode_id in _column(edit, "episode_id"):
            if episode_id in seen:
                where = f"in {seen[episode_id]} and in {edit.store.path}"
                raise ValueError(f"episode {episode_id!r} is {where}; --prefix puts the stores' names before the ids")
            seen[episode_id] = edit.store.path


def _episode_rows(edit: Edit, part: int, number: int) -> pa.RecordBatch:
    """Rows of the episodes of one part that are kept, as part ``number`` of the new store."""
    table = edit.store.episodes
    chosen = [int(e) for e in np.flatnonzero(edit.keep & (table.part == part))]
    columns: dict[str, Any] = {}
    for field in EPISODE_SCHEMA:
        values = edit.columns.get(field.name, getattr(table, field.name))
        columns[field.name] = pa.array([values[e] for e in chosen], field.type)
    columns["part"] = pa.array([number] * len(chosen), EPISODE_SCHEMA.field("part").type)
    schema, rewards = EPISODE_SCHEMA, [table.rewards[e] for e in chosen]
    if any(rows is not None for rows in rewards):
        schema = schema.append(REWARDS)
        columns[REWARDS.name] = pa.array([[] if rows is None else rows for rows in rewards], REWARDS.type)
    return pa.RecordBatch.from_arrays([columns[name] for name in schema.names], schema=schema)


def _about(edit: Edit, part: int, table: pa.RecordBatch) -> dict[str, Any]:
    """The part's checksums: those of its steps file as they were, those of its episodes anew."""
    about = edit.store.part_about(part)
    before = about.get("stored_as", {})
    names = {}
    for camera in edit.store.meta.cameras:
        old = FRAME_PREFIX + camera.name
        names[FRAME_PREFIX + edit.camera_name(camera.name)] = before.get(old, old)
    num_frames = int(np.asarray(table.column("num_frames")).sum(dtype=np.int64))
    return {
        **about,
        "hidden_rows": about["steps_rows"] - num_frames,
        "stored_as": names,
        "episodes_crc32": {name: column_crc(table.column(name)) for name in table.schema.names},
    }


def _place(file: Path, folder: Path, number: int) -> int:
    """Links a steps file into a folder under its new number, or copies it; returns the bytes copied."""
    target = folder / f"{number:06d}.arrow"
    try:
        os.link(file, target)
    except OSError as error:
        if error.errno not in (errno.EXDEV, errno.EPERM, errno.EMLINK, errno.EOPNOTSUPP, errno.ENOSYS):
            raise
        shutil.copyfile(file, target)
        with open(target, "rb") as stream:
            os.fsync(stream.fileno())
        return target.stat().st_size
    return 0


def _write_table(file: Path, table: pa.RecordBatch, about: Mapping[str, Any]) -> None:
    table = table.replace_schema_metadata({PART_KEY: json.dumps(about).encode()})
    try:
        with open(file, "wb") as stream:
            with pa.ipc.new_file(stream, table.schema) as writer:
                writer.write_batch(table)
            stream.flush()
            os.fsync(stream.fileno())
    except pa.ArrowException as error:
        raise DataError(f"{file}: cannot be written ({error})") from error
