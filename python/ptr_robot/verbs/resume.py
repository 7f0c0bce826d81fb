"""Go on with a run that was stopped or killed: ``ptr-fast resume RUN``. The result equals the unbroken run.

Everything comes from the run's record; nothing is drawn or computed anew from what the stores hold today.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import tyro

from ptr_fast.checkpoint import list_checkpoints
from ptr_robot.training.differences import differences
from ptr_robot.training.run_folder import parent_checkpoint, read_record
from ptr_robot.training.store_places import StorePlaces

if TYPE_CHECKING:
    from ptr_robot.training.run_record import RunRecord

__all__ = ["Args", "main"]


@dataclass(frozen=True, kw_only=True)
class Args:
    """Options of the verb.

    Attributes:
        run: run folder, as given to --out.
        num_steps: a new total number of updates; 0 keeps the run's own.
        lr_schedule: of the learning rates from now on: ``same``; ``constant`` at the rate ``lr``; or ``cosine``,
            stretched over the new number of updates.
        lr: with ``constant``, the rate: of CQL the critic's, to which the others keep their ratio.
        frames: where the frames lie from now on, as for ``pretrain``; ``same`` as until now. Changing to or
            from ``device-yuv420`` changes their pixels a little, and with them the result.
        evaluate_every: updates between evaluations on held-out episodes from now on, as for ``pretrain``; 0: none. Not
            given: as until now.
        store: OLD=NEW for every store of the run that has moved; repeat for several.
    """

    run: Annotated[Path, tyro.conf.Positional]
    num_steps: int = 0
    lr_schedule: Literal["same", "constant", "cosine"] = "same"
    lr: float = 0.0
    frames: Literal["same", "auto", "device", "device-yuv420", "host", "map", "jpeg"] = "same"
    evaluate_every: int | None = None
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
    from ptr_robot.evaluation.during_training import held_out_metrics
    from ptr_robot.evaluation.ranking import best_first
    from ptr_robot.training.loop import open_run, train
    from ptr_robot.training.processes import joined, only_first_speaks
    from ptr_robot.training.run_folder import run_lock
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
        return train(open_run(args.run, record, sources, ranks, weights), best_first, held_out_metrics)


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
    if args.evaluate_every is not None:
        loop = replace(loop, evaluate_every=args.evaluate_every)
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
