"""Which format a folder is in."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Literal, get_args

from ptr_fast.errors import DataError
from ptr_robot.datasets.bridge_npy import BridgeNpySource
from ptr_robot.datasets.bridge_raw import BridgeRawSource
from ptr_robot.datasets.rlds import RldsSource
from ptr_robot.datasets.source import Source

__all__ = ["Format", "detect_format", "open_source"]

Format = Literal["auto", "rlds", "bridge-raw", "bridge-npy"]


def open_source(root: Path, kind: Format, cameras: tuple[str, ...], seed: int) -> Source:
    """The reader for a folder.

    Raises:
        DataError: no such folder, nothing recognised, or what the reader finds wrong.
        ValueError: an unknown camera.
    """
    if not root.is_dir():
        raise DataError(f"{root}: no such folder")
    root = Path(os.path.abspath(root))  # task and domain are names of folders above, which "." would hide
    kind = detect_format(root) if kind == "auto" else kind
    if kind == "rlds":
        return RldsSource(root, cameras)
    return BridgeRawSource(root, cameras, seed) if kind == "bridge-raw" else BridgeNpySource(root, cameras)


def detect_format(root: Path) -> Format:
    """The format of the first thing that is recognised under ``root``; DataError where nothing is."""
    for folder, folders, files in os.walk(root):
        folders.sort()
        if "features.json" in files or any(".tfrecord" in name for name in files):
            return "rlds"
        if Path(folder).name == "raw" and any(name.startswith("traj_group") for name in folders):
            return "bridge-raw"
        if "out.npy" in files:
            return "bridge-npy"
    expected = "features.json with *.tfrecord files (rlds), raw/traj_group*/traj* (bridge-raw) or out.npy (bridge-npy)"
    raise DataError(f"{root}: not recognised as one of {list(get_args(Format))[1:]}; expected {expected}")
