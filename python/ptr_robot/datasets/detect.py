"""Which format a folder is in, and a word of help where it is none that is read."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import get_args

from ptr_fast.data.store_meta import load_meta
from ptr_fast.errors import DataError
from ptr_robot.datasets.bridge_npy import BridgeNpySource
from ptr_robot.datasets.bridge_raw import BridgeRawSource
from ptr_robot.datasets.contents import whats_there
from ptr_robot.datasets.episode_files import find_episode_files
from ptr_robot.datasets.options import Args, Format
from ptr_robot.datasets.rlds import RldsSource
from ptr_robot.datasets.source import Source

__all__ = ["detect_format", "open_source"]

Reader = Callable[[Args, Path, tuple[str, ...]], Source]
"""Makes the source of a folder, given the cameras to read."""
OURS = ("features.json", "dataset_info.json", "out.npy", "obs_dict.pkl", "policy_out.pkl", "agent_data.pkl")
EXPECTED = (
    "features.json with *.tfrecord files (rlds), raw/traj_group*/traj* (bridge-raw), out.npy (bridge-npy), "
    "meta/info.json (lerobot), *.hdf5 (robomimic), data/main_data.hdf5 (minari), meta/episode_ends (zarr), "
    "*.npz or *.npy (episode-files)"
)
FOREIGN = {".parquet": "Parquet", ".mcap": "MCAP", ".bag": "ROS bag"}
HDF5 = (".hdf5", ".h5")


def open_source(args: Args) -> Source:
    """The reader for ``args.source``.

    Raises:
        DataError: no such folder, nothing recognised, or what the reader finds wrong.
        ValueError: an unknown camera, feature or layout, or an option that the format does not have.
    """
    root = _folder(args.source)
    kind = detect_format(root) if args.format == "auto" else args.format
    if args.allow_missing_shards and kind != "rlds":
        raise ValueError(f"--allow-missing-shards is for RLDS, {root} is in format {kind}")
    if args.key and kind in ("bridge-raw", "bridge-npy"):
        raise ValueError(f"--key is for formats that name their features, {root} is in format {kind}")
    return READERS[kind](args, root, args.cameras or _cameras_of(args.out))


def _rlds(args: Args, root: Path, cameras: tuple[str, ...]) -> Source:
    keys = args.keys()
    if keys.reward or keys.success:
        raise ValueError(f"--key reward and success are not read from RLDS: {root}")
    return RldsSource(root, cameras, keys, args.layout, args.allow_missing_shards)


def _lerobot(args: Args, root: Path, cameras: tuple[str, ...]) -> Source:
    from ptr_robot.datasets.lerobot import LeRobotSource

    return LeRobotSource(root, cameras, args.keys(), args.layout)


def _hdf5(args: Args, root: Path, cameras: tuple[str, ...]) -> Source:
    from ptr_robot.datasets.hdf5 import Hdf5Source

    return Hdf5Source(root, cameras, args.keys(), args.layout)


def _minari(args: Args, root: Path, cameras: tuple[str, ...]) -> Source:
    from ptr_robot.datasets.minari import MinariSource

    return MinariSource(root, cameras, args.keys(), args.layout)


def _zarr(args: Args, root: Path, cameras: tuple[str, ...]) -> Source:
    from ptr_robot.datasets.zarr_buffer import ZarrSource

    return ZarrSource(root, cameras, args.keys(), args.layout)


def _episode_files(args: Args, root: Path, cameras: tuple[str, ...]) -> Source:
    from ptr_robot.datasets.episode_files import EpisodeFilesSource

    return EpisodeFilesSource(root, cameras, args.keys(), args.layout)


READERS: dict[str, Reader] = {
    "rlds": _rlds,
    "bridge-raw": lambda args, root, cameras: BridgeRawSource(root, cameras, args.seed, args.layout),
    "bridge-npy": lambda args, root, cameras: BridgeNpySource(root, cameras, args.layout),
    "lerobot": _lerobot,
    "robomimic": _hdf5,
    "minari": _minari,
    "zarr": _zarr,
    "episode-files": _episode_files,
}


def _cameras_of(store: Path) -> tuple[str, ...]:
    """The cameras of a store that is gone on with, whatever the source's new episodes have; empty for a new one."""
    if not (store / "meta.json").is_file():
        return ()
    return tuple(camera.name for camera in load_meta(store).cameras)


def _folder(path: Path) -> Path:
    """The folder or HDF5 file as an absolute path: task and domain are names of folders above, which "." would hide.

    Raises:
        DataError: there is none; a file says which folder to give in its place.
    """
    if path.is_dir() or (path.is_file() and path.suffix in HDF5):
        return Path(os.path.abspath(path))
    if not path.exists():
        raise DataError(f"{path}: {whats_there(path) if path.is_symlink() else 'no such folder'}")
    if path.name in OURS or ".tfrecord" in path.name:
        raise DataError(f"{path}: a file, expected the folder of the data set: --source {path.parent}")
    told = FOREIGN.get(path.suffix, "")
    told = f"{told} is not read" if told else whats_there(path)
    raise DataError(f"{path}: a file, expected a folder{': ' + told if told else ''}; a folder holds {EXPECTED}")


def detect_format(root: Path) -> Format:
    """The format of the first thing that is recognised under ``root``; DataError where nothing is."""
    if (root / "meta" / "info.json").exists():
        return "lerobot"
    if (root / "meta" / "episode_ends").is_dir():
        return "zarr"
    if (root / "data" / "main_data.hdf5").exists():
        return "minari"
    if root.is_file():
        return "robomimic"
    for folder, folders, files in os.walk(root):
        folders.sort()
        names = {*files, *folders}
        if {"features.json", "dataset_info.json"} & names or any(".tfrecord" in name for name in files):
            return "rlds"
        if Path(folder).name == "raw" and any(name.startswith("traj_group") for name in folders):
            return "bridge-raw"
        if "out.npy" in files:
            return "bridge-npy"
        if any(name.endswith(HDF5) for name in files):
            return "robomimic"
    if not (root / "meta.json").is_file() and find_episode_files(root):
        return "episode-files"
    hint = _hint(root)
    known = list(get_args(Format))[1:]
    raise DataError(f"{root}: not recognised as one of {known}; {hint or f'expected {EXPECTED}'}")


def _hint(root: Path) -> str:
    """What a folder is that is not read; empty where that is not known."""
    if not any(root.iterdir()):
        return f"the folder is empty; expected {EXPECTED}"
    if (root / "meta.json").is_file() and (root / "steps").is_dir():
        return "this is a store already"
    if root.name.startswith("traj") or any(root.glob("traj*/obs_dict.pkl")) or (root / "obs_dict.pkl").exists():
        return "this is inside a raw Bridge folder: give one above the folder named by its date"
    if (root / ".zgroup").exists() or (root / "zarr.json").exists():
        return "this is a zarr folder without meta/episode_ends, which says where episodes end"
    for folder, folders, files in os.walk(root):
        for name in sorted(files):
            if kind := FOREIGN.get(Path(name).suffix):
                return f"it holds {kind} ({Path(folder, name).relative_to(root)}), which is not read"
        if "out.npy" in folders:
            return f"{Path(folder, 'out.npy').relative_to(root)} is a folder, expected a file"
    return ""
