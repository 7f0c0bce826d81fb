"""The files of an RLDS data set: which belong to it, which are missing, and how many episodes each should hold."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from pathlib import Path

from ptr_fast.errors import DataError
from ptr_robot.datasets.contents import whats_there

__all__ = ["SHARD_NAME", "DatasetInfo", "Shards", "find_shards", "read_info"]

SHARD_NAME = re.compile(r"(?P<name>.+)-(?P<split>\w+)\.tfrecord-(?P<shard>\d+)-of-(?P<num_shards>\d+)$")


@dataclass(frozen=True, kw_only=True)
class DatasetInfo:
    """What ``dataset_info.json`` says: the data set's name, and per split the number of episodes of every file.

    Attributes:
        notes: why it says less than it could.
    """

    name: str = ""
    splits: dict[str, list[int]]
    notes: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True)
class Shards:
    """The record files.

    Attributes:
        files: in sorted order.
        lengths: file name -> number of episodes, where it is told.
        notes: what is missing or was passed over.
    """

    files: tuple[Path, ...]
    lengths: dict[str, int]
    notes: tuple[str, ...]


def read_info(file: Path) -> DatasetInfo:
    """``dataset_info.json``; one that is missing or damaged says nothing, and a damaged one is noted.

    Raises:
        DataError: the records are in another file format than TFRecord.
    """
    if not file.exists():
        return DatasetInfo(splits={})
    if told := whats_there(file):
        return DatasetInfo(splits={}, notes=(f"{file.name}: {told}; numbers of episodes are not checked",))
    try:
        info = json.loads(file.read_bytes())
        kind = info.get("fileFormat") or "tfrecord"
        splits = {s["name"]: [int(n) for n in s.get("shardLengths", ())] for s in info.get("splits", ())}
        name = str(info.get("name") or "")
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        told = f"{file.name}: not a dataset description ({error!r}); numbers of episodes are not checked"
        return DatasetInfo(splits={}, notes=(told,))
    if kind != "tfrecord":
        raise DataError(f"{file}: fileFormat is {kind!r}, only 'tfrecord' can be read")
    return DatasetInfo(name=name, splits=splits)


def find_shards(root: Path, info: DatasetInfo, allow_missing: bool) -> Shards:
    """The record files of a folder.

    Args:
        root: the folder with ``features.json``.
        info: its description.
        allow_missing: read the files that are here although others of their split are not.

    Raises:
        DataError: none is here, or some of a split are missing and that is not allowed.
    """
    named = sorted(file for file in root.iterdir() if ".tfrecord" in file.name)
    files = [f for f in named if f.is_file() and (SHARD_NAME.match(f.name) or f.suffix == ".tfrecord")]
    others = [f.name if f.is_file() else f"{f.name} ({whats_there(f)})" for f in named if f not in files]
    if not files:
        found = f"; not read: {_some(others)}" if others else ""
        raise DataError(f"{root}: no *.tfrecord* file{found}")
    notes = [*info.notes]
    if others:
        notes.append(f"no whole TFRecord files, and not read: {_some(others)}")
    splits: dict[tuple[str, str], dict[int, Path]] = {}
    totals: dict[tuple[str, str], int] = {}
    for file in files:
        if match := SHARD_NAME.match(file.name):
            key = match["name"], match["split"]
            splits.setdefault(key, {})[int(match["shard"])] = file
            totals[key] = max(totals.get(key, 0), int(match["num_shards"]))
    lengths: dict[str, int] = {}
    for key, present in splits.items():
        notes += _missing(root, *key, present, totals[key], allow_missing, others)
        told = info.splits.get(key[1], [])
        if len(told) == totals[key]:
            lengths.update({file.name: told[number] for number, file in present.items() if number < len(told)})
    for split in info.splits:
        if not any(split == one for _, one in splits):
            notes.append(f"split {split!r} is named in dataset_info.json, but none of its files is here")
    return Shards(files=tuple(files), lengths=lengths, notes=tuple(notes))


def _missing(
    root: Path, name: str, split: str, present: dict[int, Path], total: int, allow_missing: bool, others: list[str]
) -> tuple[str, ...]:
    missing = [number for number in range(total) if number not in present]
    if not missing:
        return ()
    width = len(next(iter(present.values())).name.rsplit("-of-", 1)[1])
    files = [f"{name}-{split}.tfrecord-{number:0{width}d}-of-{total:0{width}d}" for number in missing]
    instead = [told for told in others if told.startswith(tuple(files))]
    told = f"split {split!r}: {len(missing)} of {total} files are missing, e.g. {_some(instead or files)}"
    if allow_missing:
        return (f"{told}; reading the {len(present)} that are here",)
    raise DataError(f"{root}: {told}; fetch them, or read the {len(present)} that are here with --allow-missing-shards")


def _some(names: list[str]) -> str:
    return ", ".join(names[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else "")
