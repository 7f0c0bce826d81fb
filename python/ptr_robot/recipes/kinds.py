"""Kinds of recipes: ``states-``, ``sim-`` and ``smoke-``.

All recipes of a kind have the same sizes, rates and number of updates, so that methods can be compared.
"""

from collections.abc import Mapping
from dataclasses import fields
from typing import Any

from ptr_fast.config import ActConfig, EncoderConfig, RewardConfig
from ptr_robot.recipes import sim, smoke
from ptr_robot.training.config import DataConfig, LoopConfig, PretrainConfig

KINDS: dict[str, tuple[str, dict[str, Any], LoopConfig]] = {
    # kind: (where, what all its learners have, length)
    "states": (
        "state-only kitchens",
        {
            "encoder": EncoderConfig(name="none"),
            "hidden_dims": (256, 256),
            "lr": 1e-3,
            "lr_schedule": "cosine",
            "standardise_state": True,
        },
        LoopConfig(num_steps=6_000, batch_size=128, checkpoint_every=2_000, log_every=100, num_threads=1),
    ),
    "sim": (
        "toy kitchens",
        {
            "encoder": sim.ENCODER,
            "hidden_dims": (128, 128),
            "lr": 1e-3,
            "lr_schedule": "cosine",
            "standardise_state": True,
        },
        sim.LOOP,
    ),
    "smoke": ("seconds", {"encoder": smoke.ENCODER, "hidden_dims": (32, 32)}, smoke.LOOP),
}


def of_every_kind(
    name: str,
    about: str,
    learner: type,
    act: ActConfig,
    *,
    data: DataConfig = DataConfig(),
    rewards: RewardConfig = RewardConfig(),
    rates: Mapping[str, Mapping[str, float]] | None = None,
    **options: Any,
) -> dict[str, tuple[str, PretrainConfig]]:
    """The recipes of a method, by name.

    Args:
        learner: its configuration; of a kind's sizes it takes those that it has.
        rates: of the learner, by kind, where they are not its defaults or the kind's ``lr``.
        options: of the learner.
    """
    known, recipes = {field.name for field in fields(learner)}, {}
    for kind, (where, sizes, loop) in KINDS.items():
        own = {key: value for key, value in sizes.items() if key in known} | dict((rates or {}).get(kind, {}))
        config = PretrainConfig(data=data, learner=learner(**own, **options), act=act, rewards=rewards, loop=loop)
        recipes[f"{kind}-{name}"] = (f"{where}: {about}", config)
    return recipes
