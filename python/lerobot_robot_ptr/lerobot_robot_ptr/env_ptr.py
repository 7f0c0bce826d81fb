"""The toy kitchens as an environment of LeRobot: ``lerobot-eval --env.type=ptr``."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import gymnasium
import numpy as np
from gymnasium.spaces import Dict
from gymnasium.vector import AsyncVectorEnv, AutoresetMode, SyncVectorEnv, VectorEnv
from lerobot.configs import FeatureType, PolicyFeature
from lerobot.envs import EnvConfig
from lerobot.utils.constants import ACTION, OBS_IMAGES, OBS_STATE

from ptr_robot.sim.environment import STATE_SPEC, KitchenEnv, action_spec

__all__ = ["KitchenConfig", "LeRobotKitchen"]

ACTION_REPEAT = 4  # 20 decisions per second, as the simulated arm


@EnvConfig.register_subclass("ptr")
@dataclass
class KitchenConfig(EnvConfig):
    """The options ``--env.*`` of ``--env.type=ptr``: those of :class:`ptr_robot.sim.environment.KitchenEnv`.

    Attributes:
        task: what is to be done, and what the policy is told.
        episode_length: decisions, 20 per second. cameras: several as ``front,wrist``.
    """

    task: str | None = "put block on plate"
    fps: int = 20
    kitchen: str = "A"
    start: str = "easy"
    distractors: int = 0
    cameras: str = "image_0"
    image_size: int = 64
    episode_length: int = 60

    def __post_init__(self) -> None:
        frame = PolicyFeature(type=FeatureType.VISUAL, shape=(self.image_size, self.image_size, 3))
        state = PolicyFeature(type=FeatureType.STATE, shape=(len(STATE_SPEC.names),))
        action = PolicyFeature(type=FeatureType.ACTION, shape=(len(action_spec().names),))
        pictures = {f"pixels/{camera}": f"{OBS_IMAGES}.{camera}" for camera in self.cameras.split(",")}
        self.features = {ACTION: action, "agent_pos": state, **dict.fromkeys(pictures, frame)}
        self.features_map = {ACTION: ACTION, "agent_pos": OBS_STATE, **pictures}

    @property
    def gym_kwargs(self) -> dict[str, Any]:
        return {
            "task": self.task,
            "kitchen": self.kitchen,
            "start": self.start,
            "distractors": self.distractors,
            "cameras": tuple(self.cameras.split(",")),
            "image_size": self.image_size,
            "max_steps": self.episode_length,
            "action_repeat": ACTION_REPEAT,
            "hold_steps": 0,  # a trial ends at the first state of success, as those of rollout
            "render_mode": "rgb_array",
        }

    def make(self) -> LeRobotKitchen:
        """One kitchen."""
        return LeRobotKitchen(KitchenEnv(**self.gym_kwargs))

    def create_envs(self, n_envs: int, use_async_envs: bool = False) -> dict[str, dict[int, VectorEnv]]:
        """``n_envs`` kitchens as LeRobot asks for them, in processes of their own where it wants that."""
        many, mode = [self.make] * n_envs, AutoresetMode.SAME_STEP
        if use_async_envs and n_envs > 1:  # a process that was forked may not use OpenGL
            return {self.type: {0: AsyncVectorEnv(many, autoreset_mode=mode, context="forkserver")}}
        return {self.type: {0: SyncVectorEnv(many, autoreset_mode=mode)}}


class LeRobotKitchen(gymnasium.Wrapper):
    """A kitchen with the keys and names that LeRobot reads."""

    def __init__(self, env: KitchenEnv) -> None:
        super().__init__(env)
        space = env.observation_space
        images = env.images(space)
        self.observation_space = Dict({"pixels": Dict(images), "agent_pos": space["state"]})
        self.task = self.task_description = env.task.instruction
        self._max_episode_steps = env.max_steps

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
        """A new start, drawn from ``seed``."""
        observed, info = self.env.reset(seed=seed)
        return self._told(observed), {"is_success": info["success"]}

    def step(self, action: np.ndarray) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        """One decision; the reward is 1 where the task is done."""
        observed, reward, terminated, truncated, info = self.env.step(action)
        return self._told(observed), reward, terminated, truncated, {"is_success": info["success"]}

    def _told(self, observed: dict[str, np.ndarray]) -> dict[str, Any]:
        return {"pixels": self.env.images(observed), "agent_pos": observed["state"]}
