"""Replay buffers of diffusion_policy: a zarr folder with ``data/...`` and ``meta/episode_ends`` (``ptr-fast[zarr]``).

Arrays hold the steps of all episodes one after the other; ``episode_ends`` says where each one ends. Nothing was seen
after the last action of an episode. Task and steps per second are asked for.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from ptr_fast.errors import DataError
from ptr_robot.datasets.layout import Keys, Layout, find_layout
from ptr_robot.datasets.named_arrays import Array, choose_arrays, episode_of
from ptr_robot.datasets.source import EpisodeHandle, Shard, SourceEpisode, fingerprint_files

__all__ = ["ZarrSource", "is_replay_buffer"]

ENDS = "episode_ends"
DAMAGE = (OSError, ValueError, RuntimeError, ZeroDivisionError)
"""What zarr and its codecs raise where a chunk is not what its array says."""


def is_replay_buffer(folder: Path) -> bool:
    """Whether a folder has the arrays of a replay buffer."""
    return (folder / "data").is_dir() and (folder / "meta" / ENDS).is_dir()


class ZarrSource:
    """A replay buffer.

    Args:
        root: the ``.zarr`` folder.
        cameras, keys: see :func:`ptr_robot.datasets.named_arrays.choose_arrays`.
        layout: name of a layout, see :func:`ptr_robot.datasets.layout.find_layout`.

    Raises:
        DataError: damaged, lengths that do not fit, no camera, state or action; names the array.
        RuntimeError: the package zarr is not installed.
    """

    format, dataset = "zarr", ""

    def __init__(self, root: Path, cameras: tuple[str, ...] = (), keys: Keys = Keys(), layout: str = "") -> None:
        self.root = root
        self._arrays, self._ends = _opened(root)
        arrays = {path: _declared(one, root / "data" / path) for path, one in self._arrays.items()}
        self._chosen = choose_arrays(arrays, cameras, keys, str(root / "data"))
        self._check_lengths()
        self.layout: Layout | None = find_layout(layout, "", self.format)
        self.cameras, self.keys = tuple(self._chosen.cameras), self._chosen.keys
        self.names: Mapping[str, tuple[str, ...]] = self._chosen.names
        self.units: Mapping[str, tuple[str, ...]] = {}
        self.notes = self._chosen.notes

    def shards(self) -> Sequence[Shard]:
        return [Shard(name=self.root.name, episodes=self._handles, num_episodes=len(self._ends))]

    def fingerprint(self) -> str:
        return fingerprint_files(self.root, [file for file in self.root.rglob("*") if file.is_file()])

    def _handles(self) -> list[EpisodeHandle]:
        starts = [0, *self._ends[:-1]]
        return [
            EpisodeHandle(episode_id=f"{self.root.name}#{i}", read=partial(self._read, i, int(first), int(last)))
            for i, (first, last) in enumerate(zip(starts, self._ends, strict=True))
        ]

    def _check_lengths(self) -> None:
        file = self.root / "meta" / ENDS
        if not len(self._ends) or (np.diff([0, *self._ends]) <= 0).any():
            raise DataError(f"{file}: expected numbers that rise from above 0, got {self._ends[:5].tolist()}...")
        keys = self._chosen.keys
        for path in (*keys.action, *keys.state, *keys.reward, *keys.success, *self._chosen.cameras.values()):
            shape = list(self._arrays[path].shape)
            if shape[:1] != [self._ends[-1]]:
                raise DataError(f"{self.root / 'data' / path}: expected {self._ends[-1]} rows ({ENDS}), got {shape}")

    def _read(self, index: int, first: int, last: int) -> SourceEpisode:
        where = f"{self.root / 'data'}: episode {index} (rows {first} to {last - 1})"
        arrays = {path: _Rows(array, first, last, f"{where}, {path}") for path, array in self._arrays.items()}
        return episode_of(self._chosen, arrays, where, episode_id=f"{self.root.name}#{index}", task="", source="data")


class _Rows:
    """Rows of a zarr array, read when numpy asks for them."""

    def __init__(self, array: Any, first: int, last: int, where: str) -> None:
        self._array, self._first, self._last, self._where = array, first, last, where

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray:
        try:
            rows = np.asarray(self._array[self._first : self._last])
        except DAMAGE as error:
            raise DataError(f"{self._where}: a chunk is damaged ({error})") from error
        return rows if dtype is None else rows.astype(dtype)


def _opened(root: Path) -> tuple[dict[str, Any], np.ndarray]:
    """Arrays below ``data`` by path, and where the episodes end."""
    try:
        import zarr
    except ImportError as error:
        raise RuntimeError("zarr folders need the package zarr: pip install 'ptr-fast[zarr]'") from error
    try:
        group: Any = zarr.open_group(str(root), mode="r")
        _declared(group[f"meta/{ENDS}"], root / "meta" / ENDS)
        ends = np.asarray(group[f"meta/{ENDS}"][:])
        if ends.ndim != 1 or (ends.size and ends.dtype.kind not in "iu"):
            raise ValueError(f"{ENDS}: expected a row of whole numbers, got {ends.dtype} {list(ends.shape)}")
        return dict(_arrays(group["data"])), ends.astype(np.int64)
    except (KeyError, OSError, ValueError, RuntimeError, TypeError) as error:
        where = _wrongly_described(root) or f"{root}: not a replay buffer with data and meta/{ENDS} ({error!r})"
        raise DataError(where) from error


def _wrongly_described(root: Path) -> str:
    """The first file that describes an array as zarr cannot read it, and why; empty where there is none."""
    import zarr

    for file in sorted(file for name in (".zarray", "zarr.json") for file in root.rglob(name)):
        try:
            zarr.open(str(file.parent), mode="r")
        except (KeyError, OSError, ValueError, RuntimeError, TypeError) as error:
            return f"{file}: not the description of an array ({error!r})"
    return ""


def _declared(array: Any, where: Path) -> Array:
    """What an array is, by its description and where it holds files by its first row.

    Raises:
        DataError: a chunk is damaged, or would be unpickled.
    """
    compressors = array.compressors if hasattr(array, "compressors") else (array.compressor,)  # of zarr 3, and 2
    if any(getattr(codec, "codec_id", "") == "pickle" for codec in (*(array.filters or ()), *(compressors or ()))):
        raise DataError(f"{where}: its chunks are pickles, which can run any program and are not read")
    try:
        return Array.of(array)
    except DAMAGE as error:
        raise DataError(f"{where}: a chunk is damaged ({error})") from error


def _arrays(group: Any, above: str = "") -> list[tuple[str, Any]]:
    found = []
    for name in sorted(group):
        node, path = group[name], f"{above}{name}"
        found += [(path, node)] if hasattr(node, "shape") else _arrays(node, f"{path}/")
    return found
