"""What can be tried in a toy kitchen: a checkpoint, random actions, or the scripted expert.

A source is a small recipe that a worker process follows; the policy itself never travels between processes.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, Protocol, runtime_checkable

import numpy as np

from ptr_fast.runtime.observation import Observation
from ptr_fast.runtime.playing import ChunkPolicy, PlayConfig, PlayedPolicy
from ptr_robot.acting_options import ActingOptions
from ptr_robot.sim.environment import KitchenEnv, action_spec
from ptr_robot.sim.experts import make_expert

__all__ = [
    "ActingPolicy",
    "CheckpointSource",
    "ExpertSource",
    "InAKitchen",
    "PolicySource",
    "RandomSource",
    "TellsOfSteering",
]


class ActingPolicy(Protocol):
    """What is tried, e.g. a :class:`ptr_fast.runtime.playing.PlayedPolicy`."""

    def reset(self) -> None:
        """The start of a trial."""
        ...

    def act(self, observation: Observation, seed: int = 0) -> np.ndarray | None:
        """float32 ``[4]``, raw units; None: the hand stands still. Every step has its own ``seed``."""
        ...


@runtime_checkable
class TellsOfSteering(Protocol):
    """What is tried is steered by a critic, and tells of it."""

    def steering(self) -> dict[str, float]:
        """Counts of the trial by name, since the last ``reset``."""
        ...


class PolicySource(Protocol):
    """A picklable recipe for a policy; each worker process follows it once per environment."""

    def make(self, env: KitchenEnv, play: PlayConfig, num_periods_late: int) -> ActingPolicy:
        """The policy for trials in ``env``; ValueError where it does not fit.

        Args:
            play: how its chunks are played, where it has chunks.
            num_periods_late: so many decisions old are the frames that it sees.
        """
        ...


@dataclass(frozen=True)
class RandomSource:
    """Uniform random actions."""

    def make(self, env: KitchenEnv, play: PlayConfig, num_periods_late: int) -> ActingPolicy:
        return _Random()


@dataclass(frozen=True)
class ExpertSource:
    """The scripted expert, which sees the simulator's state: an upper bound."""

    def make(self, env: KitchenEnv, play: PlayConfig, num_periods_late: int) -> ActingPolicy:
        return _Scripted(env)


@dataclass(frozen=True)
class CheckpointSource:
    """A trained policy.

    Attributes:
        path: run or checkpoint. acting: how it acts.
    """

    path: str
    acting: ActingOptions = ActingOptions()

    def load(self) -> Any:
        """The :class:`~ptr_fast.runtime.policy.Policy`, on one thread."""
        import torch

        torch.set_num_threads(1)
        return self.acting.load(self.path)

    def make(self, env: KitchenEnv, play: PlayConfig, num_periods_late: int) -> ActingPolicy:
        return InAKitchen(self.path, self.load(), env, play, num_periods_late)


class InAKitchen(PlayedPolicy):
    """A policy of chunks in a toy kitchen. Images are in the order of its cameras, whatever the kitchen calls them.

    Args:
        name: of the policy, for messages.
        policy, play, num_periods_late: as :class:`ptr_fast.runtime.playing.PlayedPolicy` takes them.

    Raises:
        ValueError: the policy does not fit the kitchen.
    """

    def __init__(
        self, name: str, policy: ChunkPolicy, env: KitchenEnv, play: PlayConfig, num_periods_late: int
    ) -> None:
        wanted = action_spec(env.action_repeat)
        for what, expected, got in (
            ("state names", env.state_spec.names, policy.spec.state.names),
            ("action names", wanted.names, policy.spec.action.names),
            ("action units", wanted.units, policy.spec.action.units),
        ):
            if expected != got:
                raise ValueError(f"{name}: {what} do not fit the toy kitchens: expected {expected}, got {got}")
        cameras = [camera.name for camera in policy.spec.cameras]
        if len(cameras) != len(env.cameras):
            raise ValueError(f"{name}: the checkpoint sees {cameras}, the kitchen shows {list(env.cameras)}")
        super().__init__(policy, play, num_periods_late)

    def act(self, observation: Observation, seed: int = 0) -> np.ndarray | None:
        names = [camera.name for camera in self.policy.spec.cameras]
        images = dict(zip(names, observation.images.values(), strict=True))
        return super().act(replace(observation, images=images), seed)


class _Random:
    def reset(self) -> None:
        """Nothing is kept."""

    def act(self, observation: Observation, seed: int = 0) -> np.ndarray:
        return np.random.default_rng(seed).uniform(-1.0, 1.0, 4).astype(np.float32)


class _Scripted:
    def __init__(self, env: KitchenEnv) -> None:
        self.expert = make_expert(env.world)

    def reset(self) -> None:
        """The expert looks at the world anew in every step."""

    def act(self, observation: Observation, seed: int = 0) -> np.ndarray:
        return self.expert.act().astype(np.float32)
