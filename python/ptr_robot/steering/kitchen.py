"""A steered policy in a toy kitchen."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import torch

from ptr_fast.runtime.playing import PlayConfig
from ptr_robot.sim.environment import KitchenEnv
from ptr_robot.sim.policies import ActingPolicy, InAKitchen
from ptr_robot.steering.log import SteeringLog
from ptr_robot.steering.options import SteeringOptions
from ptr_robot.steering.steered import SteeredPolicy, load_steered

__all__ = ["SteeredSource"]


@dataclass(frozen=True)
class SteeredSource:
    """See :class:`ptr_robot.sim.policies.PolicySource`.

    Attributes:
        path: checkpoint of the critic. options: who proposes, and how the critic chooses.
    """

    path: str
    options: SteeringOptions

    def load(self) -> SteeredPolicy:
        """The policy, on one thread."""
        torch.set_num_threads(1)
        return load_steered(Path(self.path), self.options)

    def make(self, env: KitchenEnv, play: PlayConfig, num_periods_late: int) -> ActingPolicy:
        """See :class:`ptr_robot.sim.policies.PolicySource`."""
        return _Steered(self.path, self.load(), env, play, num_periods_late)


class _Steered(InAKitchen):
    policy: SteeredPolicy

    def reset(self) -> None:
        """The start of a trial, whose counts begin at nothing."""
        super().reset()
        self.policy.log = SteeringLog()

    def steering(self) -> dict[str, float]:
        """See :class:`ptr_robot.sim.policies.TellsOfSteering`."""
        return self.policy.log.as_dict()
