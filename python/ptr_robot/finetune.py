"""Train a checkpoint on with a few demonstrations of a new task, mixed with the old data.

``ptr-fast finetune --checkpoint RUN --target STORE --num-demos 10 --mix 0.9 --out NEW_RUN``
"""

from __future__ import annotations

from dataclasses import fields, replace
from pathlib import Path
from typing import TYPE_CHECKING

import tyro

from ptr_fast.config import LearnerConfig, RewardConfig, from_dict, to_dict
from ptr_robot.train_config import FinetuneConfig

if TYPE_CHECKING:
    from ptr_fast.checkpoint import CheckpointInfo
    from ptr_fast.learners import Ranks
    from ptr_robot.train_data import Source

__all__ = ["finetune", "run"]


def run(argv: list[str]) -> int:
    """The verb."""
    config = tyro.cli(FinetuneConfig, args=argv, prog="ptr-fast finetune", description=__doc__)
    from ptr_robot.launch import joined
    from ptr_robot.resume import check_new
    from ptr_robot.train import run_lock

    with joined(config.loop.rank_timeout_s) as ranks, run_lock(config.out, ranks):
        ranks.on_first(lambda: check_new(config.out))
        return finetune(config, ranks)


def finetune(config: FinetuneConfig, ranks: Ranks) -> int:
    """Trains on from ``config.checkpoint``, or from the newest checkpoint in ``config.out``.

    The new task takes the next spare slot of the task vector; weights, optimisers and temperature go on as they are
    (the reference re-initialises nothing either). The learning-rate schedule starts anew.

    Returns:
        As :func:`ptr_robot.train.train`.
    """
    from ptr_fast.checkpoint import load_training_state, read_checkpoint
    from ptr_fast.learners import make_learner
    from ptr_robot.launch import prepare_process
    from ptr_robot.precision import encoder_dtype
    from ptr_robot.train import Run, train, versions
    from ptr_robot.train_data import check_matches, select_target, with_task

    loop, device = prepare_process(config.loop)
    config = replace(config, loop=loop)
    info = read_checkpoint(config.checkpoint)
    target, task = select_target(config.target, config.task, config.domains, config.num_demos, config.loop.seed)
    prior = _prior_sources(info, config.prior) if config.mix > 0 else []
    spec = with_task(info.spec, task)
    for source in (*prior, target):
        check_matches(source.store, spec)
    learner_config = _scheduled(info.config, config)
    learner = make_learner(learner_config, spec, loop.seed, device, encoder_dtype(loop.precision), ranks)
    load_training_state(info, learner)
    act = info.act if config.act_mode == "same" else replace(info.act, mode=config.act_mode)
    rewards = from_dict(RewardConfig, info.run["config"]["rewards"], "rewards")
    sources = [*prior, target]
    record = {
        "verb": "finetune",
        "config": {
            **to_dict(config),
            "task": task,
            "learner": to_dict(learner_config),
            "rewards": to_dict(rewards),
        },
        "checkpoint": {"path": str(info.path), "step": info.step},
        "versions": versions(),
        "split": {"mix": config.mix, "sources": [source.record() for source in sources]},
    }
    return train(
        Run(
            out=config.out,
            learner=learner,
            spec=spec,
            act=act,
            sources=sources,
            mix=config.mix,
            rewards=rewards,
            loop=config.loop,
            record=record,
        )
    )


def _prior_sources(info: CheckpointInfo, folders: tuple[Path, ...]) -> list[Source]:
    from ptr_robot.train_data import Source

    records = info.run["split"]["sources"]
    if folders and len(folders) != len(records):
        raise ValueError(f"--prior: the checkpoint's run used {len(records)} stores, got {len(folders)} folders")
    paths = folders or [None] * len(records)
    sources = [Source.from_record(record, path) for record, path in zip(records, paths, strict=True)]
    return [replace(source, role="prior") for source in sources]


def _scheduled(config: LearnerConfig, finetuning: FinetuneConfig) -> LearnerConfig:
    schedule = config.lr_schedule if finetuning.lr_schedule == "same" else finetuning.lr_schedule
    rates = {f.name: getattr(config, f.name) * finetuning.lr_scale for f in fields(config) if _is_rate(f.name)}
    num_steps = finetuning.loop.num_steps if schedule == "cosine" else 0
    return replace(config, lr_schedule=schedule, lr_schedule_steps=num_steps, **rates)


def _is_rate(name: str) -> bool:
    return name == "lr" or name.endswith("_lr")
