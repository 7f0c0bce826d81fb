"""Go on with a run that was stopped or killed: ``ptr-fast resume RUN``. The result equals the unbroken run.

Everything comes from the run's record; nothing is drawn or computed anew from what the stores hold today.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import tyro

from ptr_fast.checkpoint import CheckpointInfo, list_checkpoints, read_checkpoint, weights_digest
from ptr_fast.config import PolicySpec, from_dict
from ptr_fast.errors import DataError
from ptr_robot.store_places import StorePlaces

if TYPE_CHECKING:
    from ptr_robot.run_record import RunRecord

__all__ = ["Args", "check_new", "main", "read_record"]


@dataclass(frozen=True, kw_only=True)
class Args:
    """Options of the verb.

    Attributes:
        run: run folder, as given to --out.
        num_steps: a new total number of updates; 0 keeps the run's own.
        frames: where the frames lie from now on, as for ``pretrain``; ``same`` as until now. Changing to or from
            ``device-yuv420`` changes their pixels a little, and with them the result.
        store: OLD=NEW for every store of the run that has moved; repeat for several.
    """

    run: Annotated[Path, tyro.conf.Positional]
    num_steps: int = 0
    frames: Literal["same", "auto", "device", "device-yuv420", "host", "map", "jpeg"] = "same"
    store: tyro.conf.UseAppendAction[tuple[str, ...]] = ()


def main(args: Args) -> int:
    """Reads the run's record and trains on from its newest checkpoint."""
    from ptr_robot.launch import joined
    from ptr_robot.train import open_run, run_lock, train
    from ptr_robot.train_data import reopen

    places = StorePlaces.parse(args.store)
    record = read_record(args.run, places)
    places.check_known(source.store for source in record.sources)
    with joined(record.loop.rank_timeout_s) as ranks, run_lock(args.run, ranks):
        sources = reopen(record.sources, places)
        record = _told(_placed(record, sources, args.run), args)
        weights = None if record.parent is None else partial(parent_checkpoint, args.run, record.parent)
        return train(open_run(args.run, record, sources, ranks, weights))


def read_record(run: Path, places: StorePlaces = StorePlaces()) -> RunRecord:
    """The record of a run: that of its folder, which must be of the same run as its newest checkpoint.

    A record of version 1 is brought to today's form, and what it lacks is told.

    Raises:
        DataError: no run, a broken record, or one of another run than the checkpoint.
    """
    from ptr_robot.old_record import upgraded
    from ptr_robot.run_record import RunRecord

    path, found = run / "train_config.json", list_checkpoints(run)
    try:
        data = json.loads(path.read_bytes())
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
    if not isinstance(data, dict) or data.get("verb") not in ("pretrain", "finetune") or "config" not in data:
        raise DataError(f"{path}: expected the keys 'config' and 'verb', one of ['finetune', 'pretrain']")
    if newest is not None:
        _check_same_run(data, newest, path)
    if "record_version" not in data:
        try:
            return upgraded(data, newest, places, str(path))
        except KeyError as error:
            raise DataError(f"{path}: the record of the run lacks {error}") from error
    return RunRecord.from_json(data, str(path))


def _check_same_run(data: dict[str, Any], newest: CheckpointInfo, path: Path) -> None:
    def compare(what: str, now: Any, then: Any) -> None:
        if now != then:
            raise DataError(
                f"{path}: {what} differs from that of {newest.path}, which was trained by its own record; put that "
                f"back: cp {newest.path}/pretrained_model/train_config.json {path}"
            )

    then = newest.run
    compare("verb", data["verb"], then.get("verb"))
    if "spec" in data:
        compare("spec", from_dict(PolicySpec, data["spec"], f"{path}: spec"), newest.spec)
    if "parent" in then:
        compare("parent", data.get("parent"), then["parent"])
    sources, sources_then = ((record.get("split") or {}).get("sources") or [] for record in (data, then))
    for name in ("role", "fingerprint", "train", "validation", "others", "episodes"):
        if all(name in source for source in sources_then):
            compare(f"split, {name}", [s.get(name) for s in sources], [s[name] for s in sources_then])


def _placed(record: RunRecord, sources: list[Any], run: Path) -> RunRecord:
    """The record with the places where the run and its stores lie now."""
    new = [source.store.path.resolve() for source in sources]
    place = {str(old.store): str(path) for old, path in zip(record.sources, new, strict=True)}
    config = {**record.config, "out": str(run.resolve())}
    if record.verb == "pretrain":
        config["data"] = {**config["data"], "stores": [str(path) for path in new]}
    else:
        config["target"] = place.get(config["target"], config["target"])
    moved = tuple(replace(source, store=path) for source, path in zip(record.sources, new, strict=True))
    return replace(record, config=config, sources=moved)


def _told(record: RunRecord, args: Args) -> RunRecord:
    """The record with what the options of ``resume`` change."""
    loop = record.loop
    if args.num_steps:
        loop = replace(loop, num_steps=args.num_steps)
    if args.frames != "same":
        loop = replace(loop, frames=args.frames)
    return record.with_config(loop=loop)


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
        raise ValueError(f"{out}: there is a run here already; go on with: ptr-fast resume {out}")
    others = sorted(path.name for path in out.iterdir() if path.name != ".lock")
    if others:
        raise ValueError(f"{out}: expected a new or empty folder for the run, it has {', '.join(others[:5])}")
