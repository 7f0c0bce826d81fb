"""Train a policy on broad data: ``ptr-fast pretrain RECIPE --data.stores STORE ... --out RUN``.

A recipe is a method with all its settings. ``ptr-fast pretrain RECIPE --help`` lists the settings with their defaults;
each is an option. Names of recipes begin with what they are made for: ``smoke`` (tiny networks, seconds, to see that
all runs), ``states`` (no images), ``sim`` (toy kitchens, minutes on a CPU) and ``bridge`` (the paper's networks, a
GPU). Begin with ``sim-proposals``, or with ``bridge`` for the published method.

With ``--target STORE --num-demos 10 --mix 0.9`` it trains from scratch on demonstrations of a new task as well, a tenth
of every batch; with ``--target STORE --mix 0`` and without ``--data.stores`` on them alone.

With ``--from CHECKPOINT --out RUN`` in place of the recipe it goes on from a checkpoint with changed settings, in a new
run.
"""

from __future__ import annotations

import textwrap
from dataclasses import fields, replace
from pathlib import Path
from typing import TYPE_CHECKING

import tyro

from ptr_fast.config import EncoderConfig, to_dict
from ptr_robot.console.help_text import described
from ptr_robot.recipes import RECIPES, all_recipes, recipe_named
from ptr_robot.training.config import DataConfig, PretrainConfig
from ptr_robot.verbs import branch

if TYPE_CHECKING:
    from ptr_fast.config import PolicySpec
    from ptr_fast.learners import Ranks
    from ptr_robot.training.sources import Source

__all__ = ["pretrain", "run"]


def run(argv: list[str]) -> int:
    """The verb: a recipe's name, then dotted overrides of its values; or a branch."""
    if branch.is_branch(argv):
        return branch.run("pretrain", argv)
    if argv in (["-h"], ["--help"]):
        print(overview())
        raise SystemExit(0)  # as after the help of any other verb
    if argv and not argv[0].startswith("-"):
        recipe_named(argv[0])
    config = tyro.extras.overridable_config_cli(
        RECIPES if argv and argv[0] in RECIPES else all_recipes(),
        args=argv,
        prog="ptr-fast pretrain",
        description=described(__doc__),
        config=(tyro.conf.AvoidSubcommands, tyro.conf.DisallowNone),
    )
    return pretrain(config)


def overview() -> str:
    """The help without a recipe: what a recipe is, and which there are."""
    recipes = {name: about for name, (about, _) in all_recipes().items()}
    width = max(map(len, recipes))
    lines = ["usage: ptr-fast pretrain RECIPE [options]      (ptr-fast pretrain RECIPE --help lists its options)", ""]
    for paragraph in described(__doc__).split("\n\n"):
        lines += [*textwrap.wrap(paragraph, 110, break_long_words=False, break_on_hyphens=False), ""]
    return "\n".join([*lines, "recipes:", *(f"  {name:<{width}}  {about}" for name, about in recipes.items())])


def pretrain(config: PretrainConfig) -> int:
    """Trains a new run from scratch: the verb, from Python.

    Args:
        config: a recipe (:func:`ptr_robot.recipes.recipe_named`) whose ``out`` and data are filled in.

    Returns:
        As :func:`ptr_robot.training.loop.train`.

    Raises:
        ValueError: a setting is wrong, or the run's folder holds a run already.
        DataError: a store is missing or damaged.
        RuntimeError: another process trains there, or the environment lacks something.
    """
    from ptr_robot.training.processes import joined
    from ptr_robot.training.run_folder import check_new, run_lock

    with joined(config.loop.rank_timeout_s) as ranks, run_lock(config.out, ranks):
        ranks.on_first(lambda: check_new(config.out))
        return _train(config, ranks)


def _train(config: PretrainConfig, ranks: Ranks) -> int:
    """Trains a new run into a folder that is this run's alone."""
    from ptr_fast.nets.encoders.weights_file import with_digest
    from ptr_robot.evaluation.during_training import held_out_metrics
    from ptr_robot.evaluation.ranking import best_first
    from ptr_robot.training.loop import open_run, train
    from ptr_robot.training.matching import tell_cameras
    from ptr_robot.training.rates import check_schedule, over
    from ptr_robot.training.references import settled
    from ptr_robot.training.run_record import RunRecord
    from ptr_robot.training.weights import parse_weights

    config, sources, spec = _chosen(config)
    tell_cameras(sources, spec, "--data.cameras takes others")
    config = replace(config, learner=settled(config.learner))
    if not config.learner.lr_schedule_steps:
        config = replace(config, learner=over(config.learner, config.learner.lr_schedule, config.loop.num_steps))
    check_schedule(config.learner, config.loop.num_steps, "give --learner.lr-schedule-steps as many, or 0")
    if isinstance(encoder := getattr(config.learner, "encoder", None), EncoderConfig):
        config = replace(config, learner=replace(config.learner, encoder=with_digest(encoder)))  # type: ignore[call-arg]
    stores = tuple(path.resolve() for path in config.data.stores)
    weights = tuple(str(weight.placed(Path.resolve)) for weight in parse_weights(config.data.weights))
    data = replace(config.data, stores=stores, weights=weights)
    config = replace(config, out=config.out.resolve(), data=data)
    recorded = tuple(source.record() for source in sources)
    mix = 1.0 if config.joint.target is None else config.joint.mix
    record = RunRecord(verb="pretrain", config=to_dict(config), spec=spec, mix=mix, sources=recorded)
    return train(open_run(config.out, record, sources, ranks), best_first, held_out_metrics)


def _chosen(config: PretrainConfig) -> tuple[PretrainConfig, list[Source], PolicySpec]:
    """The configuration with the target's task and place settled, the sources of the run and what its policy sees.

    Raises:
        ValueError: no data is named, or more than is trained on.
    """
    from ptr_robot.training.demonstrations import chosen_demonstrations, with_demonstrations
    from ptr_robot.training.episode_choice import select_prior
    from ptr_robot.training.matching import make_spec
    from ptr_robot.training.trained_on import held_out_only

    data, joint, seed = config.data, config.joint, config.loop.seed
    if joint.target is None:
        if not data.stores:
            raise ValueError("no data to train on: name the stores with --data.stores STORE ...")
        sources = held_out_only(select_prior(data, seed))
        return config, sources, make_spec(sources, data.cameras, config.num_task_slots)
    if bool(data.stores) != (joint.mix > 0):
        advice = f"mix {joint.mix:g} needs other data: name it with --data.stores, or give --mix 0"
        if data.stores:
            advice = "mix 0 trains on the target alone: leave --data.stores away, or give a larger --mix"
        raise ValueError(advice)
    if not data.stores:
        _check_nothing_chosen(data)
    target, task = chosen_demonstrations(joint, seed)
    priors = select_prior(data, seed) if data.stores else []
    spec = make_spec(priors or [target], data.cameras, config.num_task_slots)
    sources, spec = with_demonstrations(priors, target, task, spec, joint.camera_map)
    return replace(config, joint=replace(joint, target=joint.target.resolve(), task=task)), sources, spec


def _check_nothing_chosen(data: DataConfig) -> None:
    """Raises ValueError where options that choose among ``data.stores`` are given and there are no such stores."""
    alike = ("domains", "outcomes", "kinds", "num_demos")
    for f in fields(DataConfig):
        value = getattr(data, f.name)
        if f.name in ("stores", "cameras") or value == f.default:
            continue
        option = f.name.replace("_", "-")
        told = " ".join(map(str, value)) if isinstance(value, tuple) else str(value)
        instead = "--task NAME" if f.name == "tasks" else f"--{option} {told}" if f.name in alike else ""
        chosen = f"; of the target's episodes chooses {instead}" if instead else ""
        clear = f" (a recipe's is cleared by --data.{option} without a value)" if f.name == "outcomes" else ""
        raise ValueError(
            f"--data.{option} {told} is about --data.stores, and mix 0 trains on the target alone: leave it away"
            f"{clear}{chosen}"
        )
