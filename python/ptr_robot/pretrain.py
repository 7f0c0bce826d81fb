"""Train a policy on broad data: ``ptr-fast pretrain RECIPE --data.stores STORE ... --out RUN``."""

from __future__ import annotations

import difflib
from dataclasses import replace
from typing import TYPE_CHECKING

import tyro

from ptr_fast.config import to_dict
from ptr_robot.recipes import RECIPES
from ptr_robot.train_config import PretrainConfig

if TYPE_CHECKING:
    from ptr_fast.learners import Ranks

__all__ = ["pretrain", "run"]


def run(argv: list[str]) -> int:
    """The verb: a recipe's name, then dotted overrides of its values."""
    if argv and not argv[0].startswith("-") and argv[0] not in RECIPES:
        close = difflib.get_close_matches(argv[0], RECIPES, n=1)
        hint = f" (did you mean {close[0]!r}?)" if close else ""
        raise ValueError(f"unknown recipe {argv[0]!r}{hint}; recipes: {', '.join(RECIPES)}")
    config = tyro.extras.overridable_config_cli(
        RECIPES,
        args=argv,
        prog="ptr-fast pretrain",
        description=__doc__,
        config=(tyro.conf.AvoidSubcommands,),
    )
    from ptr_robot.launch import joined
    from ptr_robot.resume import check_new
    from ptr_robot.train import run_lock

    with joined(config.loop.rank_timeout_s) as ranks, run_lock(config.out, ranks):
        ranks.on_first(lambda: check_new(config.out))
        return pretrain(config, ranks)


def pretrain(config: PretrainConfig, ranks: Ranks) -> int:
    """Trains from scratch, or on from the newest checkpoint in ``config.out``.

    Returns:
        As :func:`ptr_robot.train.train`.
    """
    from ptr_fast.learners import make_learner
    from ptr_robot.launch import prepare_process
    from ptr_robot.precision import encoder_dtype
    from ptr_robot.train import Run, train, versions
    from ptr_robot.train_data import make_spec, select_prior

    loop, device = prepare_process(config.loop)
    config = replace(config, loop=loop)
    sources = select_prior(config.data, config.loop.seed)
    spec = make_spec(sources, config.data.camera, config.num_task_slots)
    if config.learner.lr_schedule == "cosine" and not config.learner.lr_schedule_steps:
        config = replace(config, learner=replace(config.learner, lr_schedule_steps=config.loop.num_steps))
    learner = make_learner(config.learner, spec, loop.seed, device, encoder_dtype(loop.precision), ranks)
    record = {
        "verb": "pretrain",
        "config": to_dict(config),
        "versions": versions(),
        "split": {"mix": 1.0, "sources": [source.record() for source in sources]},
    }
    return train(
        Run(
            out=config.out,
            learner=learner,
            spec=spec,
            act=config.act,
            sources=sources,
            mix=1.0,
            rewards=config.rewards,
            loop=config.loop,
            record=record,
        )
    )
