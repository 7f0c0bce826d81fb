"""A branch: a new run that goes on from a checkpoint with changed settings, ``--from CHECKPOINT`` of two verbs.

``ptr-fast pretrain --from RUN/checkpoints/004000 --out NEW_RUN --learner.cql-alpha 1``

It counts its updates on from the checkpoint's, with the same random numbers: with nothing changed it is the run that it
leaves. All that is not changed comes from that run's record, which the new record names as its parent.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import fields, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import tyro

from ptr_fast.config import LearnerConfig, from_dict, to_dict
from ptr_fast.learners.registry import traits_of
from ptr_robot.training.config import Branch, DataConfig, FinetuneBranch, PretrainBranch
from ptr_robot.training.differences import differences

if TYPE_CHECKING:
    from ptr_fast.checkpoint import CheckpointInfo
    from ptr_fast.learners import Ranks
    from ptr_robot.training.run_record import RunRecord
    from ptr_robot.training.sources import Source
    from ptr_robot.training.store_places import StorePlaces

__all__ = ["branch", "is_branch", "run"]


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
    shared |= {"num_demos": record.config["num_demos"], "critic_mix": record.config.get("critic_mix")}
    return FinetuneBranch(**shared, mix=record.mix)


def branch(told: Branch, info: CheckpointInfo, left: RunRecord, ranks: Ranks, is_drawn_anew: bool = False) -> int:
    """Trains a new run on from a checkpoint.

    Args:
        told: what it is to be.
        left: the record of the run that it leaves.
        is_drawn_anew: the episodes are chosen anew by ``told.data``.

    Returns:
        As :func:`ptr_robot.training.loop.train`.
    """
    from ptr_robot.evaluation.during_training import held_out_metrics
    from ptr_robot.evaluation.ranking import best_first
    from ptr_robot.training.ancestry import parent_and_ancestors
    from ptr_robot.training.loop import open_run, train
    from ptr_robot.training.matching import check_matches, with_tasks
    from ptr_robot.training.rates import check_schedule
    from ptr_robot.training.references import settled
    from ptr_robot.training.run_record import RunRecord
    from ptr_robot.training.store_places import StorePlaces
    from ptr_robot.training.trained_on import held_out_only

    _check_nets(left.learner, told.learner)
    told = replace(told, learner=settled(told.learner, left.learner))
    if isinstance(told, FinetuneBranch) and told.critic_mix is not None:
        traits_of(told.learner).check_critic_mix()
    if told.loop.num_steps <= info.step:
        raise ValueError(
            f"{info.path}: the branch begins at step {info.step} and is to end at step {told.loop.num_steps}: "
            "give a larger --num-steps"
        )
    choices = "choose --learner.lr-schedule constant, or a larger --learner.lr-schedule-steps"
    check_schedule(told.learner, told.loop.num_steps, choices)
    places = StorePlaces.parse(told.store).of_checkpoint(info)
    parent, ancestors = parent_and_ancestors(info, "branch")
    sources = held_out_only(_sources(told, left, places, is_drawn_anew), ancestors)
    spec = with_tasks(left.spec, sorted({source.store.episodes.task[i] for source in sources for i in source.train}))
    known = {places.place(source.store).resolve() for source in left.sources}
    for source in sources:
        check_matches(source.store, spec, with_bounds=source.store.path.resolve() not in known)
    settings = {f.name: to_dict(getattr(told, f.name)) for f in fields(told) if f.name not in ("checkpoint", "store")}
    record = RunRecord(
        verb=left.verb,
        config={**left.config, **settings},
        spec=spec,
        mix=told.mix if isinstance(told, FinetuneBranch) else left.mix,
        sources=tuple(source.record() for source in sources),
        parent=parent,
        ancestors=ancestors,
        familiarity=left.familiarity,
    ).placed(told.out, [source.store.path for source in sources])
    before = left.with_config(learner=left.learner, rewards=left.rewards, act=left.act, loop=left.loop)
    changed = differences({**before.config, "out": None}, {**record.config, "out": None})
    changes = [f"{name} {before} -> {after}" for name, before, after in changed]
    print(f"a branch of {info.path} with {'; '.join(changes) or 'nothing changed'}")
    return train(open_run(told.out, record, sources, ranks, lambda: info), best_first, held_out_metrics)


def _check_nets(was: LearnerConfig, now: LearnerConfig) -> None:
    if type(was) is not type(now):
        raise ValueError(
            f"learner: a branch keeps the method, expected {traits_of(was).name}, got {traits_of(now).name}"
        )
    for name in (*traits_of(was).made_of, "standardise_state"):
        before, after = getattr(was, name), getattr(now, name)
        if before != after:
            raise ValueError(
                f"learner.{name}: a branch keeps the nets that it goes on with, expected {before}, got {after}; "
                "for others begin anew with ptr-fast pretrain RECIPE"
            )


def _sources(told: Branch, left: RunRecord, places: StorePlaces, is_drawn_anew: bool) -> list[Source]:
    from ptr_robot.training.episode_choice import select_prior, select_target
    from ptr_robot.training.sources import reopen
    from ptr_robot.training.weights import parse_weights

    if isinstance(told, PretrainBranch) and is_drawn_anew:
        targets = reopen([source for source in left.sources if source.role == "target"], places)
        if targets and left.mix == 0:
            raise ValueError("data: the run that it leaves trains on the demonstrations of a new task alone, mix 0")
        stores = tuple(places.place(path.resolve()) for path in told.data.stores)
        weights = tuple(str(weight.placed(places.place)) for weight in parse_weights(told.data.weights))
        data = replace(told.data, stores=stores, weights=weights)
        return [*select_prior(data, told.loop.seed, _parts(left, places)), *targets]
    if isinstance(told, PretrainBranch):
        return reopen(left.sources, places)
    assert isinstance(told, FinetuneBranch)
    if told.mix > 0 and not any(source.role == "prior" for source in left.sources):
        raise ValueError(f"mix {told.mix:g}: the run that it leaves had no old data to mix in; it has to stay 0")
    *priors, target = reopen([s for s in left.sources if s.role == "target" or told.mix > 0], places)
    if told.num_demos < len(target.train):
        raise ValueError(f"num_demos {told.num_demos}: {len(target.train)} demonstrations were trained on already")
    if told.num_demos > len(target.train):
        config = left.config
        target, _ = select_target(
            *(target.store.path, config["task"], config["domains"], told.num_demos, told.loop.seed),
            _parts(left, places),
            *(config.get("outcomes", ()), config.get("kinds", ())),
        )
        names = next(source.cameras for source in left.sources if source.role == "target")
        target = replace(target, store=target.store.renamed(names))
    return [*priors, target]


def _parts(left: RunRecord, places: StorePlaces) -> dict[str, str]:
    """``train`` or ``validation`` by digest, for every episode that had a part in the run that is left."""
    from ptr_robot.training.sources import reopen

    records = left.sources
    if not all(source.episodes for source in records):  # of version 1: without digests
        records = tuple(source.record() for source in reopen(records, places))
    held_out = {source.episodes[name].digest: "validation" for source in records for name in source.validation}
    return held_out | {source.episodes[name].digest: "train" for source in records for name in source.train}
