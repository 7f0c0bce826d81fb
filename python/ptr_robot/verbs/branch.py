"""A branch: a new run that goes on from a checkpoint with changed settings, ``--from CHECKPOINT`` of two verbs.

``ptr-fast pretrain --from RUN/checkpoints/004000 --out NEW_RUN --learner.cql-alpha 1``

It counts its updates on from the checkpoint's, with the same random numbers: with nothing changed it is the run that it
leaves. All that is not changed comes from that run's record, which the new record names as its parent.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import tyro

from ptr_fast.config import from_dict
from ptr_robot.training.branch import branch
from ptr_robot.training.config import Branch, DataConfig, FinetuneBranch, PretrainBranch

if TYPE_CHECKING:
    from ptr_fast.checkpoint import CheckpointInfo
    from ptr_robot.training.run_record import RunRecord

__all__ = ["is_branch", "run"]


def is_branch(argv: Sequence[str]) -> bool:
    """Whether a verb's options ask for a branch."""
    return any(word == "--from" or word.startswith("--from=") for word in argv)


def run(verb: str, argv: list[str]) -> int:
    """``ptr-fast VERB --from CHECKPOINT ...``: the defaults of all options are the values of that run's record."""
    from ptr_fast.checkpoint import read_checkpoint
    from ptr_robot.chosen_checkpoint import chosen_checkpoint
    from ptr_robot.training.processes import joined, only_first_speaks
    from ptr_robot.training.run_folder import check_new, record_of, run_lock
    from ptr_robot.training.store_places import StorePlaces

    if not argv[0].startswith("-"):
        raise ValueError(f"{argv[0]}: --from takes the place of a recipe; all else comes from the checkpoint's record")
    with only_first_speaks():
        info = read_checkpoint(chosen_checkpoint(_checkpoint(argv), to=sys.stdout))
        record = record_of(info.run, info, StorePlaces(), str(info.path))
    if record.verb != verb:
        raise ValueError(f"{info.path} is of a run of {record.verb}: use ptr-fast {record.verb} --from")
    default = _defaults(record, info)
    told = tyro.cli(
        type(default),
        args=argv,
        default=default,
        prog=f"ptr-fast {verb}",
        description=__doc__,
        config=(tyro.conf.AvoidSubcommands,),
    )
    is_drawn_anew = any(word.startswith("--data.") for word in argv)
    with joined(told.loop.rank_timeout_s) as ranks, run_lock(told.out, ranks):
        ranks.on_first(lambda: check_new(told.out))
        return branch(told, info, record, ranks, is_drawn_anew)


def _checkpoint(argv: Sequence[str]) -> Path:
    for word, value in zip(argv, [*argv[1:], ""], strict=True):
        if word == "--from" and value:
            return Path(value)
        if word.startswith("--from="):
            return Path(word.removeprefix("--from="))
    raise ValueError("--from: expected a run or a checkpoint")


def _defaults(record: RunRecord, info: CheckpointInfo) -> Branch:
    shared: dict[str, Any] = {
        "checkpoint": info.path,
        "out": tyro.MISSING,
        "learner": record.learner,
        "rewards": record.rewards,
        "act": record.act,
        "loop": record.loop,
    }
    if record.verb == "pretrain":
        return PretrainBranch(**shared, data=from_dict(DataConfig, record.config["data"], "data"))
    return FinetuneBranch(**shared, num_demos=record.config["num_demos"], mix=record.mix)
