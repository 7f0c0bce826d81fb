"""Minari data sets (gymnasium): ``data/main_data.hdf5`` with ``episode_0/...`` (h5py, ``ptr-fast[hdf5]``).

Observations have one row more than actions, so the observation after the last action is there. The task is asked for.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path

from ptr_fast.errors import DataError
from ptr_robot.datasets.contents import needed_file
from ptr_robot.datasets.hdf5 import arrays_below, opened
from ptr_robot.datasets.layout import Keys, Layout, find_layout
from ptr_robot.datasets.named_arrays import Array, choose_arrays, episode_of
from ptr_robot.datasets.source import EpisodeHandle, Shard, SourceEpisode, fingerprint_files

__all__ = ["MinariSource"]

FILE = Path("data", "main_data.hdf5")


class MinariSource:
    """A folder with ``data/main_data.hdf5`` and ``data/metadata.json``.

    Args:
        root: the folder.
        cameras, keys: see :func:`ptr_robot.datasets.named_arrays.choose_arrays`; a plain row of observations is the
            state without being asked for.
        layout: name of a layout, see :func:`ptr_robot.datasets.layout.find_layout`.

    Raises:
        DataError: damaged, no episode, no camera, state or action; names the file.
        RuntimeError: h5py is not installed.
    """

    format = "minari"

    def __init__(self, root: Path, cameras: tuple[str, ...] = (), keys: Keys = Keys(), layout: str = "") -> None:
        self.root, self._file = root, root / FILE
        about = _metadata(root / "data" / "metadata.json")
        self.dataset = str(about.get("dataset_id", ""))
        with opened(self._file) as file:
            self._episodes = sorted(
                (name for name in file if name.startswith("episode_") and name[8:].isdigit()), key=lambda n: int(n[8:])
            )
            if not self._episodes:
                raise DataError(f"{self._file}: expected groups episode_0, episode_1, ..., got {list(file)[:5]}")
            found = arrays_below(file[self._episodes[0]], file, skip=("infos",))
            arrays = {path: Array.of(node) for path, node in found.items()}
        expected = about.get("total_episodes")
        told = [f"{self._file}: metadata.json says {expected} episodes, there are {len(self._episodes)}"]
        usual = Keys(state=("observations",) if "observations" in arrays else ())
        self._chosen = choose_arrays(arrays, cameras, keys, str(self._file), usual)
        self.layout: Layout | None = find_layout(layout, "", self.format)
        self.cameras, self.keys = tuple(self._chosen.cameras), self._chosen.keys
        self.names: Mapping[str, tuple[str, ...]] = self._chosen.names
        self.units: Mapping[str, tuple[str, ...]] = {}
        self.notes = (*self._chosen.notes, *(told if expected not in (None, len(self._episodes)) else []))

    def shards(self) -> Sequence[Shard]:
        return [Shard(name=FILE.name, episodes=self._handles, num_episodes=len(self._episodes))]

    def fingerprint(self) -> str:
        return fingerprint_files(self.root, [self._file])

    def _handles(self) -> list[EpisodeHandle]:
        ids = [f"{FILE.name}#{name}" for name in self._episodes]
        return [
            EpisodeHandle(episode_id=episode_id, read=partial(self._read, name, episode_id))
            for name, episode_id in zip(self._episodes, ids, strict=True)
        ]

    def _read(self, name: str, episode_id: str) -> SourceEpisode:
        where = f"{self._file}: episode {name!r}"
        with opened(self._file) as file:
            try:
                arrays = arrays_below(file[name], file, skip=("infos",))
                return episode_of(self._chosen, arrays, where, episode_id=episode_id, task="", source=str(FILE))
            except MemoryError as error:
                raise DataError(f"{where}: an array does not fit into memory, or is damaged ({error})") from error
            except (OSError, KeyError, RuntimeError) as error:
                raise DataError(f"{where}: cannot be read, the file is damaged ({error})") from error


def _metadata(file: Path) -> dict:
    needed_file(file)
    try:
        about = json.loads(file.read_bytes())
    except ValueError as error:
        raise DataError(f"{file}: not valid JSON: {error}") from error
    if not isinstance(about, dict):
        raise DataError(f"{file}: expected an object, got {about!r:.80}")
    if about.get("data_format", "hdf5") != "hdf5":
        raise DataError(f"{file}: data_format: expected 'hdf5', got {about['data_format']!r}; save it anew with minari")
    return about
