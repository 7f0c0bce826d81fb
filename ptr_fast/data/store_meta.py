"""What a store says about itself: ``meta.json``, the column schemas, and the checks both writer and reader need.

Note "store layout": a store is a directory with

* ``meta.json``: :class:`StoreMeta`; the only file that is ever replaced (atomically);
* ``steps/NNNNNN.arrow``: one row per record (frame, state, action), an uncompressed Arrow IPC file read by memory map;
* ``episodes/NNNNNN.arrow``: one row per episode of that part, and in its schema metadata the length and the CRC-32 of
  the steps file and of each of its columns. Renaming this file into place is the commit; a steps part without it is
  invisible.

An edited store (``ptr_robot.datasets.edited_store``) shares its steps files with the stores it was made from. So the
schema metadata of its episode parts may say two things more: ``hidden_rows``, records of the steps file that belong to
no episode any more, and ``stored_as``, names of columns in the steps file where they are called otherwise.
"""

from __future__ import annotations

import json
import zlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from ptr_fast.config import from_dict, to_dict
from ptr_fast.errors import DataError
from ptr_fast.files import git_lfs_advice, write_atomically
from ptr_fast.json_files import parse_json
from ptr_fast.types import ActionSpec, CameraSpec, StateSpec

__all__ = [
    "KINDS_OF_OUTCOME",
    "SCHEMA_VERSION",
    "Episode",
    "StoreMeta",
    "load_meta",
    "refuse_inside_a_store",
    "save_meta",
]

SCHEMA_VERSION = 1
MAX_VERIFIED_BYTES = 2 << 30
"""Stores up to this size are read whole for their checksums before they are used: a second or two."""
KINDS_OF_OUTCOME = ("unknown", "success", "failure")
SPLITS = ("", "train", "val")
PART_KEY = b"ptr_fast"
FRAME_PREFIX = "frame."

EPISODE_SCHEMA = pa.schema(
    [
        ("episode_id", pa.string()),
        ("task", pa.string()),
        ("num_steps", pa.int32()),
        ("num_frames", pa.int32()),
        ("first_record", pa.int64()),
        ("part", pa.int32()),
        ("outcome", pa.string()),
        ("kind", pa.string()),
        ("domain", pa.string()),
        ("split", pa.string()),
        ("source", pa.string()),
        ("digest", pa.string()),
    ]
)
REWARDS = pa.field("rewards", pa.list_(pa.float32()))
"""Last column of the episode table of a part in which an episode has recorded rewards; empty lists for the others."""


@dataclass(frozen=True, kw_only=True)
class StoreMeta:
    """Everything about a store that holds for all of its episodes.

    Attributes:
        cameras: one per frame column; none in a store of states and actions alone.
        action: names, units and bounds of the raw actions.
        state: names and units of the states.
        control_hz: steps per second.
        source: where the data came from, JSON values only (format, name, fingerprint, flags found by a converter).
        tasks: task names. What the episodes hold is added when a store is opened, in order of first appearance.
        schema_version: version of the layout on disk.
    """

    cameras: tuple[CameraSpec, ...]
    action: ActionSpec
    state: StateSpec
    control_hz: float
    source: dict[str, Any] = field(default_factory=dict)
    tasks: tuple[str, ...] = ()
    schema_version: int = SCHEMA_VERSION

    def __post_init__(self) -> None:
        names = [camera.name for camera in self.cameras]
        if len(set(names)) != len(names):
            raise ValueError(f"camera names must be distinct, got {names}")
        if not self.control_hz > 0:
            raise ValueError(f"control_hz must be positive, got {self.control_hz}")

    def camera(self, name: str) -> CameraSpec:
        """The camera of that name; ValueError where there is none."""
        for camera in self.cameras:
            if camera.name == name:
                return camera
        raise ValueError(f"no camera {name!r}; the store has {[camera.name for camera in self.cameras]}")

    def steps_schema(self) -> pa.Schema:
        """Arrow schema of a steps part."""
        return pa.schema(
            [
                ("frame_index", pa.int32()),
                ("episode_index", pa.int64()),
                ("state", pa.list_(pa.float32(), self.state.dim)),
                ("action", pa.list_(pa.float32(), self.action.dim)),
                *((FRAME_PREFIX + camera.name, pa.large_binary()) for camera in self.cameras),
            ]
        )


@dataclass(frozen=True, kw_only=True)
class Episode:
    """One episode on its way into a store.

    ``F`` frames and ``T`` actions with ``F == T + 1`` (the frame after the last action is known) or ``F == T``.

    Attributes:
        episode_id: unique in the store.
        task: language instruction or task name.
        states: float ``[F, S]``, units of the store's :class:`~ptr_fast.types.StateSpec`.
        actions: float ``[T, A]``, raw units.
        frames: per camera of the store: F JPEG files (``jpeg``), or F blocks of ``H * W * 3`` bytes or uint8
            ``[F, H, W, 3]`` (``raw``).
        outcome: ``unknown``, ``success`` or ``failure``.
        kind: who acted: ``expert``, ``noisy``, ``failed``, ``unknown`` or any other word.
        domain: kitchen or scene.
        split: ``train``, ``val`` or empty.
        source: file the episode came from.
        rewards: float ``[T]`` as they were recorded, or None. They are kept and exported; learners are trained on
            the rewards of :mod:`ptr_fast.data.rewards`, which follow from the outcome and the place in the episode.
    """

    episode_id: str
    task: str
    states: np.ndarray
    actions: np.ndarray
    frames: Mapping[str, list[bytes] | np.ndarray]
    outcome: str = "unknown"
    kind: str = "unknown"
    domain: str = ""
    split: str = ""
    source: str = ""
    rewards: np.ndarray | None = None

    @property
    def num_steps(self) -> int:
        return len(self.actions)

    @property
    def num_frames(self) -> int:
        return len(self.states)


def save_meta(path: Path, meta: StoreMeta) -> None:
    """Writes ``meta.json`` of the store at ``path`` atomically."""
    write_atomically(path / "meta.json", (json.dumps(to_dict(meta), indent=2, ensure_ascii=False) + "\n").encode())


def refuse_inside_a_store(path: Path) -> None:
    """Passes where a new folder would not lie inside a store, in which nobody but its own writer makes anything.

    Raises:
        ValueError: it would; names the store.
    """
    for above in path.resolve().parents:
        if (above / "meta.json").is_file() and (above / "steps").is_dir():
            raise ValueError(f"{path}: lies inside the store {above}, which stays as it is; choose another folder")


def load_meta(path: Path) -> StoreMeta:
    """Reads ``meta.json`` of the store at ``path``.

    Raises:
        DataError: there is no store, or it has another schema version, or a field is wrong.
    """
    file = path / "meta.json"
    if path.is_file():
        raise DataError(f"{path}: a file, not a store (expected its folder)")
    if not file.is_file():
        raise DataError(f"{path}: not a store (expected the file meta.json)")
    try:
        data = parse_json(file.read_bytes())
    except ValueError as error:
        raise DataError(f"{file}: not valid JSON: {git_lfs_advice(file) or error}") from error
    version = data.get("schema_version") if isinstance(data, dict) else None
    if version != SCHEMA_VERSION:
        raise DataError(
            f"{file}: schema_version is {version!r}, this program reads version {SCHEMA_VERSION}; "
            "convert the source again"
        )
    try:
        return from_dict(StoreMeta, data)
    except (ValueError, TypeError) as error:
        raise DataError(f"{file}: {error}") from error


def column_crc(column: pa.Array) -> int:
    """CRC-32 of the values of an Arrow array: offsets first where it has them."""
    crc = 0
    for values in column_buffers(column):
        crc = zlib.crc32(values.data, crc)
    return crc


def column_buffers(column: pa.Array) -> list[np.ndarray]:
    """The value buffers of an unsliced array without nulls, as zero-copy numpy arrays cut to their true length."""
    if pa.types.is_fixed_size_list(column.type):
        return [np.frombuffer(column.values.buffers()[1], np.float32, count=len(column) * column.type.list_size)]
    if pa.types.is_list(column.type):
        offsets = (
            np.frombuffer(column.buffers()[1], np.int32, count=len(column) + 1)
            if len(column)
            else np.zeros(1, np.int32)
        )
        return [offsets, column.values.to_numpy()]
    if pa.types.is_string(column.type) or pa.types.is_large_binary(column.type):
        offset_type = np.int32 if pa.types.is_string(column.type) else np.int64
        _, offset_buffer, data = column.buffers()
        if len(column) == 0:
            return [np.zeros(1, offset_type), np.zeros(0, np.uint8)]
        offsets = np.frombuffer(offset_buffer, offset_type, count=len(column) + 1)
        return [offsets, np.frombuffer(data, np.uint8) if data is not None and data.size else np.zeros(0, np.uint8)]
    return [np.frombuffer(column.buffers()[1], column.type.to_pandas_dtype(), count=len(column))]
