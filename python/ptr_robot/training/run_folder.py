"""The folder of a run: its lock, its record read and written, and what must not be in a new one."""

from __future__ import annotations

import fcntl
import json
import os
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import IO, Any

from ptr_fast.checkpoint import (
    CheckpointInfo,
    list_checkpoints,
    read_checkpoint,
    weights_digest,
)
from ptr_fast.config import PolicySpec, from_dict
from ptr_fast.errors import DataError
from ptr_fast.files import write_atomically, writing
from ptr_fast.json_files import parse_json
from ptr_fast.learners.distributed import Ranks
from ptr_robot.training.differences import differences
from ptr_robot.training.processes import resume_command
from ptr_robot.training.run_record import RunRecord
from ptr_robot.training.store_places import StorePlaces

__all__ = ["check_new", "parent_checkpoint", "read_record", "record_of", "run_lock", "write_record"]


class run_lock:  # noqa: N801 (used like a function)
    """Holds ``<run>/.lock`` while a process trains there (the first of several); the lock dies with the process.

    Raises:
        RuntimeError: another process is training into the folder.
    """

    def __init__(self, out: Path, ranks: Ranks) -> None:
        self.path, self.ranks = Path(out) / ".lock", ranks
        self.file: IO[str] | None = None
        self.made_folder = False

    def __enter__(self) -> None:
        self.ranks.on_first(self._take)

    def _take(self) -> None:
        with writing(self.path.parent):
            self.made_folder = not self.path.parent.exists()
            self.path.parent.mkdir(parents=True, exist_ok=True)
            self.file = open(self.path, "a+")  # noqa: SIM115 (held until the run ends)
        try:
            fcntl.flock(self.file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            self.file.seek(0)
            holder = self.file.read().strip() or "unknown"
            self.file.close()
            raise RuntimeError(f"{self.path.parent}: another process (pid {holder}) is training here") from error
        try:
            with writing(self.path):
                self.file.truncate(0)
                os.write(self.file.fileno(), f"{os.getpid()}\n".encode())
        except OSError:
            self.file.close()
            raise

    def __exit__(self, *_: object) -> None:
        if self.file is None:
            return
        folder = self.path.parent
        if self.made_folder and folder.is_dir() and os.listdir(folder) == [self.path.name]:  # no run has begun
            shutil.rmtree(folder)
        self.file.close()


def write_record(out: Path, record: RunRecord) -> None:
    """Writes ``train_config.json``, and the split alone as ``split.json``."""
    data = record.to_json()
    write_atomically(out / "train_config.json", (json.dumps(data, indent=2) + "\n").encode())
    write_atomically(out / "split.json", (json.dumps(data["split"], indent=2) + "\n").encode())


VERBS = ("finetune", "pretrain")


def read_record(run: Path, places: StorePlaces = StorePlaces()) -> RunRecord:
    """The record of a run: that of its folder, which must be of the same run as its newest checkpoint.

    Raises:
        DataError: no run, a broken record, or one of another run than the checkpoint.
    """
    path, found = run / "train_config.json", list_checkpoints(run)
    try:
        data = parse_json(path.read_bytes())
    except (FileNotFoundError, NotADirectoryError) as error:
        if not found:
            raise DataError(f"{run}: no run here ({path.name} is missing)") from error
        data = None
    except ValueError as error:
        raise DataError(f"{path}: not valid JSON ({error})") from error
    newest = read_checkpoint(found[-1]) if found else None
    if data is None:
        assert newest is not None
        print(f"{path} is missing: the record of {newest.path} is taken")
        data = newest.run
    record = record_of(data, newest, places, str(path))
    if newest is not None:
        _check_same_run(data, newest, path)
    return record


def record_of(data: Any, info: CheckpointInfo | None, places: StorePlaces, where: str) -> RunRecord:
    """A record from its JSON values; one of version 1 is brought to today's form, and what it lacks is told.

    Args:
        info: the checkpoint that belongs to it, where there is one.
        where: names the record in errors.

    Raises:
        DataError: it is broken.
    """
    from ptr_robot.training.old_record import upgraded
    from ptr_robot.training.run_record import RunRecord

    if not isinstance(data, dict) or data.get("verb") not in VERBS or not isinstance(data.get("config"), dict):
        raise DataError(f"{where}: expected the keys 'config' and 'verb', one of {list(VERBS)}")
    if "record_version" in data:
        return RunRecord.from_json(data, where)
    try:
        return upgraded(data, info, places, where)
    except KeyError as error:
        raise DataError(f"{where}: the record of the run lacks {error}") from error


def _check_same_run(data: dict[str, Any], newest: CheckpointInfo, path: Path) -> None:
    def compare(what: str, now: Any, then: Any) -> None:
        if now != then:
            raise DataError(
                f"{path}: {what} differs from that of {newest.path}, which was trained by its own record; put that "
                f"back: cp {newest.path}/pretrained_model/train_config.json {path}"
            )

    then = newest.run
    if "changes" in then and "changes" in data:
        told = {change["field"] for change in data["changes"]}
        for name, was, now in differences(then["config"], data["config"]):
            if name not in told and name not in ("out", "data.stores", "target", "joint.target"):
                raise DataError(
                    f"{path}: config.{name} is {now!r}, and {newest.path} was trained with {was!r}; put that back: "
                    f"to change a setting begin a branch, ptr-fast {data['verb']} --from {path.parent}"
                )
    compare("verb", data.get("verb"), then.get("verb"))
    if "spec" in data:
        compare("spec", from_dict(PolicySpec, data["spec"], f"{path}: spec"), newest.spec)
    if "parent" in then:
        compare("parent", data.get("parent"), then["parent"])
    split, split_then = data["split"], then.get("split") or {"sources": []}
    compare("split, mix", split.get("mix"), split_then.get("mix"))
    sources, sources_then = split["sources"], split_then["sources"]
    for name in ("role", "fingerprint", "train", "validation", "others", "weights", "episodes"):
        if all(name in source for source in sources_then):
            compare(f"split, {name}", [s.get(name) for s in sources], [s[name] for s in sources_then])


def parent_checkpoint(run: Path, parent: Mapping[str, Any]) -> CheckpointInfo:
    """The checkpoint that a run started from, which one without checkpoints of its own needs again.

    Raises:
        DataError: it is gone or another one.
    """
    try:
        info = read_checkpoint(parent["checkpoint"])
    except DataError as error:
        raise DataError(
            f"{run}: it has no checkpoint of its own yet, and the one that it starts from is not there: {error}; "
            "nothing is lost: start it anew from the new place of that one"
        ) from error
    if parent["weights"] not in (None, weights_digest(info)):
        raise DataError(f"{run}: the checkpoint that it starts from, {info.path}, has other weights than it had then")
    return info


def check_new(out: Path) -> None:
    """Refuses a run folder that holds a run already.

    Raises:
        ValueError: with the command that goes on; or something else is in the folder.
    """

    if list_checkpoints(out) or (out / "train_config.json").exists():
        raise ValueError(f"{out}: there is a run here already; go on with: {resume_command(out)}")
    others = sorted(path.name for path in out.iterdir() if path.name != ".lock")
    if others:
        raise ValueError(f"{out}: expected a new or empty folder for the run, it has {', '.join(others[:5])}")
