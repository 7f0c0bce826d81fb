"""A store as a LeRobot data set of version 3.0, which its package loads, trains on and shows.

Frames are image files without loss by default: JPEG files byte for byte, raw pixels as PNG. Of each step a row holds
what was seen, the action that followed, and where it is known whether the episode succeeded the success and reward of
that action. The whole folder is written under another name and renamed, so that it is there whole or not at all.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from ptr_fast.config import RewardConfig
from ptr_fast.data.rewards import label_steps
from ptr_fast.data.store import EpisodeStore
from ptr_fast.data.store_meta import refuse_inside_a_store
from ptr_fast.files import sync_directory, sync_tree, writing
from ptr_robot.datasets.lerobot_extra import image_file, write_extra
from ptr_robot.datasets.lerobot_features import data_schema, declared_features, tasks_table
from ptr_robot.datasets.lerobot_statistics import SAMPLED_FRAMES, combined, nested, statistics_of
from ptr_robot.datasets.video_file import VideoFile

__all__ = ["LeRobotWriter"]

DATA_MB, VIDEO_MB, FILES_PER_CHUNK = 100, 200, 1000
DATA_PATH = "data/chunk-{chunk_index:03d}/file-{file_index:03d}.parquet"
VIDEO_PATH = "videos/{video_key}/chunk-{chunk_index:03d}/file-{file_index:03d}.mp4"


@dataclass
class _Place:
    """The file that is being filled: its number, and what fills it."""

    number: int = 0
    file: Any = None
    size: int = 0
    frames: int = 0
    start: float = field(default=0.0)

    @property
    def numbers(self) -> tuple[int, int]:
        """Index of the chunk, and of the file in it."""
        return divmod(self.number, FILES_PER_CHUNK)


class LeRobotWriter:
    """Writes one data set.

    Args:
        store: what is written.
        rewards: of steps whose rewards were not recorded.
        as_video: frames become videos, with loss.
        robot_type: name of the robot for LeRobot; may be empty.
        fps: steps per second, a whole number as LeRobot needs it.
        data_mb, video_mb: size at which the next file is begun, 1e6 bytes.

    Raises:
        ValueError: a camera's name is none for LeRobot.
    """

    def __init__(
        self,
        store: EpisodeStore,
        *,
        rewards: RewardConfig,
        as_video: bool,
        robot_type: str,
        fps: int,
        data_mb: float = DATA_MB,
        video_mb: float = VIDEO_MB,
    ) -> None:
        self.store, self._rewards, self._as_video, self._fps = store, rewards, as_video, fps
        self._robot_type, self._limits = robot_type, (data_mb * 1e6, video_mb * 1e6)
        if slashed := [camera.name for camera in store.meta.cameras if "/" in camera.name]:
            told = f"LeRobot's names have no '/'; ptr-fast edit --rename-camera {slashed[0]}=NAME gives it another"
            raise ValueError(f"{store.path}: camera {slashed[0]!r}: {told}")
        self.camera_keys = {camera.name: f"observation.images.{camera.name}" for camera in store.meta.cameras}
        outcomes = store.episodes.outcome
        self.knows_success = "unknown" not in outcomes
        self.has_recorded_rewards = all(rows is not None for rows in store.episodes.rewards) and bool(outcomes)
        self.tasks = {task: i for i, task in enumerate(dict.fromkeys(store.episodes.task))}
        self._features = declared_features(
            store.meta,
            self.camera_keys,
            fps=fps,
            as_video=as_video,
            has_success=self.knows_success,
            has_reward=self.knows_success or self.has_recorded_rewards,
        )

    def write(self, out: Path, progress: Any) -> None:
        """Writes the folder ``out``, which must not exist; ``progress.advance()`` is called after every episode.

        Raises:
            ValueError: ``out`` is there already or inside a store, or the frames do not make a video.
            OSError: the file system refuses; nothing is left.
        """
        if out.exists():
            raise ValueError(f"{out}: there already; choose another folder")
        refuse_inside_a_store(out)
        temporary = out.with_name(f".{out.name}.{os.getpid()}.tmp")
        with writing(out):
            try:
                (temporary / "meta").mkdir(parents=True)
                self._write_all(temporary, progress)
                sync_tree(temporary)
                os.replace(temporary, out)
                sync_directory(out.parent)
            finally:
                shutil.rmtree(temporary, ignore_errors=True)

    def _write_all(self, root: Path, progress: Any) -> None:
        rows, statistics = [], []
        data, videos = _Place(), {name: _Place() for name in self.camera_keys}
        schema, num_rows = data_schema(self._features), 0
        try:
            for index in range(self.store.num_episodes):
                columns, pictures = self._columns(index, num_rows)
                steps = len(columns["index"])
                place = self._write_rows(root, schema, columns, data)
                seen = {name: self._write_frames(root, name, index, videos[name]) for name in videos}
                statistics.append(
                    {
                        **{key: statistics_of(values) for key, values in columns.items() if key not in pictures},
                        **{key: statistics_of(frames) for key, frames in self._sampled(index).items()},
                    }
                )
                rows.append(self._episode_row(index, steps, num_rows, place, seen, statistics[-1]))
                num_rows += steps
                progress.advance()
        finally:
            for one in (data, *videos.values()):
                if one.file is not None:
                    one.file.close()
        self._write_meta(root, rows, statistics, num_rows)

    def _columns(self, index: int, num_rows: int) -> tuple[dict[str, Any], list[str]]:
        """Columns of an episode, and which of them are image files."""
        table = self.store.episodes
        first, steps = int(table.first[index]), int(table.num_steps[index])
        columns: dict[str, Any] = {
            "observation.state": self.store.state[first : first + steps],
            "action": self.store.action[first : first + steps],
        }
        pictures = [] if self._as_video else list(self.camera_keys.values())
        for name, key in self.camera_keys.items():
            if not self._as_video:
                suffix = "png" if self.store.meta.camera(name).encoding == "raw" else "jpg"
                columns[key] = [
                    {"bytes": image_file(self.store, name, first + step), "path": f"frame-{step:06d}.{suffix}"}
                    for step in range(steps)
                ]
        last = np.arange(steps) == steps - 1
        is_failure = table.outcome[index] == "failure"
        columns["next.done"] = last
        if "next.success" in self._features:
            columns["next.success"] = last & (not is_failure)
        if "next.reward" in self._features:
            columns["next.reward"] = (
                table.rewards[index]
                if self.has_recorded_rewards
                else label_steps(np.array([steps]), self._rewards, np.array([is_failure]))[0]
            )
        columns["timestamp"] = (np.arange(steps) / self._fps).astype(np.float32)
        columns["frame_index"] = np.arange(steps)
        columns["episode_index"] = np.full(steps, index)
        columns["index"] = num_rows + np.arange(steps)
        columns["task_index"] = np.full(steps, self.tasks[table.task[index]])
        return {key: columns[key] for key in self._features if key in columns}, pictures

    def _write_rows(self, root: Path, schema: pa.Schema, columns: Mapping[str, Any], place: _Place) -> tuple[int, int]:
        """Appends the rows of an episode as one row group; the chunk and file that they are in."""
        if place.file is not None and place.size > self._limits[0]:
            place.file.close()
            place.file, place.size, place.number = None, 0, place.number + 1
        if place.file is None:
            chunk, number = place.numbers
            file = root / DATA_PATH.format(chunk_index=chunk, file_index=number)
            file.parent.mkdir(parents=True, exist_ok=True)
            place.file = pq.ParquetWriter(file, schema, compression="snappy")
        arrays = []
        for one in schema:
            values = columns[one.name]
            if pa.types.is_fixed_size_list(one.type):
                flat = pa.array(np.ascontiguousarray(values).reshape(-1), one.type.value_type)
                arrays.append(pa.FixedSizeListArray.from_arrays(flat, one.type.list_size))
            else:
                rows = values.reshape(-1) if isinstance(values, np.ndarray) else values
                arrays.append(pa.array(rows, one.type))
        table = pa.Table.from_arrays(arrays, schema=schema)
        place.file.write_table(table, row_group_size=max(1, table.num_rows))
        place.size += table.nbytes
        return place.numbers

    def _write_frames(self, root: Path, camera: str, index: int, place: _Place) -> dict[str, Any]:
        """Appends the frames of an episode to its camera's video; where they are, empty for images."""
        if not self._as_video:
            return {}
        if place.file is not None and place.file.num_bytes > self._limits[1]:
            place.file.close()
            place.file, place.number = None, place.number + 1
        chunk, number = place.numbers
        if place.file is None:
            key, spec = self.camera_keys[camera], self.store.meta.camera(camera)
            file = root / VIDEO_PATH.format(video_key=key, chunk_index=chunk, file_index=number)
            file.parent.mkdir(parents=True, exist_ok=True)
            place.file = VideoFile(file, spec.height, spec.width, self._fps)
        start = place.file.num_frames
        place.file.add(self._frames(camera, index, range(int(self.store.episodes.num_steps[index]))))
        times = {"from_timestamp": start / self._fps, "to_timestamp": place.file.num_frames / self._fps}
        return {"chunk_index": chunk, "file_index": number, **times}

    def _frames(self, camera: str, index: int, steps: Any) -> Iterator[np.ndarray]:
        first = int(self.store.episodes.first[index])
        return (self.store.frame(camera, first + int(step)) for step in steps)

    def _sampled(self, index: int) -> dict[str, np.ndarray]:
        """Some frames of every camera, uint8 ``[n, H, W, 3]``, evenly over the episode."""
        steps = int(self.store.episodes.num_steps[index])
        chosen = np.unique(np.linspace(0, steps - 1, min(steps, SAMPLED_FRAMES)).round().astype(int))
        return {key: np.stack([*self._frames(name, index, chosen)]) for name, key in self.camera_keys.items()}

    def _episode_row(
        self,
        index: int,
        steps: int,
        first: int,
        place: tuple[int, int],
        videos: Mapping[str, Mapping[str, Any]],
        statistics: Mapping[str, Any],
    ) -> dict[str, Any]:
        row: dict[str, Any] = {
            "episode_index": index,
            "tasks": [self.store.episodes.task[index]],
            "length": steps,
            "data/chunk_index": place[0],
            "data/file_index": place[1],
            "dataset_from_index": first,
            "dataset_to_index": first + steps,
        }
        for name, about in videos.items():
            row.update({f"videos/{self.camera_keys[name]}/{what}": value for what, value in about.items()})
        for key in self._features:
            about = nested(statistics[key], key in self.camera_keys.values())
            row.update({f"stats/{key}/{name}": value for name, value in about.items()})
        return {**row, "meta/episodes/chunk_index": 0, "meta/episodes/file_index": 0}

    def _write_meta(self, root: Path, rows: list[Any], statistics: list[Any], num_rows: int) -> None:
        folder = root / "meta" / "episodes" / "chunk-000"
        folder.mkdir(parents=True)
        pq.write_table(pa.Table.from_pylist(rows), folder / "file-000.parquet", compression="snappy")
        all_together = {}
        for key in self._features:
            together = combined([one[key] for one in statistics])
            all_together[key] = nested(together, key in self.camera_keys.values())
        info = {
            "codebase_version": "v3.0",
            "fps": self._fps,
            "features": self._features,
            "total_episodes": len(rows),
            "total_frames": num_rows,
            "total_tasks": len(self.tasks),
            "chunks_size": FILES_PER_CHUNK,
            "data_files_size_in_mb": DATA_MB,
            "video_files_size_in_mb": VIDEO_MB,
            "data_path": DATA_PATH,
            "video_path": VIDEO_PATH if self._as_video else None,
            "robot_type": self._robot_type or None,
            "splits": {"train": f"0:{len(rows)}"},
        }
        for name, content in (("stats.json", all_together), ("info.json", info)):
            (root / "meta" / name).write_text(json.dumps(content, indent=4, ensure_ascii=False))
        pq.write_table(tasks_table(self.tasks), root / "meta" / "tasks.parquet", compression="snappy")
        write_extra(root, self.store, self.camera_keys)
