"""LeRobot data sets of versions 2.0, 2.1 and 3.0, images or videos, read without the lerobot package.

A row holds what was seen and the action that followed, so an episode has F == T frames. A folder that ``ptr-fast
export-dataset`` wrote says beside it what LeRobot has no place for (note "what LeRobot has no place for" in
:mod:`ptr_robot.datasets.lerobot_extra`): it becomes the store again that it was.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from ptr_fast.errors import DataError
from ptr_robot.datasets.contents import needed_file
from ptr_robot.datasets.layout import Keys, Layout, find_layout
from ptr_robot.datasets.lerobot_extra import Extra, read_extra
from ptr_robot.datasets.lerobot_meta import PARQUET, LeRobotEpisode, read_meta
from ptr_robot.datasets.rlds_features import NO_COLOURS
from ptr_robot.datasets.source import (
    EpisodeHandle,
    Frame,
    Shard,
    SourceEpisode,
    choose_cameras,
    fingerprint_files,
    outcome_of,
)
from ptr_robot.datasets.task_names import first_instruction
from ptr_robot.datasets.video_frames import VideoFrames, import_av

__all__ = ["LeRobotSource"]

IMAGES = ("observation.images.", "observation.image.", "observation.")
BOOKKEEPING = ("timestamp", "frame_index", "episode_index", "index", "task_index")
USUAL = Keys(action=("action",), state=("observation.state",), reward=("next.reward",), success=("next.success",))


class LeRobotSource:
    """A folder with ``meta/info.json``.

    Args:
        root: the folder.
        cameras: features to read, by name or without ``observation.images.``; empty reads every colour picture.
        keys: features to read for state, action, reward and success where they are not the usual ones.
        layout: name of a layout, see :func:`ptr_robot.datasets.layout.find_layout`.

    Raises:
        DataError: a file of ``meta/`` is missing or damaged, or there is no camera; names the file.
        ValueError: an unknown camera, feature or layout.
        RuntimeError: there are videos and PyAV is not installed.
    """

    format = "lerobot"

    def __init__(self, root: Path, cameras: tuple[str, ...] = (), keys: Keys = Keys(), layout: str = "") -> None:
        self.root, self._where = root, str(root / "meta" / "info.json")
        self.meta = read_meta(root)
        self.extra: Extra | None
        self.extra, told = read_extra(root, self.meta.episodes)
        if self.extra and (keys.action or keys.state):
            self.extra, told = (
                None,
                ["what the exported store held beside is not used, as --key chooses other features"],
            )
        self.dataset = self.meta.robot_type
        self.layout: Layout | None = (
            self.extra.layout if self.extra and not layout else find_layout(layout, "", "lerobot")
        )
        self.control_hz = self.extra.control_hz if self.extra else self.meta.fps
        self._camera_keys, left_out = self._cameras(cameras)
        self.cameras = tuple(self._camera_keys)
        self.keys = self._all_keys(keys)
        if any(self.meta.features[key]["dtype"] == "video" for key in self._camera_keys.values()):
            import_av()
        self.names: Mapping[str, tuple[str, ...]] = {what: self._names(what) for what in ("action", "state")}
        self.units: Mapping[str, tuple[str, ...]] = {}
        self.notes = (*told, *left_out, *self._unread())

    def shards(self) -> Sequence[Shard]:
        return [self._shard(episode) for episode in self.meta.episodes]

    def fingerprint(self) -> str:
        files = {self.root / name for episode in self.meta.episodes for name in self._files_of(episode)}
        return fingerprint_files(self.root, [*self.meta.files, *files])

    def _shard(self, episode: LeRobotEpisode) -> Shard:
        name = self.extra.episodes[episode.index].episode_id if self.extra else f"episode_{episode.index:06d}"
        handle = EpisodeHandle(episode_id=name, read=partial(self._read, episode, name))
        return Shard(name=name.rsplit("#", 1)[0], episodes=lambda: [handle], num_episodes=1)

    def _files_of(self, episode: LeRobotEpisode) -> Iterable[str]:
        yield episode.data
        for key in self._camera_keys.values():
            if key in episode.videos:
                yield episode.videos[key][0]

    def _cameras(self, wanted: tuple[str, ...]) -> tuple[dict[str, str], list[str]]:
        """Camera name -> feature, and what is said of pictures that show no colours."""
        keys, others = {}, {}
        for key, spec in self.meta.features.items():
            if spec["dtype"] not in ("image", "video"):
                continue
            name = next((key.removeprefix(start) for start in IMAGES if key.startswith(start)), key)
            why = _why_no_colours(key, spec)
            keys[name], others[name] = key, why
        asked = tuple(next((n for n, key in keys.items() if w in (n, key)), w) for w in wanted)
        usual = [name for name, why in others.items() if not why] if not asked else keys
        told = ", ".join(f"{name} ({why})" for name, why in others.items() if why and name not in asked)
        notes = (
            [f"left out, as these are no colour pictures: {told}; --cameras NAME takes one all the same"]
            if told
            else []
        )
        return {name: keys[name] for name in choose_cameras(asked, usual, self._where)}, notes

    def _all_keys(self, asked: Keys) -> Keys:
        """Asked for, else the usual ones that are there; ValueError or DataError says what can be named."""
        if asked.language:
            raise ValueError(
                f"{self._where}: --key language: a LeRobot data set has its tasks in meta/; --task says another"
            )
        numeric = {
            key: spec
            for key, spec in self.meta.features.items()
            if spec["dtype"] not in ("image", "video", "string", "language") and key not in BOOKKEEPING
        }
        given = {}
        for what in ("action", "state", "reward", "success"):
            own: tuple[str, ...] = getattr(asked, what)
            wanted = own or getattr(USUAL, what)
            if missing := [key for key in wanted if key not in numeric]:
                if what in ("reward", "success") and not own:
                    wanted = ()
                else:
                    shown = [f"{key} {list(spec.get('shape', ()))}" for key, spec in sorted(numeric.items())]
                    told = f"{missing[0]!r} is not there; what can be named with --key {what}=NAME: {shown}"
                    raise DataError(f"{self._where}: {what}: {told}")
            if what in ("reward", "success") and len(wanted) > 1:
                raise ValueError(f"--key {what}: expected one feature, got {list(wanted)}")
            given[what] = wanted
        return Keys(**given)

    def _names(self, what: str) -> tuple[str, ...]:
        """Names of the dimensions as the data set gives them; empty where one of its features gives none."""
        names: list[str] = []
        for key in getattr(self.keys, what):
            spec = self.meta.features[key]
            own = spec.get("names")
            if isinstance(own, dict):  # {"motors": [...]} of version 2
                own = [name for group in own.values() for name in (group if isinstance(group, list) else [group])]
            size = int(np.prod(spec.get("shape") or (1,)))
            if own is None and size == 1:
                own = [key]
            if not isinstance(own, list) or len(own) != size:
                return ()
            names += map(str, own)
        return tuple(names) if len(set(names)) == len(names) else ()

    def _unread(self) -> list[str]:
        notes = []
        if self.keys.success:
            notes.append(
                f"outcomes are taken from {self.keys.success[0]}: above 0 at any step is a success, else a failure"
            )
        used = {*self.keys.action, *self.keys.state, *self.keys.reward, *self.keys.success, *BOOKKEEPING}
        others = [
            key
            for key, spec in self.meta.features.items()
            if key not in used and spec["dtype"] not in ("image", "video")
        ]
        if others:
            notes.append(f"not read: {', '.join(sorted(others))}")
        return notes

    def _read(self, episode: LeRobotEpisode, name: str) -> SourceEpisode:
        file = self.root / episode.data
        where = f"{file}: episode {name!r}"
        images = [key for key in self._camera_keys.values() if self.meta.features[key]["dtype"] == "image"]
        columns = [*self.keys.action, *self.keys.state, *self.keys.reward, *self.keys.success, *images]
        table = _rows(file, [*columns, "timestamp", "task_index"], episode.index, where)
        if table.num_rows != episode.length:
            raise DataError(f"{where}: expected {episode.length} rows (meta/episodes), got {table.num_rows}")
        rewards, success = (_single(table, keys, where) for keys in (self.keys.reward, self.keys.success))
        task, remarks = self._task(table, where)
        rows = {what: _numbers(table, getattr(self.keys, what), where) for what in ("action", "state")}
        for what, names in self.names.items():
            if names and rows[what].shape[1] != len(names):
                told = f"expected {len(names)} numbers ({self._where}), got {rows[what].shape[1]}"
                raise DataError(f"{where}, {', '.join(getattr(self.keys, what))}: {told}")
        read = SourceEpisode(
            episode_id=name,
            task=task,
            states=rows["state"],
            actions=rows["action"],
            frames={camera: self._frames(table, camera, episode, where) for camera in self.cameras},
            split=episode.split,
            source=episode.data,
            outcome=outcome_of(success),
            rewards=rewards,
            remarks=remarks,
        )
        return self.extra.restored(read, episode.index, self._camera_keys) if self.extra else read

    def _task(self, table: pa.Table, where: str) -> tuple[str, tuple[str, ...]]:
        indices = table.column("task_index").to_pylist()
        if unknown := [index for index in indices if index not in self.meta.tasks]:
            raise DataError(f"{where}, task_index: expected one of meta/tasks, got {unknown[0]}")
        texts = [self.meta.tasks[index] for index in indices]
        changes = len({first_instruction([text]) for text in set(texts)} - {""}) > 1
        told = ("change their task on the way; the first one was taken",) if changes else ()
        return first_instruction(dict.fromkeys(texts)), told

    def _frames(self, table: pa.Table, camera: str, episode: LeRobotEpisode, where: str) -> Sequence[Frame]:
        key = self._camera_keys[camera]
        if key in episode.videos:
            video, start = episode.videos[key]
            times = start + _numbers(table, ("timestamp",), where)[:, 0].astype(np.float64)
            told = f"episode {episode.index}, camera {camera!r}"
            return VideoFrames(self.root / video, times.tolist(), 0.5 / self.meta.fps, told)
        frames = []
        for step, value in enumerate(table.column(key).to_pylist()):
            data = value.get("bytes") if isinstance(value, dict) else value
            if data is None and isinstance(value, dict) and value.get("path"):
                image = self.root / value["path"]
                if ".." in Path(value["path"]).parts or not image.is_relative_to(self.root):
                    told = f"expected a file inside the data set, got {value['path']!r}"
                    raise DataError(f"{where}, camera {camera!r}, step {step}: {told}")
                needed_file(image)
                data = image.read_bytes()
            if not isinstance(data, bytes):
                raise DataError(f"{where}, camera {camera!r}, step {step}: expected an image file, got {value!r:.80}")
            frames.append(data)
        return frames


def _why_no_colours(key: str, spec: Mapping[str, Any]) -> str:
    about = {**(spec.get("info") or {}), **(spec.get("video_info") or {})}
    if about.get("video.is_depth_map") or about.get("is_depth_map"):
        return "a depth map"
    shape = list(spec.get("shape") or ())
    if len(shape) == 3 and 3 not in (shape[0], shape[2]):
        return f"shape {shape}"
    word = next((word for word in NO_COLOURS if word in key.lower()), "")
    return f"called {word!r}" if word else ""


def _rows(file: Path, columns: list[str], episode: int, where: str) -> pa.Table:
    """Rows of one episode in the order of their steps, from those row groups that can have some."""
    needed_file(file, PARQUET)
    columns = list(dict.fromkeys([*columns, "episode_index", "frame_index"]))
    try:
        with pq.ParquetFile(file) as parquet:
            names = parquet.schema_arrow.names
            if missing := [name for name in columns if name not in names]:
                raise DataError(f"{where}: expected column {missing[0]!r}, got {names}")
            if twice := [name for name in columns if names.count(name) > 1]:
                raise DataError(f"{where}: expected column {twice[0]!r} once, got {names}")
            for name in ("episode_index", "frame_index"):
                if not pa.types.is_integer(kind := parquet.schema_arrow.field(name).type):
                    raise DataError(f"{where}, {name}: expected whole numbers, got {kind}")
            groups = [i for i in range(parquet.num_row_groups) if _may_hold(parquet, i, episode)]
            table = parquet.read_row_groups(groups, columns)
    except (pa.ArrowException, OSError) as error:
        raise DataError(f"{where}: not a whole Parquet file ({str(error).splitlines()[0]})") from error
    table = table.filter(np.asarray(table.column("episode_index")) == episode)
    steps = np.asarray(table.column("frame_index"))
    if not np.array_equal(steps, np.arange(len(steps))):
        raise DataError(f"{where}, frame_index: expected 0 to {len(steps) - 1} in order, got {steps[:5].tolist()}...")
    return table


def _may_hold(parquet: pq.ParquetFile, group: int, episode: int) -> bool:
    about = parquet.metadata.row_group(group)
    for i in range(about.num_columns):
        column = about.column(i)
        if column.path_in_schema == "episode_index" and column.is_stats_set and column.statistics.has_min_max:
            return column.statistics.min <= episode <= column.statistics.max
    return True


def _numbers(table: pa.Table, keys: Sequence[str], where: str) -> np.ndarray:
    """float32 ``[T, n]``: the numbers of some features side by side."""
    pieces = []
    for key in keys:
        column = table.column(key)
        if column.null_count:
            raise DataError(f"{where}, {key}: expected numbers, got {column.null_count} empty ones")
        values = column.combine_chunks()
        while pa.types.is_list(values.type) or pa.types.is_fixed_size_list(values.type):
            if pa.types.is_list(values.type) and len(pc.unique(pc.list_value_length(values))) > 1:
                raise DataError(f"{where}, {key}: expected rows of numbers of one length, got {column.type}")
            values = values.flatten()
            if values.null_count:
                raise DataError(f"{where}, {key}: expected numbers, got {values.null_count} empty ones")
        numbers = values.to_numpy(zero_copy_only=False)
        if numbers.dtype.kind not in "bifu" or len(numbers) % len(column):
            raise DataError(f"{where}, {key}: expected rows of numbers of one length, got {column.type}")
        with np.errstate(over="ignore"):  # a number too large is told as one that is not finite
            pieces.append(numbers.astype(np.float32).reshape(len(column), -1))
    return np.concatenate(pieces, axis=1)


def _single(table: pa.Table, keys: Sequence[str], where: str) -> np.ndarray | None:
    """float32 ``[T]``: a feature of one number a step; None where there is no such feature."""
    if not keys:
        return None
    rows = _numbers(table, keys, where)
    if rows.shape[1] != 1:
        raise DataError(f"{where}, {keys[0]}: expected one number a step, got {rows.shape[1]}")
    return rows[:, 0]
