"""The folder that is shared: a checkpoint without what only its training needs, and without the places of a machine.

    README.md                              the model card
    files.json                             size and SHA-256 of every file below
    pretrained_model/config.json           learner, camera, state, action, tasks, act
    pretrained_model/model.safetensors     networks; critic.safetensors beside it, where the learner has any
    pretrained_model/train_config.json     the record of the run; stores and runs by the last parts of their names

It is a checkpoint as any other for act, finetune, rollout, serve and export; ``resume`` needs the run itself.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from ptr_fast.checkpoint import CheckpointInfo, read_checkpoint, weights_digest
from ptr_fast.errors import DataError
from ptr_fast.files import sync_directory, sync_tree, write_atomically
from ptr_fast.json_files import read_json
from ptr_fast.learners.registry import make_networks, traits_of
from ptr_fast.run_folder import MODEL

__all__ = ["CARD", "FILES", "check_shared", "place_names", "put_in_place", "write_shared"]

CARD = "README.md"
WEIGHTS = ("model.safetensors", "critic.safetensors")
FILES = (CARD, "files.json", *(f"{MODEL}/{name}" for name in ("config.json", "train_config.json", *WEIGHTS)))
"""All that a shared folder may hold: text, JSON and safetensors. Nothing else is fetched or read."""


def write_shared(info: CheckpointInfo, card: str, folder: Path) -> None:
    """Writes the folder; it is there whole or not at all.

    Raises:
        ValueError: there is something at ``folder`` already. OSError: it cannot be written.
    """
    if folder.exists():
        raise ValueError(f"{folder} exists already; name a new folder with --out")
    temporary = folder.with_name(f".{folder.name}.{os.getpid()}.tmp")
    try:
        (temporary / MODEL).mkdir(parents=True)
        sums = {}
        for name, data in _contents(info):
            write_atomically(temporary / name, data)
            sums[name] = {"bytes": len(data), "sha256": hashlib.sha256(data).hexdigest()}
        write_atomically(temporary / "files.json", (json.dumps(sums, indent=2) + "\n").encode())
        write_atomically(temporary / CARD, card.encode())
        check_shared(temporary)
        put_in_place(temporary, folder)
    except BaseException:
        shutil.rmtree(temporary, ignore_errors=True)
        raise


def _contents(info: CheckpointInfo) -> Iterator[tuple[str, bytes]]:
    source = info.path / MODEL
    yield f"{MODEL}/config.json", (source / "config.json").read_bytes()
    yield f"{MODEL}/train_config.json", (json.dumps(without_places(info.run), indent=2) + "\n").encode()
    for name in WEIGHTS:
        if (source / name).is_file():
            yield f"{MODEL}/{name}", (source / name).read_bytes()


def put_in_place(temporary: Path, folder: Path) -> None:
    """Renames a whole folder to its name."""
    sync_tree(temporary)
    os.rename(temporary, folder)
    sync_directory(folder.parent)


def check_shared(folder: Path, weights: str = "") -> CheckpointInfo:
    """Reads a shared folder: every file against its SHA-256, every network against its configuration.

    Args:
        weights: digest that its weights must have; empty: any.

    Raises:
        DataError: a file is missing, damaged, or no part of such a folder; or the weights are others.
    """
    listed = read_json(folder / "files.json")
    for name in listed:
        if name not in FILES or name in (CARD, "files.json"):
            raise DataError(f"{folder / 'files.json'}: {name!r} is no file of a shared checkpoint")
    for path in sorted(folder.rglob("*")):
        name = path.relative_to(folder).as_posix()
        if path.is_symlink():
            raise DataError(f"{path}: a link, where a file was expected")
        if path.is_file() and name not in listed and name not in (CARD, "files.json"):
            raise DataError(f"{path}: no file of a shared checkpoint, and not in its files.json")
    needed = [f"{MODEL}/config.json", f"{MODEL}/train_config.json", f"{MODEL}/model.safetensors"]
    if missing := [name for name in needed if name not in listed]:
        raise DataError(f"{folder / 'files.json'}: {missing[0]} is missing")
    info = read_checkpoint(folder)
    found = weights_digest(info)
    if weights and found != weights:
        raise DataError(f"{folder}: expected the weights {weights}, got {found}")
    _load(info)
    return info


def _load(info: CheckpointInfo) -> None:
    """Fills every network once, so that one that does not fit is told now and not in use."""
    from ptr_fast.checkpoint import load_networks

    load_networks(info, make_networks(info.config, info.spec, list(traits_of(info.config).networks)))


def without_places(record: Mapping[str, Any]) -> dict[str, Any]:
    """A run's record with every absolute path shortened to the last parts that tell it from the others."""
    names = place_names(set(_absolute(record)))
    return _replaced(record, names)


def place_names(paths: set[str]) -> dict[str, str]:
    """Path -> its last part, or as many as tell all of them apart."""
    parts = {path: [part for part in Path(path).parts if part != "/"] for path in paths}
    for depth in range(1, max(map(len, parts.values()), default=1) + 1):
        names = {path: "/".join(each[-depth:]) for path, each in parts.items()}
        if len(set(names.values())) == len(names):
            return names
    return {path: "/".join(each) for path, each in parts.items()}


def _absolute(value: Any) -> Iterator[str]:
    if isinstance(value, str):
        if os.path.isabs(value) and "\n" not in value:
            yield value
    elif isinstance(value, Mapping):
        for key, each in value.items():
            yield from _absolute(key)
            yield from _absolute(each)
    elif isinstance(value, list | tuple):
        for each in value:
            yield from _absolute(each)


def _replaced(value: Any, names: Mapping[str, str]) -> Any:
    if isinstance(value, str):
        return names.get(value, value)
    if isinstance(value, Mapping):
        return {_replaced(key, names): _replaced(each, names) for key, each in value.items()}
    if isinstance(value, list | tuple):
        return [_replaced(each, names) for each in value]
    return value
