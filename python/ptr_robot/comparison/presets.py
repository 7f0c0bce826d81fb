"""The grids that have a name: a sentence, and the values that a YAML file would have."""

from __future__ import annotations

from typing import Any

from ptr_robot.comparison.published import COLUMNS

__all__ = ["PRESETS"]

IMITATION = ["bc", "bc-success", "mixture", "ar-bc", "flow"]


def _ours(**changes: str | int | dict[str, Any]) -> dict[str, dict[str, Any]]:
    """Variants of ours by name: options of its trainings in one text, a number of demonstrations, or values by name."""

    def variant(change: str | int | dict[str, Any]) -> dict[str, Any]:
        if isinstance(change, dict):
            return change
        return {"options": change.split()} if isinstance(change, str) else {"num_demos": change}

    return {name.replace("_", "-"): {"of": "proposals"} | variant(change) for name, change in changes.items()}


OF_STATES = _ours(
    rewards_0_and_1="--rewards.negative 0 --rewards.positive 1",
    rewards_minus_1_and_0="--rewards.negative -1 --rewards.positive 0",
    action_in_first_layer="--learner.critic-head plain",
    no_layer_norm="--learner.no-critic-layer-norm",
    one_step_unbounded="--rewards.num-steps 1 --rewards.no-lower-bound-returns",
    discount_96="--learner.discount 0.96",
    alpha_0="--learner.cql-alpha 0",
    alpha_10="--learner.cql-alpha 10",
    demos_1=1,
    demos_5=5,
    demos_20=20,
    demos_50=50,
)
OF_FRAMES = _ours(
    mean_pooling="--learner.encoder.pooling mean",
    spatial_softmax="--learner.encoder.pooling spatial_softmax",
    no_group_norm="--learner.encoder.num-groups 0",
    action_in_first_layer="--learner.critic-head plain",
    resnet_small="--learner.encoder.name resnet_small",
    resnet18="--learner.encoder.name resnet18",
    resnet34="--learner.encoder.name resnet34",
    resnet50="--learner.encoder.name resnet50",
)
BEST_OF_4 = ["--candidates", "4", "--elites", "1"]
BEST_4_OF_32 = ["--candidates", "32", "--elites", "4"]
OF_FINE_TUNING = _ours(
    proposals_mix_90={"mix": 0.9},
    proposals_critic_90={"critic_mix": 0.9},
    proposals_best_of_4={"acting": BEST_OF_4},
    proposals_best_4_of_32={"acting": BEST_4_OF_32},
    proposals_critic_90_best_of_4={"critic_mix": 0.9, "acting": BEST_OF_4},
    proposals_critic_90_best_4_of_32={"critic_mix": 0.9, "acting": BEST_4_OF_32},
)


def _like_d2(about: str, kinds: str, num_target: int) -> dict[str, Any]:
    """Plan of data: kinds of episodes for the prior, and successful demonstrations of a good operator in kitchen H."""
    return {
        "about": about,
        "prior": f"--kitchens A B C --kinds {kinds} --episodes 200 --max-steps 120".split(),
        "target": f"--kitchens H --kinds teleop-good --episodes {num_target} --only-success --max-steps 120".split(),
        "kitchen": "H",
    }


D2_LONG = _like_d2("D2 with sixty demonstrations in the new kitchen, to take 1 to 50 of them.", "teleop", 60)
SHARES_OF_FAILURES = {
    f"failures-{percent}": _like_d2(
        f"As many prior episodes as D2; {percent} of 100 are failures, the others the operators' successes alone.",
        f"{kinds} --only-success",
        20,
    )
    for percent, kinds in {0: "teleop", 50: "teleop:0.5 failed:0.5", 75: "teleop:0.25 failed:0.75"}.items()
}
DECK: dict[str, Any] = {
    "scale": "sim",
    "methods": ["proposals", *COLUMNS, "mixture", "flow"],
    "data": ["pair", "unseen", "door"],
    "seeds": [0, 1, 2],
    "trials": 50,
    "updates": {"pretrain": 6000, "finetune": 800, "joint": 6000, "target": 1500},
}
PRESETS: dict[str, tuple[str, dict[str, Any]]] = {
    "states": (
        "from states alone, D0 to D6 and the unseen object: where does RL do better than cloning, and where not",
        {
            "scale": "states",
            "methods": [*IMITATION, "awbc", "iql", "cql", "cql-n", "proposals"],
            "data": ["D0", "D1", "D2-good", "D2", "D2-poor", "D3", "D4", "D5", "D6", "D6-expert", "unseen"],
            "seeds": [0, 1, 2],
            "trials": 50,
            "checkpoints": 2,
        },
    ),
    "deck": (
        "from pixels: the ten columns of the published table, ours, the mixture clone and flow BC, on three targets",
        DECK,
    ),
    "longer": (
        "deck with five times the fine-tuning, at the full rate: what an object that pre-training never saw needs",
        DECK
        | {
            "methods": ["proposals", *OF_FINE_TUNING, *COLUMNS, "mixture", "flow"],
            "variants": OF_FINE_TUNING,
            "lr_scale": 1.0,
            "updates": DECK["updates"] | {"finetune": 4000},
        },
    ),
    "claims": (
        "from states: the published claims and our constants one by one, on ours; 1 to 50 demonstrations",
        {
            "scale": "states",
            "baseline": "proposals",
            "methods": ["proposals", "proposals-joint", "proposals-target", *OF_STATES],
            "variants": OF_STATES,
            "data": {"D2-long": D2_LONG},
            "seeds": [0, 1, 2],
            "trials": 50,
            "checkpoints": 2,
        },
    ),
    "failures": (
        "from states: how many of the prior episodes may be failures; advantage weights beside their controls",
        {
            "scale": "states",
            "methods": ["bc", "bc-success", "awbc", "awbc-shuffled", "proposals"],
            "data": SHARES_OF_FAILURES,
            "seeds": [0, 1, 2],
            "trials": 50,
            "checkpoints": 2,
        },
    ),
    "claims-pixels": (
        "from pixels: how frames become a vector, the norms, the action in every layer, the size of the encoder",
        {
            "scale": "sim",
            "baseline": "proposals",
            "methods": ["proposals", *OF_FRAMES],
            "variants": OF_FRAMES,
            "data": ["pair"],
            "seeds": [0, 1, 2],
            "trials": 50,
            "updates": {"pretrain": 6000, "finetune": 800},
        },
    ),
    "quick": (
        "one target from states in minutes: BC, the best clone, and ours",
        {
            "scale": "states",
            "methods": ["bc", "mixture", "proposals"],
            "data": ["D2"],
            "seeds": [0],
            "trials": 40,
            "checkpoints": 2,
        },
    ),
}
"""Grids by name: a sentence and the values of the file."""
