"""One file an episode: ``.npz`` files of arrays, or ``.npy`` files that hold a list of steps, each a dict.

The second is what the example of the RLDS dataset builder writes. Pickles in them are read without running them
(:mod:`ptr_robot.datasets.restricted_pickle`). The task is a text array or entry of that name, or asked for.
"""

from __future__ import annotations

import zipfile
import zlib
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from tokenize import TokenError
from typing import Any

import numpy as np

from ptr_fast.errors import DataError
from ptr_robot.datasets.contents import needed_file
from ptr_robot.datasets.layout import Keys, Layout, find_layout
from ptr_robot.datasets.named_arrays import Array, choose_arrays, episode_of
from ptr_robot.datasets.restricted_pickle import load_object_array
from ptr_robot.datasets.source import EpisodeHandle, Shard, SourceEpisode, fingerprint_files
from ptr_robot.datasets.task_names import first_instruction

__all__ = ["EpisodeFilesSource", "find_episode_files"]

LANGUAGE = ("task", "language_instruction", "language", "instruction")
ZIP = b"PK\x03\x04"


def find_episode_files(root: Path) -> list[Path]:
    """``.npz`` files below a folder, or where there is none ``.npy`` files, in order."""
    for suffix in ("npz", "npy"):
        files = [file for file in root.rglob(f"*.{suffix}") if file.is_file() and file.name != "out.npy"]
        if files:
            return sorted(files)
    return []


class EpisodeFilesSource:
    """A folder of such files.

    Args:
        root: the folder.
        cameras, keys: see :func:`ptr_robot.datasets.named_arrays.choose_arrays`.
        layout: name of a layout, see :func:`ptr_robot.datasets.layout.find_layout`.

    Raises:
        DataError: no such file, the first one that can be read has no camera, state or action; names the file.
    """

    format, dataset = "episode-files", ""

    def __init__(self, root: Path, cameras: tuple[str, ...] = (), keys: Keys = Keys(), layout: str = "") -> None:
        self.root, self.files = root, find_episode_files(root)
        if not self.files:
            raise DataError(f"{root}: no file *.npz or *.npy")
        file, content = _first_readable(self.files)
        arrays = {path: Array.of(values) for path, values in content.items() if values.ndim and len(values)}
        self._chosen = choose_arrays(arrays, cameras, keys, str(file))
        self.layout: Layout | None = find_layout(layout, "", self.format)
        self.cameras, self.keys = tuple(self._chosen.cameras), self._chosen.keys
        self.names: Mapping[str, tuple[str, ...]] = self._chosen.names
        self.units: Mapping[str, tuple[str, ...]] = {}
        self.notes = self._chosen.notes

    def shards(self) -> Sequence[Shard]:
        return [
            Shard(name=self._name(file), episodes=partial(self._episodes, file), num_episodes=1) for file in self.files
        ]

    def fingerprint(self) -> str:
        return fingerprint_files(self.root, self.files)

    def _name(self, file: Path) -> str:
        return file.relative_to(self.root).as_posix()

    def _episodes(self, file: Path) -> list[EpisodeHandle]:
        return [EpisodeHandle(episode_id=self._name(file), read=partial(self._read, file))]

    def _read(self, file: Path) -> SourceEpisode:
        name, content = self._name(file), _read_file(file)
        texts = [content[key] for key in LANGUAGE if key in content and content[key].dtype.kind in "SUO"]
        told = first_instruction(_text(value) for array in texts for value in array.reshape(-1)[:1])
        where = f"{file}: episode {name!r}"
        return episode_of(self._chosen, content, where, episode_id=name, task=told, source=name)


def _first_readable(files: Sequence[Path]) -> tuple[Path, Mapping[str, np.ndarray]]:
    """The first file that can be read: one bad file does not decide for all others."""
    errors = []
    for file in files:
        try:
            return file, _read_file(file)
        except DataError as error:
            errors.append(error)
    raise errors[0]


def _read_file(file: Path) -> dict[str, np.ndarray]:
    return _read_npz(file) if file.suffix == ".npz" else _read_steps(file)


def _read_npz(file: Path) -> dict[str, np.ndarray]:
    needed_file(file, ZIP)
    try:
        with np.load(file, allow_pickle=False) as content:
            found = {name: content[name] for name in content.files}
    except MemoryError as error:
        raise DataError(f"{file}: an array in it does not fit into memory, or is damaged ({error})") from error
    except (OSError, ValueError, OverflowError, EOFError, zipfile.BadZipFile, zlib.error, TokenError) as error:
        raise DataError(f"{file}: not a whole npz file of plain arrays ({error})") from error
    if foreign := [name for name, values in found.items() if not isinstance(values, np.ndarray)]:
        raise DataError(f"{file}: {foreign[0]}: not an array, expected a npz file of plain arrays")
    return found


def _read_steps(file: Path) -> dict[str, np.ndarray]:
    """Arrays of a list of steps, each a dict of numbers, arrays, texts and such dicts, by path."""
    steps = load_object_array(file)
    rows: dict[str, list[Any]] = {}
    for number, step in enumerate(steps):
        if not isinstance(step, dict):
            raise DataError(f"{file}: step {number}: expected a dict, got {type(step).__name__}")
        for path, value in _leaves(step):
            rows.setdefault(path, []).append(value)
    out = {}
    for path, values in rows.items():
        if len(values) != len(steps):
            raise DataError(f"{file}: {path}: expected a value in each of {len(steps)} steps, got {len(values)}")
        try:
            out[path] = np.asarray(values)
        except ValueError as error:
            raise DataError(f"{file}: {path}: expected values of one shape ({error})") from error
    return out


def _leaves(step: Mapping[str, Any], above: str = "") -> list[tuple[str, Any]]:
    found = []
    for name, value in step.items():
        path = f"{above}{name}"
        found += _leaves(value, f"{path}/") if isinstance(value, dict) else [(path, value)]
    return found


def _text(value: Any) -> str:
    return value.decode(errors="replace") if isinstance(value, bytes) else str(value)
