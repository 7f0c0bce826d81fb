"""Methods that imitate, each for state-only kitchens, kitchens of 64 px and Bridge, and as a smoke test."""

from typing import Any

from ptr_fast.config import ActConfig, ActMode, BcConfig
from ptr_fast.learners.autoregressive_bc import AutoregressiveBcConfig
from ptr_fast.learners.bet import BetConfig
from ptr_fast.learners.flow_bc import FlowBcConfig
from ptr_fast.learners.mixture_bc import MixtureBcConfig
from ptr_robot.recipes.kinds import of_every_kind
from ptr_robot.training.config import DataConfig, PretrainConfig

MEAN, SAMPLE = ActConfig(mode="mean"), ActConfig(mode="sample")
SUCCESSES = DataConfig(outcomes=("success",))
CHUNKS: dict[str, Any] = {"num_actions": 8, "loss": "l1"}
"""Of 0.4 s in the kitchens, which take 20 decisions a second; of Bridge's 5 a second they are half as long."""


SMALL_BET: dict[str, Any] = {"num_bins": 32, "width": 128}
WINDOW: dict[str, Any] = {"num_observations": 5}


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

_BC = of_every_kind("bc", CLONING, BcConfig, MEAN)

RECIPES = {
    **{f"{kind}-bc": _BC[f"{kind}-bc"] for kind in ("states", "sim")},  # the others have their own files
    **of_every_kind("bc-success", OF_SUCCESSES, BcConfig, MEAN, data=SUCCESSES),
    **of_bridge("bc-success", OF_SUCCESSES, BcConfig, "mean", SUCCESSES),
    **of_every_kind("chunks", OF_CHUNKS, BcConfig, MEAN, **CHUNKS),
    **of_bridge("chunks", OF_CHUNKS, BcConfig, "mean", **{**CHUNKS, "num_actions": 4, "dropout": 0.1}),
    **of_every_kind("flow", OF_FLOW, FlowBcConfig, SAMPLE, num_actions=8, num_flow_samples=4),
    **of_bridge("flow", OF_FLOW, FlowBcConfig, "sample", num_actions=4, dropout=0.1),
    **of_every_kind("mixture", OF_MODES, MixtureBcConfig, SAMPLE),
    **of_bridge("mixture", OF_MODES, MixtureBcConfig, "sample", dropout=0.1),
    **of_every_kind("ar-bc", AXIS_BY_AXIS, AutoregressiveBcConfig, SAMPLE),
    **of_bridge("ar-bc", AXIS_BY_AXIS, AutoregressiveBcConfig, "sample"),
    **of_every_kind("bet", BY_CLUSTERS, BetConfig, SAMPLE, **SMALL_BET),
    **of_every_kind("bet-window", f"{BY_CLUSTERS}, 5 observations", BetConfig, SAMPLE, **SMALL_BET, **WINDOW),
    **of_bridge("bet", BY_CLUSTERS, BetConfig, "sample"),
}
