"""Train a checkpoint on with a few demonstrations of a new task, mixed with the old data.

For example: ``ptr-fast finetune --checkpoint RUN --target STORE --num-demos 10 --mix 0.9 --out NEW_RUN``.

With ``ptr-fast finetune RECIPE --encoder-from RUN [--freeze-encoder] --target STORE --out NEW_RUN`` it takes the image
encoder of a checkpoint alone, into the learner of a recipe of ``ptr-fast pretrain``; ``--learner...`` changes its
settings.

With ``--from CHECKPOINT --out NEW_RUN`` it goes on from a checkpoint of fine-tuning with changed settings, in a new
run.
"""

from __future__ import annotations

import sys
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Literal

import tyro

from ptr_fast.config import EncoderConfig, to_dict
from ptr_robot.console.help_text import described
from ptr_robot.recipes import recipe_named
from ptr_robot.training.config import EncoderFinetuneConfig, FinetuneConfig, TargetConfig
from ptr_robot.training.familiarity import familiarity_in, fewer_proposals
from ptr_robot.verbs import branch

if TYPE_CHECKING:
    from ptr_fast.checkpoint import CheckpointInfo
    from ptr_fast.config import ActConfig
    from ptr_fast.learners import Ranks
    from ptr_robot.training.familiarity import Familiarity
    from ptr_robot.training.loop import Run
    from ptr_robot.training.run_record import RunRecord
    from ptr_robot.training.sources import Source

__all__ = ["finetune", "run"]


def run(argv: list[str]) -> int:
    """The verb."""
    if branch.is_branch(argv):
        return branch.run("finetune", argv)
    options: dict[str, Any] = {"args": argv, "prog": "ptr-fast finetune", "description": described(__doc__)}
    config: FinetuneConfig | EncoderFinetuneConfig
    has_recipe = bool(argv) and not argv[0].startswith("-")
    if takes_encoder_alone(argv):
        if not has_recipe and "-h" not in argv and "--help" not in argv:
            raise ValueError(
                "--encoder-from needs a recipe first, whose learner is trained: finetune RECIPE --encoder-from RUN"
            )
        recipe = recipe_named(argv[0])
        default = EncoderFinetuneConfig(
            learner=recipe.learner, rewards=recipe.rewards, act=recipe.act, loop=recipe.loop
        )
        config = tyro.cli(
            EncoderFinetuneConfig,
            **{**options, "args": argv[1:]},
            default=default,
            config=(tyro.conf.AvoidSubcommands, tyro.conf.DisallowNone),
        )
    else:
        if has_recipe:
            raise ValueError(
                f"{argv[0]}: a recipe belongs to --encoder-from RUN, which is not given; to train a checkpoint on as "
                "it is, leave the recipe away and give --checkpoint RUN"
            )
        config = tyro.cli(FinetuneConfig, **options, config=(tyro.conf.DisallowNone,))
    return finetune(config)


def finetune(config: FinetuneConfig | EncoderFinetuneConfig) -> int:
    """Trains a new run on demonstrations of a new task: the verb, from Python.

    Args:
        config: what is trained on: a whole checkpoint, or the image encoder of one in another learner.

    Returns:
        As :func:`ptr_robot.training.loop.train`.

    Raises:
        ValueError: a setting is wrong, or the run's folder holds a run already.
        DataError: a store or the checkpoint is missing or damaged.
        RuntimeError: another process trains there, or the environment lacks something.
    """
    from ptr_robot.training.processes import joined
    from ptr_robot.training.run_folder import check_new, run_lock

    with joined(config.loop.rank_timeout_s) as ranks, run_lock(config.out, ranks):
        ranks.on_first(lambda: check_new(config.out))
        return _train_on(config, ranks) if isinstance(config, FinetuneConfig) else _with_encoder(config, ranks)


def takes_encoder_alone(argv: list[str]) -> bool:
    """Whether the options ask for the image encoder of a checkpoint in another learner."""
    return any(word.partition("=")[0].replace("_", "-") == "--encoder-from" for word in argv)


def _with_encoder(config: EncoderFinetuneConfig, ranks: Ranks) -> int:
    """Trains a new run with the image encoder of ``config.encoder_from``; all else begins fresh."""
    from ptr_fast.checkpoint import read_checkpoint
    from ptr_fast.learners.registry import encodes_of, traits_of
    from ptr_robot.chosen_checkpoint import chosen_checkpoint
    from ptr_robot.evaluation.during_training import held_out_metrics
    from ptr_robot.evaluation.ranking import best_first
    from ptr_robot.training.loop import open_run, train
    from ptr_robot.training.rates import check_schedule, over
    from ptr_robot.training.references import settled

    info = read_checkpoint(chosen_checkpoint(config.encoder_from, to=sys.stdout))
    encodes_of(info.config)
    config = replace(config, encoder_from=info.path)
    record, sources = _begun(info, config, "encoder", "the encoder was trained so")
    learner = settled(config.learner)
    encoder = getattr(learner, "encoder", None)
    if not isinstance(encoder, EncoderConfig):
        raise ValueError(f"{type(learner).__name__} has no image encoder that could take over that of {info.path}")
    if config.freeze_encoder:
        is_whole = traits_of(info.config).encoder_part == "whole"
        frozen = replace(encoder, frozen=True) if is_whole else replace(encoder, frozen_trunk=True)
        learner = replace(learner, encoder=frozen)  # type: ignore[call-arg]
    if not learner.lr_schedule_steps:
        learner = over(learner, learner.lr_schedule, config.loop.num_steps)
    check_schedule(learner, config.loop.num_steps, "give --learner.lr-schedule-steps as many, or 0")
    record = record.with_config(learner=learner)
    return train(open_run(config.out.resolve(), record, sources, ranks, lambda: info), best_first, held_out_metrics)


def _train_on(config: FinetuneConfig, ranks: Ranks) -> int:
    """Trains a new run on from ``config.checkpoint``.

    The new task takes the next spare slot of the task vector; weights, optimisers and temperature go on as they are
    (the reference re-initialises nothing either). The learning-rate schedule starts anew.
    """
    from ptr_fast.checkpoint import read_checkpoint
    from ptr_fast.learners.registry import traits_of
    from ptr_robot.chosen_checkpoint import chosen_checkpoint
    from ptr_robot.evaluation.during_training import held_out_metrics
    from ptr_robot.evaluation.metrics import rewards_of
    from ptr_robot.evaluation.ranking import best_first
    from ptr_robot.training.loop import open_run, train
    from ptr_robot.training.rates import over, scaled
    from ptr_robot.training.references import settled, with_references

    info = read_checkpoint(chosen_checkpoint(config.checkpoint, to=sys.stdout))
    config = replace(config, checkpoint=info.path)
    record, sources = _begun(info, config, "finetune", "the checkpoint was trained so")
    schedule = info.config.lr_schedule if config.lr_schedule == "same" else config.lr_schedule
    learner = settled(with_references(info.config, config.references), info.config)
    learner = over(scaled(learner, config.lr_scale), schedule, config.loop.num_steps)
    if config.critic_mix is not None:
        traits_of(learner).check_critic_mix()
    act = _acting(info, config)
    if "rewards" not in info.run.get("config", {}):
        print(f"{info.path}: its record says nothing about rewards, the published labels are taken: {rewards_of(info)}")
    record = record.with_config(learner=learner, rewards=rewards_of(info), act=act)
    run = open_run(config.out.resolve(), record, sources, ranks, lambda: info)
    run.record = _with_familiarity(run, info, is_followed=config.act_mode == "auto" and not config.names_search)
    return train(run, best_first, held_out_metrics)


def _acting(info: CheckpointInfo, config: FinetuneConfig) -> ActConfig:
    """How the new checkpoints act, as far as it does not depend on the demonstrations.

    Raises:
        ValueError: numbers of candidates where nothing searches.
    """
    mode = "" if config.act_mode in ("same", "auto") else config.act_mode
    act = info.act.changed(mode, config.act_candidates, config.act_elites)
    if config.names_search and act.mode != "search":
        raise ValueError(f"act_candidates and act_elites are of mode search, {info.path} acts by {act.mode}")
    return act


def _with_familiarity(run: Run, info: CheckpointInfo, *, is_followed: bool) -> RunRecord:
    """The run's record with what its critic knows of the task, which is told; where wanted it decides how to act."""
    from ptr_fast.learners.registry import traits_of
    from ptr_robot.evaluation.before_training import familiarity_of

    act, ranks, traits = run.record.act, run.learner.ranks, traits_of(run.record.learner)
    found, when = _unknown_before(run, info), "before the first update on this task, "
    if found is None:
        found, when = familiarity_of(run), ""
    if found is None:
        if traits.num_proposals and act.mode == "search":
            ranks.on_first(lambda: print("critic: no demonstration that succeeds, or no old episode, to ask it about"))
        return run.record
    told, many = f"critic: {when}{found.line()}", act.num_candidates
    is_new = ranks.largest(found.is_known is False)  # all ranks act alike
    if is_new and (few := fewer_proposals(act, traits)):
        if is_followed:
            act = replace(act, num_candidates=few, num_elites=1)
            told += f"; the new checkpoints act by the best of {few} proposals (--act-mode same keeps {many})"
        else:
            told += (
                f", and among {many} proposals a search finds those where it errs: rollout --candidates {few} --elites "
                f"1 takes the best of {few}"
            )
    ranks.on_first(lambda: print(told, flush=True))
    return replace(run.record.with_config(act=act), familiarity=found)


def _unknown_before(run: Run, info: CheckpointInfo) -> Familiarity | None:
    """What ``info`` was fine-tuned on before without knowing it, if that is this task: it still has it from
    demonstrations, and as it was trained on them Q climbs along them now."""
    before, task = familiarity_in(info.run), info.run.get("config", {}).get("task")
    is_it = before is not None and before.is_known is False and task == run.record.config["task"]
    return before if is_it else None


def _begun(
    info: CheckpointInfo,
    config: FinetuneConfig | EncoderFinetuneConfig,
    kind: Literal["finetune", "encoder"],
    why_these_cameras: str,
) -> tuple[RunRecord, list[Source]]:
    """The record of a new run on the target's demonstrations and the checkpoint's old data, and its sources.

    Args:
        info: what the run goes on from, as ``kind`` of its :func:`~ptr_robot.training.ancestry.parent_and_ancestors`.
        why_these_cameras: said where a store has others.
    """
    from ptr_robot.training.ancestry import parent_and_ancestors
    from ptr_robot.training.demonstrations import chosen_demonstrations, with_demonstrations
    from ptr_robot.training.matching import tell_cameras
    from ptr_robot.training.run_record import RunRecord

    target, task = chosen_demonstrations(config, config.loop.seed)
    parent, ancestors = parent_and_ancestors(info, kind)
    priors = _prior_sources(info, config)
    sources, spec = with_demonstrations(priors, target, task, info.spec, config.camera_map, ancestors)
    tell_cameras(sources, spec, why_these_cameras)
    config = replace(config, out=config.out.resolve(), target=config.target.resolve(), task=task)
    record = RunRecord(
        verb="finetune",
        config=to_dict(config),
        spec=spec,
        mix=config.mix,
        sources=tuple(source.record() for source in sources),
        parent=parent,
        ancestors=ancestors,
    )
    return record, sources


def _prior_sources(info: CheckpointInfo, config: TargetConfig) -> list[Source]:
    from ptr_robot.training.run_record import recorded_sources
    from ptr_robot.training.sources import reopen
    from ptr_robot.training.store_places import StorePlaces

    places, recorded = StorePlaces.parse(config.store), recorded_sources(info.run, str(info.path))
    if info.step == 0:  # what a fine-tuning began with: it has not learned from that one's demonstrations yet
        recorded = [source for source in recorded if source.role == "prior"]
    if config.mix == 0:
        return []
    if not recorded:
        raise ValueError(
            f"{info.path}: its record names no data to mix in (mix {config.mix:g}): --mix 0 trains on the target alone"
        )
    sources = reopen(recorded, places.of_checkpoint(info))
    return [replace(source, role="prior") for source in sources]
