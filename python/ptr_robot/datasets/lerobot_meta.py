"""What a LeRobot folder says about itself: ``meta/`` of versions 2.0, 2.1 and 3.0, read without the lerobot package.

Version 3.0 keeps many episodes in one Parquet file and one video; versions 2.0 and 2.1 one episode in each. Both are
described by the same :class:`LeRobotEpisode`: which files an episode is in, and from which second of a video on.
"""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from string import Formatter
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from ptr_fast.errors import DataError
from ptr_robot.datasets.contents import needed_file

__all__ = ["PARQUET", "LeRobotEpisode", "LeRobotMeta", "parquet_table", "read_meta"]

PARQUET = b"PAR1"
"""How a Parquet file begins."""
VERSIONS = ("v2.0", "v2.1", "v3.0")
DATA_KEYS, VIDEO_KEYS = ("data/chunk_index", "data/file_index"), ("chunk_index", "file_index", "from_timestamp")
SPLITS = {"train": "train", "val": "val", "validation": "val", "valid": "val", "test": "val"}


@dataclass(frozen=True, kw_only=True)
class LeRobotEpisode:
    """Where an episode lies.

    Attributes:
        index: its number in the data set.
        length: steps.
        data: its Parquet file, relative to the folder.
        videos: feature -> (video, second of the video at which the episode begins).
        split: ``train``, ``val`` or empty.
    """

    index: int
    length: int
    data: str
    videos: Mapping[str, tuple[str, float]] = field(default_factory=dict)
    split: str = ""


@dataclass(frozen=True, kw_only=True)
class LeRobotMeta:
    """A data set.

    Attributes:
        version: ``v2.0``, ``v2.1`` or ``v3.0``.
        fps: steps per second.
        robot_type: as it says; may be empty.
        features: as in ``info.json``: name -> dtype, shape, names.
        tasks: instruction by task index.
        episodes: in the order of their numbers.
        files: what was read for all this.
    """

    version: str
    fps: float
    robot_type: str
    features: Mapping[str, Mapping[str, Any]]
    tasks: Mapping[int, str]
    episodes: tuple[LeRobotEpisode, ...]
    files: tuple[Path, ...]


def read_meta(root: Path) -> LeRobotMeta:
    """Reads ``meta/`` of the data set at ``root``.

    Raises:
        DataError: a file is missing, damaged or of another version; names the file, the field, what was expected.
    """
    file = root / "meta" / "info.json"
    info = _info(file)
    version = info["codebase_version"]
    videos = [name for name, spec in info["features"].items() if spec["dtype"] == "video"]
    if videos and not isinstance(info.get("video_path"), str):
        raise DataError(
            f"{file}: video_path: expected a pattern, as {videos[0]!r} is a video, got {info.get('video_path')}"
        )
    if version == "v3.0":
        tasks_file = root / "meta" / "tasks.parquet"
        tasks = _tasks_of_table(tasks_file)
        found = sorted((root / "meta" / "episodes").glob("*/*.parquet"))
        if not found:
            raise DataError(f"{root / 'meta' / 'episodes'}: no file chunk-*/file-*.parquet; version v3.0 needs it")
        rows = [row for part in found for row in _episode_rows(part, videos)]
        episodes = [_located(row, file, info, videos, found[0].parent) for row in rows]
    else:
        tasks_file, found = root / "meta" / "tasks.jsonl", [root / "meta" / "episodes.jsonl"]
        tasks = {
            _whole(row["task_index"], f"{tasks_file}: task_index"): str("" if row["task"] is None else row["task"])
            for row in _lines(tasks_file, ("task_index", "task"))
        }
        rows = list(_lines(found[0], ("episode_index", "length")))
        episodes = [_located_by_number(row, file, info, videos, found[0]) for row in rows]
    if not episodes:
        raise DataError(f"{found[0]}: no episode in it")
    times = Counter(episode.index for episode in episodes)
    if twice := [index for index, count in times.items() if count > 1]:
        raise DataError(
            f"{found[0].parent}: episode_index: expected each episode once, got {twice[0]} {times[twice[0]]} times"
        )
    return LeRobotMeta(
        version=version,
        fps=float(info["fps"]),
        robot_type=str(info.get("robot_type") or ""),
        features=info["features"],
        tasks=tasks,
        episodes=tuple(sorted(episodes, key=lambda episode: episode.index)),
        files=(file, tasks_file, *found),
    )


def parquet_table(file: Path, columns: list[str] | None = None) -> pa.Table:
    """A whole Parquet file.

    Raises:
        DataError: missing, damaged, or without one of the columns; names the file.
    """
    needed_file(file, PARQUET)
    try:
        with pq.ParquetFile(file) as parquet:
            missing = [name for name in columns or () if name not in parquet.schema_arrow.names]
            if missing:
                raise DataError(f"{file}: expected column {missing[0]!r}, got {parquet.schema_arrow.names}")
            return parquet.read(columns)
    except (pa.ArrowException, OSError) as error:
        raise DataError(f"{file}: not a whole Parquet file ({str(error).splitlines()[0]})") from error


def _info(file: Path) -> dict[str, Any]:
    needed_file(file)
    try:
        info = json.loads(file.read_bytes())
    except ValueError as error:
        raise DataError(f"{file}: not valid JSON: {error}") from error
    version = info.get("codebase_version") if isinstance(info, dict) else None
    if version not in VERSIONS:
        raise DataError(f"{file}: codebase_version: expected one of {list(VERSIONS)}, got {version!r}")
    if type(info.get("fps")) not in (int, float) or not 0 < info["fps"] < float("inf"):
        raise DataError(f"{file}: fps: expected a positive number, got {info.get('fps')!r}")
    if not isinstance(info.get("data_path"), str):
        raise DataError(
            f"{file}: data_path: expected a pattern such as 'data/...parquet', got {info.get('data_path')!r}"
        )
    features = info.get("features")
    if not isinstance(features, dict) or not all(isinstance(s, dict) and "dtype" in s for s in features.values()):
        raise DataError(f"{file}: features: expected an entry with dtype and shape for every feature, got {features!r}")
    for name, spec in features.items():
        _check_feature(spec, f"{file}: features: {name}")
    if not isinstance(info.get("splits") or {}, dict):
        raise DataError(f"{file}: splits: expected an object such as {{'train': '0:3'}}, got {info['splits']!r}")
    return info


def _check_feature(spec: Mapping[str, Any], where: str) -> None:
    """Passes where what is used of a feature's entry has the types that LeRobot gives it."""
    if not isinstance(spec["dtype"], str):
        raise DataError(f"{where}: dtype: expected a name, got {spec['dtype']!r}")
    shape = spec.get("shape")
    if shape is not None and not (isinstance(shape, list) and all(isinstance(size, int) for size in shape)):
        raise DataError(f"{where}: shape: expected a list of whole numbers, got {shape!r}")
    for key in ("info", "video_info"):
        if not isinstance(spec.get(key) or {}, dict):
            raise DataError(f"{where}: {key}: expected an object, got {spec[key]!r}")


def _tasks_of_table(file: Path) -> dict[int, str]:
    """Tasks of version 3.0: the instruction is the table's pandas index, under whatever name."""
    table = parquet_table(file, ["task_index"])
    full = parquet_table(file)
    texts = [f.name for f in full.schema if pa.types.is_string(f.type) or pa.types.is_large_string(f.type)]
    if len(texts) != 1:
        raise DataError(f"{file}: expected one column of instructions beside task_index, got {full.schema.names}")
    indices = table.column("task_index").to_pylist()
    return {
        _whole(index, f"{file}: task_index"): text or ""
        for index, text in zip(indices, full.column(texts[0]).to_pylist(), strict=True)
    }


def _episode_rows(file: Path, videos: list[str]) -> Iterator[dict[str, Any]]:
    keys = [f"videos/{name}/{what}" for name in videos for what in VIDEO_KEYS]
    rows = parquet_table(file, ["episode_index", "length", *DATA_KEYS, *keys]).to_pylist()
    for row in rows:
        empty = next((name for name, value in row.items() if value is None), None)
        if empty:
            raise DataError(f"{file}: episode {row['episode_index']}: {empty}: expected a number, got nothing")
        yield row


def _located(
    row: Mapping[str, Any], file: Path, info: Mapping[str, Any], videos: list[str], where: Path
) -> LeRobotEpisode:
    """Where an episode lies, by its row of ``where`` and the patterns of ``info``, which is in ``file``."""
    data = _path(file, info, "data_path", chunk_index=row[DATA_KEYS[0]], file_index=row[DATA_KEYS[1]])
    places = {}
    for name in videos:
        chunk, number, start = (row[f"videos/{name}/{what}"] for what in VIDEO_KEYS)
        if not isinstance(start, (int, float)) or not 0 <= start < float("inf"):
            raise DataError(f"{where}: videos/{name}/{VIDEO_KEYS[2]}: expected seconds, got {start!r}")
        video = _path(file, info, "video_path", video_key=name, chunk_index=chunk, file_index=number)
        places[name] = (video, float(start))
    return _episode(row, info, data, places, where)


def _located_by_number(
    row: Mapping[str, Any], file: Path, info: Mapping[str, Any], videos: list[str], where: Path
) -> LeRobotEpisode:
    index = _whole(row["episode_index"], f"{where}: episode_index")
    chunk_size = _whole(info.get("chunks_size") or 1000, f"{file}: chunks_size")
    place = {"episode_chunk": index // chunk_size, "episode_index": index}
    places = {name: (_path(file, info, "video_path", video_key=name, **place), 0.0) for name in videos}
    return _episode(row, info, _path(file, info, "data_path", **place), places, where)


def _episode(
    row: Mapping[str, Any], info: Mapping[str, Any], data: str, videos: Mapping[str, tuple[str, float]], where: Path
) -> LeRobotEpisode:
    index = _whole(row["episode_index"], f"{where}: episode_index")
    length = _whole(row["length"], f"{where}: episode {index}: length")
    return LeRobotEpisode(index=index, length=length, data=data, videos=videos, split=_split(info, index))


def _whole(value: Any, where: str) -> int:
    """The value, where it is a whole number that counts something; DataError elsewhere."""
    if type(value) not in (int, float) or not 0 <= value < 2**63 or value != int(value):
        raise DataError(f"{where}: expected a whole number from 0 on, got {value!r}")
    return int(value)


def _path(about: Path, info: Mapping[str, Any], pattern: str, **place: Any) -> str:
    """A file of the data set; DataError where the pattern asks for anything else, or leads out of the folder."""
    where, text = f"{about}: {pattern}", info[pattern]
    try:
        fields = list(Formatter().parse(text))
    except ValueError as error:
        raise DataError(f"{where}: not a pattern: {text!r} ({error})") from error
    for _, name, size, conversion in fields:
        if name is not None and (name not in place or conversion or not re.fullmatch(r"|0?\d?d", size or "")):
            raise DataError(f"{where}: cannot fill {text!r}, expected nothing but numbers and names of {sorted(place)}")
    try:
        path = text.format(**place)
    except ValueError as error:
        raise DataError(f"{where}: cannot fill {text!r} with {place} ({error})") from error
    if Path(path).is_absolute() or ".." in Path(path).parts:
        raise DataError(f"{where}: expected a file inside the data set, got {path!r}")
    return path


def _split(info: Mapping[str, Any], index: int) -> str:
    """The split of an episode; empty where there is only one, which is what every data set has and says nothing."""
    splits = info.get("splits") or {}
    if len(splits) < 2:
        return ""
    for name, text in splits.items():
        first, colon, last = str(text).partition(":")
        if colon and first.isdigit() and last.isdigit() and int(first) <= index < int(last):
            return SPLITS.get(name, "")
    return ""


def _lines(file: Path, keys: tuple[str, ...]) -> Iterator[dict[str, Any]]:
    """Rows of a JSON-lines file that have these keys."""
    needed_file(file)
    for number, line in enumerate(file.read_text(errors="replace").splitlines(), 1):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
        except ValueError as error:
            raise DataError(f"{file}: line {number}: not valid JSON: {error}") from error
        missing = [key for key in keys if not isinstance(row, dict) or key not in row]
        if missing:
            raise DataError(f"{file}: line {number}: expected {missing[0]!r}, got {row}")
        yield row
