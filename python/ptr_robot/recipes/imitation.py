"""Methods that imitate, each for state-only kitchens, kitchens of 64 px and Bridge, and as a smoke test.

All recipes of a kind (``states-``, ``sim-``, ``smoke-``) have the same sizes, rates and number of updates, so that the
methods can be compared.
"""

from dataclasses import fields
from typing import Any

from ptr_fast.config import ActConfig, ActMode, BcConfig, EncoderConfig
from ptr_fast.learners.autoregressive_bc import AutoregressiveBcConfig
from ptr_fast.learners.bet import BetConfig
from ptr_fast.learners.flow_bc import FlowBcConfig
from ptr_fast.learners.mixture_bc import MixtureBcConfig
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
SUCCESSES = DataConfig(outcomes=("success",))
CHUNKS: dict[str, Any] = {"num_actions": 8, "loss": "l1"}
"""Of 0.4 s in the kitchens, which take 20 decisions a second; of Bridge's 5 a second they are half as long."""


SMALL_BET: dict[str, Any] = {"num_bins": 32, "width": 128}
WINDOW: dict[str, Any] = {"num_observations": 5}


def of_every_kind(
    name: str, about: str, learner: type, mode: ActMode, data: DataConfig = DataConfig(), **options: Any
) -> dict[str, tuple[str, PretrainConfig]]:
    """The recipes of a method, by name; of a kind's sizes it takes those that its learner has."""
    known = {field.name for field in fields(learner)}
    return {
        f"{kind}-{name}": (
            f"{where}: {about}",
            PretrainConfig(
                data=data,
                learner=learner(**{key: value for key, value in sizes.items() if key in known}, **options),
                act=ActConfig(mode=mode),
                loop=loop,
            ),
        )
        for kind, (where, sizes, loop) in KINDS.items()
    }


def of_bridge(
    name: str, about: str, learner: type, mode: ActMode, data: DataConfig = DataConfig(), **options: Any
) -> dict[str, tuple[str, PretrainConfig]]:
    """The recipe of a method with the published encoder, rate and number of updates."""
    config = PretrainConfig(data=data, learner=learner(**{"lr": 1e-4, **options}), act=ActConfig(mode=mode))
    return {f"bridge-{name}": (f"Bridge: {about}", config)}


CLONING, OF_SUCCESSES = "behaviour cloning", "behaviour cloning of the successful episodes"
OF_FLOW = "flow matching of chunks of actions"
OF_MODES = "behaviour cloning by a mixture of Gaussians"
AXIS_BY_AXIS = "autoregressive behaviour cloning of 100 bins"
BY_CLUSTERS = "behaviour transformer"
OF_CHUNKS = "L1 regression of chunks of actions, for rollout --play ensemble"

_BC = of_every_kind("bc", CLONING, BcConfig, "mean")

RECIPES = {
    **{f"{kind}-bc": _BC[f"{kind}-bc"] for kind in ("states", "sim")},  # the others have their own files
    **of_every_kind("bc-success", OF_SUCCESSES, BcConfig, "mean", SUCCESSES),
    **of_bridge("bc-success", OF_SUCCESSES, BcConfig, "mean", SUCCESSES),
    **of_every_kind("chunks", OF_CHUNKS, BcConfig, "mean", **CHUNKS),
    **of_bridge("chunks", OF_CHUNKS, BcConfig, "mean", **{**CHUNKS, "num_actions": 4, "dropout": 0.1}),
    **of_every_kind("flow", OF_FLOW, FlowBcConfig, "sample", num_actions=8, num_flow_samples=4),
    **of_bridge("flow", OF_FLOW, FlowBcConfig, "sample", num_actions=4, dropout=0.1),
    **of_every_kind("mixture", OF_MODES, MixtureBcConfig, "sample"),
    **of_bridge("mixture", OF_MODES, MixtureBcConfig, "sample", dropout=0.1),
    **of_every_kind("ar-bc", AXIS_BY_AXIS, AutoregressiveBcConfig, "sample"),
    **of_bridge("ar-bc", AXIS_BY_AXIS, AutoregressiveBcConfig, "sample"),
    **of_every_kind("bet", BY_CLUSTERS, BetConfig, "sample", **SMALL_BET),
    **of_every_kind("bet-window", f"{BY_CLUSTERS}, 5 observations", BetConfig, "sample", **SMALL_BET, **WINDOW),
    **of_bridge("bet", BY_CLUSTERS, BetConfig, "sample"),
}
