"""Go on with a run that was stopped or killed: ``ptr-fast resume RUN``. The result equals the unbroken run.

Everything comes from the run's record; nothing is drawn or computed anew from what the stores hold today.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import tyro

from ptr_fast.checkpoint import CheckpointInfo, list_checkpoints, read_checkpoint, weights_digest
from ptr_fast.config import PolicySpec, from_dict
from ptr_fast.errors import DataError
from ptr_robot.training.differences import differences
from ptr_robot.training.store_places import StorePlaces

if TYPE_CHECKING:
    from ptr_robot.training.run_record import RunRecord

__all__ = ["Args", "check_new", "main", "read_record", "record_of"]

VERBS = ("finetune", "pretrain")


@dataclass(frozen=True, kw_only=True)
class Args:
    """Options of the verb.

    Attributes:
        run: run folder, as given to --out.
        num_steps: a new total number of updates; 0 keeps the run's own.
        lr_schedule: of the learning rates from now on: ``same``; ``constant`` at the rate ``lr``; or ``cosine``,
            stretched over the new number of updates.
        lr: with ``constant``, the rate: of CQL the critic's, to which the others keep their ratio.
        frames: where the frames lie from now on, as for ``pretrain``; ``same`` as until now. Changing to or from
            ``device-yuv420`` changes their pixels a little, and with them the result.
        store: OLD=NEW for every store of the run that has moved; repeat for several.
    """

    run: Annotated[Path, tyro.conf.Positional]
    num_steps: int = 0
    lr_schedule: Literal["same", "constant", "cosine"] = "same"
    lr: float = 0.0
    frames: Literal["same", "auto", "device", "device-yuv420", "host", "map", "jpeg"] = "same"
    store: tyro.conf.UseAppendAction[tuple[str, ...]] = ()

    def __post_init__(self) -> None:
        if self.num_steps < 0:
            raise ValueError(f"num_steps must not be negative, got {self.num_steps}")
        if not 0 <= self.lr < math.inf:
            raise ValueError(f"lr must be positive and finite, got {self.lr}")
        if (self.lr_schedule == "constant") != (self.lr > 0):
            raise ValueError("--lr-schedule constant and --lr RATE go together")


def main(args: Args) -> int:
    """Reads the run's record and trains on from its newest checkpoint."""
    from ptr_robot.training.loop import open_run, run_lock, train
    from ptr_robot.training.processes import joined, only_first_speaks
    from ptr_robot.training.sources import reopen

    places = StorePlaces.parse(args.store)
    with only_first_speaks():
        record = read_record(args.run, places)
    places.check_known(source.store for source in record.sources)
    with joined(record.loop.rank_timeout_s) as ranks, run_lock(args.run, ranks):
        _tell_alarm(args.run, record)
        sources = reopen(record.sources, places)
        record = told(record.placed(args.run, [source.store.path for source in sources]), args)
        weights = None if record.parent is None else partial(parent_checkpoint, args.run, record.parent)
        return train(open_run(args.run, record, sources, ranks, weights))


def read_record(run: Path, places: StorePlaces = StorePlaces()) -> RunRecord:
    """The record of a run: that of its folder, which must be of the same run as its newest checkpoint.

    Raises:
        DataError: no run, a broken record, or one of another run than the checkpoint.
    """
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
            if name not in told and name not in ("out", "data.stores", "target"):
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
    for name in ("role", "fingerprint", "train", "validation", "others", "episodes"):
        if all(name in source for source in sources_then):
            compare(f"split, {name}", [s.get(name) for s in sources], [s[name] for s in sources_then])


def _tell_alarm(run: Path, record: RunRecord) -> None:
    """Says where the divergence alarm has rung behind the newest checkpoint: what is repeated ends there again."""
    from ptr_robot.training.divergence import last_sound_checkpoint
    from ptr_robot.training.processes import branch_command

    rung = [int(path.name) for path in (run / "diverged").glob("[0-9]*")]
    if not rung or any(int(path.name) >= max(rung) for path in list_checkpoints(run)):
        return
    sound = last_sound_checkpoint(run, record.rewards, record.learner)
    advice = f"go on with other settings: {branch_command(record.verb, sound, run)} ..." if sound else "begin anew"
    print(f"the divergence alarm rang at step {max(rung)}; with nothing changed it will ring again: {advice}")


def told(record: RunRecord, args: Args) -> RunRecord:
    """The record with what the options of ``resume`` change, which is added to its list of changes.

    Raises:
        ValueError: the run would go on behind the end of its schedule; with the two choices.
    """
    from ptr_robot.training.processes import resume_command
    from ptr_robot.training.rates import check_schedule, first_rate, over, with_rate

    loop, learner = record.loop, record.learner
    loop = replace(loop, num_steps=args.num_steps or loop.num_steps)
    if args.frames != "same":
        loop = replace(loop, frames=args.frames)
    if args.lr_schedule == "constant":
        learner = with_rate(learner, args.lr)
    elif args.lr_schedule == "cosine":
        learner = over(learner, "cosine", loop.num_steps)
    if (loop.num_steps, learner) != (record.loop.num_steps, record.learner):
        again = f"{resume_command(args.run)} --num-steps {loop.num_steps} --lr-schedule"
        choices = (
            f"choose: {again} constant --lr RATE (its first rate was {first_rate(learner):.3g}), or {again} cosine "
            f"(stretched over all {loop.num_steps} updates)"
        )
        check_schedule(learner, loop.num_steps, choices)
    found = list_checkpoints(args.run)
    step = int(found[-1].name) if found else record.first_step
    changed = record.with_config(loop=loop, learner=learner)
    changes = [
        {"step": step, "field": name, "before": before, "after": after}
        for name, before, after in differences(record.config, changed.config)
    ]
    return replace(changed, changes=(*record.changes, *changes))


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
    from ptr_robot.training.processes import resume_command

    if list_checkpoints(out) or (out / "train_config.json").exists():
        raise ValueError(f"{out}: there is a run here already; go on with: {resume_command(out)}")
    others = sorted(path.name for path in out.iterdir() if path.name != ".lock")
    if others:
        raise ValueError(f"{out}: expected a new or empty folder for the run, it has {', '.join(others[:5])}")
