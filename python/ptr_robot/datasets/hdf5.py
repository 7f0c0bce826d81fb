"""HDF5 files of robomimic and LIBERO: ``data/demo_0/...``, masks as splits (h5py, ``ptr-fast[hdf5]``).

A file, or a folder of files. What ``next_obs`` saw last becomes the frame after the last action where it has everything
that is read. The task is asked for (``--task``), but for LIBERO's files, which hold their instruction.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from ptr_fast.errors import DataError
from ptr_robot.datasets.contents import needed_file
from ptr_robot.datasets.layout import Keys, Layout, find_layout
from ptr_robot.datasets.named_arrays import Array, choose_arrays, episode_of
from ptr_robot.datasets.source import EpisodeHandle, Shard, SourceEpisode, failing, fingerprint_files

__all__ = ["Hdf5Source", "arrays_below", "find_hdf5", "import_h5py", "opened"]

START = b"\x89HDF"
SPLITS = {"train": "train", "valid": "val", "val": "val", "validation": "val", "test": "val"}
APART = ("next_obs", "states")
"""What is no observation of its step: what was seen after it, and the state of the simulator."""
LIBERO_STATE = ("obs/ee_states", "obs/gripper_states")


def import_h5py() -> Any:
    """The package ``h5py``; RuntimeError says how to get it."""
    try:
        import h5py
    except ImportError as error:
        raise RuntimeError("HDF5 files need h5py: pip install 'ptr-fast[hdf5]'") from error
    return h5py


def find_hdf5(root: Path) -> list[Path]:
    """HDF5 files at or below a path, in order."""
    if root.is_file():
        return [root]
    return sorted(file for suffix in ("hdf5", "h5") for file in root.rglob(f"*.{suffix}"))


def opened(file: Path) -> Any:
    """An HDF5 file open for reading; DataError where it is damaged or none."""
    h5py = import_h5py()
    needed_file(file, START)
    try:
        return h5py.File(file, "r")
    except OSError as error:
        raise DataError(f"{file}: not a whole HDF5 file ({error})") from error


def arrays_below(group: Any, file: Any, skip: Sequence[str] = ()) -> dict[str, Any]:
    """Every array below a group with rows, by its path.

    Args:
        file: the open file.

    Raises:
        DataError: it is no group, or it or some rows of it are in other files.
    """
    if group.file != file:
        raise DataError(f"{file.filename}: {group.name} is in another file, {group.file.filename}, which is not read")
    if not hasattr(group, "visititems"):
        raise DataError(f"{group.file.filename}: {group.name}: expected a group of arrays, got an array")
    found: dict[str, Any] = {}

    def visit(path: str, node: Any) -> None:
        if hasattr(node, "shape") and len(node.shape) >= 1 and path.split("/", 1)[0] not in skip:
            if node.external or (node.is_virtual and any(one.file_name != "." for one in node.virtual_sources())):
                raise DataError(
                    f"{group.file.filename}: {node.name}: its numbers are in another file, which is not read"
                )
            found[path] = node

    group.visititems(visit)
    return found


class Hdf5Source:
    """One HDF5 file of demonstrations, or a folder of them.

    Args:
        root: the file or folder.
        cameras, keys: see :func:`ptr_robot.datasets.named_arrays.choose_arrays`.
        layout: name of a layout, see :func:`ptr_robot.datasets.layout.find_layout`.

    Raises:
        DataError: no such file, no demonstration, no camera, state or action; names the file.
        RuntimeError: h5py is not installed.
    """

    format = "robomimic"

    def __init__(self, root: Path, cameras: tuple[str, ...] = (), keys: Keys = Keys(), layout: str = "") -> None:
        self.root, self.files = root if root.is_dir() else root.parent, find_hdf5(root)
        if not self.files:
            raise DataError(f"{root}: no file *.hdf5 or *.h5")
        self._where = str(self.files[0])
        with opened(self.files[0]) as file:
            data = _data(file, self.files[0])
            self.dataset = _environment(data)
            names = _demonstrations(data)
            if not names:
                raise DataError(f"{self._where}: data: expected groups demo_0, demo_1, ..., got {list(data)[:5]}")
            found = arrays_below(data[names[0]], file, APART)
            arrays = {path: Array.of(node) for path, node in found.items()}
            is_libero = bool(_instruction(data))
        is_libero &= all(path in arrays for path in LIBERO_STATE)
        usual = Keys(action=("actions",), state=LIBERO_STATE if is_libero else ())
        self._chosen = choose_arrays(arrays, cameras, keys, self._where, usual)
        self.layout: Layout | None = find_layout(layout, "", "libero" if is_libero and not keys.action else self.format)
        self.cameras, self.keys = tuple(self._chosen.cameras), self._chosen.keys
        self.names: Mapping[str, tuple[str, ...]] = self._chosen.names
        self.units: Mapping[str, tuple[str, ...]] = {}
        self.notes = self._chosen.notes

    def shards(self) -> Sequence[Shard]:
        return [Shard(name=self._name(file), episodes=partial(self._episodes, file)) for file in self.files]

    def fingerprint(self) -> str:
        return fingerprint_files(self.root, self.files)

    def _name(self, file: Path) -> str:
        return file.relative_to(self.root).as_posix()

    def _episodes(self, file: Path) -> list[EpisodeHandle]:
        shard = self._name(file)
        try:
            with opened(file) as content:
                data = _data(content, file)
                names, task, splits = _demonstrations(data), _instruction(data), _splits(content)
        except DataError as error:
            return [failing(f"{shard}#...", str(error))]
        return [
            EpisodeHandle(
                episode_id=f"{shard}#{name}",
                read=partial(self._read, file, name, f"{shard}#{name}", task, splits.get(name, "")),
                task=task or None,
            )
            for name in names
        ]

    def _read(self, file: Path, name: str, episode_id: str, task: str, split: str) -> SourceEpisode:
        where = f"{file}: episode {name!r}"
        with opened(file) as content:
            try:
                demonstration = _data(content, file)[name]
                last = arrays_below(demonstration["next_obs"], content) if "next_obs" in demonstration else {}
                after = {f"obs/{path}": node for path, node in last.items()}
                needed = {*self._chosen.cameras.values(), *self.keys.state}
                return episode_of(
                    self._chosen,
                    arrays_below(demonstration, content, APART),
                    where,
                    episode_id=episode_id,
                    task=task,
                    split=split,
                    source=self._name(file),
                    last=after if needed <= set(after) else None,
                )
            except MemoryError as error:
                raise DataError(f"{where}: an array does not fit into memory, or is damaged ({error})") from error
            except (OSError, KeyError, RuntimeError) as error:
                raise DataError(f"{where}: cannot be read, the file is damaged ({error})") from error


def _data(file: Any, path: Path) -> Any:
    if not hasattr(file.get("data"), "visititems"):
        raise DataError(f"{path}: expected a group 'data' with demonstrations, got {list(file)[:5]}")
    if file["data"].file != file:
        raise DataError(f"{path}: 'data' is in another file, {file['data'].file.filename}, which is not read")
    return file["data"]


def _demonstrations(data: Any) -> list[str]:
    """Names of demonstrations in the order of their numbers."""
    names = [name for name in data if re.fullmatch(r"\D*\d+", name)]
    return sorted(names, key=lambda name: int(re.sub(r"\D", "", name)))


def _instruction(data: Any) -> str:
    """What LIBERO's files say is done; empty elsewhere."""
    about = _json(data.attrs.get("problem_info"))
    told = about.get("language_instruction", "")
    return (" ".join(told) if isinstance(told, list) else str(told)).strip()


def _environment(data: Any) -> str:
    """Name of the environment as robomimic keeps it; empty where it is not there."""
    return str(_json(data.attrs.get("env_args")).get("env_name", ""))


def _json(text: Any) -> Mapping[str, Any]:
    try:
        about = json.loads(text) if text is not None else {}
    except (TypeError, ValueError):
        return {}
    return about if isinstance(about, dict) else {}


def _splits(file: Any) -> dict[str, str]:
    """Split of each demonstration by the masks ``train`` and ``valid``; others are subsets and say nothing of it."""
    found: dict[str, str] = {}
    masks = file.get("mask")
    for mask in masks if hasattr(masks, "visititems") else ():
        if mask in SPLITS:
            names = np.ravel(np.asarray(masks[mask]))
            found.update({name.decode() if isinstance(name, bytes) else str(name): SPLITS[mask] for name in names})
    return found
