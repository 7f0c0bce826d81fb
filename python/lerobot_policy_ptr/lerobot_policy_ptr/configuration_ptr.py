"""The options ``--policy.*`` of ``--policy.type=ptr``."""

from __future__ import annotations

import json
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

from lerobot.configs import NormalizationMode, PreTrainedConfig
from lerobot.optim import AdamConfig

__all__ = ["PTRConfig"]

UNREAD_LR = 1e-3  # of the parameter that nothing reads; the learner has rates of its own


@PreTrainedConfig.register_subclass("ptr")
@dataclass
class PTRConfig(PreTrainedConfig):
    """What LeRobot keeps of one of our policies.

    Attributes:
        recipe: of ``ptr-fast pretrain``, e.g. sim-mixture or sim-proposals: the learner and its rewards.
        num_steps: length of the run (``--steps``) over which the recipe's learning rates fall, where they do.
        image_size: height and width, pixels, that frames are resized to.
        outcome: ``success`` states that every episode of the data set succeeded; empty: nothing is stated.
        ptr: description of a checkpoint of ours as JSON; made when a policy is trained or brought over.
    """

    recipe: str = "sim-mixture"
    num_steps: int = 0
    image_size: int = 64
    outcome: str = ""
    seed: int = 0
    ptr: str = ""
    action_feature_names: list[str] | None = None
    # Frames stay in 0..1, states and actions in raw units: scaling is the policy's own.
    normalization_mapping: dict[str, NormalizationMode] = field(
        default_factory=lambda: dict.fromkeys(("VISUAL", "STATE", "ACTION"), NormalizationMode.IDENTITY)
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.outcome not in ("", "success"):
            raise ValueError(f"policy.outcome: expected success or nothing, got {self.outcome!r}")
        if self.image_size < 1:
            raise ValueError(f"policy.image_size must be at least 1, got {self.image_size}")

    @cached_property
    def learner(self) -> Any:
        """Configuration of our learner."""
        from ptr_fast.config import LearnerConfig, from_dict
        from ptr_robot.recipes import recipe_named

        if self.ptr:
            return from_dict(LearnerConfig, json.loads(self.ptr)["learner"], "learner")
        learner = recipe_named(self.recipe).learner
        if learner.lr_schedule == "constant" or learner.lr_schedule_steps:
            return learner
        if self.num_steps < 1:
            told = f"policy ptr: the learning rates of recipe {self.recipe} fall over the run"
            raise ValueError(f"{told}: state its length with --policy.num_steps, the number of --steps")
        return replace(learner, lr_schedule_steps=self.num_steps)

    @property
    def traits(self) -> Any:
        """What the learner says about itself."""
        from ptr_fast.learners.registry import traits_of

        return traits_of(self.learner)

    @property
    def needs_next(self) -> bool:
        """Whether an update looks at the next observation and at rewards."""
        return "rewards" in self.traits.columns

    @property
    def rewards(self) -> Any:
        """The recipe's rewards."""
        from ptr_robot.recipes import recipe_named

        return recipe_named(self.recipe).rewards

    @property
    def num_ahead(self) -> int:
        """So many frames ahead lies the farthest next observation: the recipe's for its own rewards, else one."""
        if not self.needs_next:
            return 0
        return self.rewards.num_steps if self.outcome else 1

    @property
    def observation_delta_indices(self) -> list[int]:
        """The past observations, the present one, and where the learner looks at them the next ones."""
        return list(range(1 - self.traits.window.num_observations, 1 + self.num_ahead))

    @property
    def action_delta_indices(self) -> list[int]:
        return list(range(self.traits.window.num_actions))

    @property
    def reward_delta_indices(self) -> None:
        return None

    def get_optimizer_preset(self) -> AdamConfig:
        return AdamConfig(lr=UNREAD_LR, weight_decay=0.0)

    def get_scheduler_preset(self) -> None:
        return None

    def validate_features(self) -> None:
        if self.action_feature is None:
            raise ValueError("policy ptr: the data set has no 'action'")
        if self.robot_state_feature is None:
            raise ValueError("policy ptr: the data set has no 'observation.state'")
