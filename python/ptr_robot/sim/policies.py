"""What can be tried in a toy kitchen: a checkpoint, random actions, or the scripted expert.

A source is a small recipe that a worker process follows; the policy itself never travels between processes.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np

from ptr_robot.sim.environment import STATE_SPEC, KitchenEnv, action_spec
from ptr_robot.sim.experts import make_expert

__all__ = ["ActingPolicy", "CheckpointSource", "ExpertSource", "PolicySource", "RandomSource"]


class ActingPolicy(Protocol):
    """What is tried, e.g. :class:`ptr_fast.runtime.policy.Policy`."""

    def act(self, image: np.ndarray, state: np.ndarray, task: str, seed: int = 0) -> np.ndarray:
        """float32 ``[4]``, raw units, from uint8 ``[H, W, 3]`` and float32 ``[4]``; every step has its own ``seed``."""
        ...


class PolicySource(Protocol):
    """A picklable recipe for a policy; each worker process follows it once per environment."""

    def make(self, env: KitchenEnv) -> ActingPolicy:
        """The policy for trials in ``env``; ValueError where it does not fit."""
        ...


@dataclass(frozen=True)
class RandomSource:
    """Uniform random actions."""

    def make(self, env: KitchenEnv) -> ActingPolicy:
        return _Random()


@dataclass(frozen=True)
class ExpertSource:
    """The scripted expert, which sees the simulator's state: an upper bound."""

    def make(self, env: KitchenEnv) -> ActingPolicy:
        return _Scripted(env)


@dataclass(frozen=True)
class CheckpointSource:
    """A trained policy.

    Attributes:
        path: run or checkpoint. mode: acting mode, None for the checkpoint's own.
        num_candidates: of ``search``; None for the checkpoint's own.
    """

    path: str
    mode: str | None = None
    num_candidates: int | None = None

    def load(self) -> Any:
        """The :class:`~ptr_fast.runtime.policy.Policy`, on one thread."""
        import torch

        from ptr_fast.runtime.policy import Policy

        torch.set_num_threads(1)
        return Policy.load(self.path, mode=self.mode, num_candidates=self.num_candidates)

    def make(self, env: KitchenEnv) -> ActingPolicy:
        policy = self.load()
        wanted = action_spec(env.action_repeat)
        for what, expected, got in (
            ("state names", STATE_SPEC.names, policy.spec.state.names),
            ("action names", wanted.names, policy.spec.action.names),
            ("action units", wanted.units, policy.spec.action.units),
        ):
            if expected != got:
                raise ValueError(f"{self.path}: {what} do not fit the toy kitchens: expected {expected}, got {got}")
        return policy


class _Random:
    def act(self, image: np.ndarray, state: np.ndarray, task: str, seed: int = 0) -> np.ndarray:
        return np.random.default_rng(seed).uniform(-1.0, 1.0, 4).astype(np.float32)


class _Scripted:
    def __init__(self, env: KitchenEnv) -> None:
        self.expert = make_expert(env.world)

    def act(self, image: np.ndarray, state: np.ndarray, task: str, seed: int = 0) -> np.ndarray:
        return self.expert.act().astype(np.float32)
