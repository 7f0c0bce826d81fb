"""A small policy of two cameras, two observations and chunks of four actions: a checkpoint of a learner of its own."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import torch
from torch import nn

from ptr_fast.checkpoint import save_checkpoint
from ptr_fast.config import ActConfig, LearnerConfig, PolicySpec, TaskTable
from ptr_fast.learners.registry import LearnerKind, register
from ptr_fast.learners.traits import Traits
from ptr_fast.types import ActionSpec, CameraSpec, StateSpec, Window

T, H, A, S = 2, 4, 3, 2
TASK = "lift"
AXES = {"names": ("x", "y", "z"), "units": ("m", "m", "m")}
SIZES = {"front": (24, 32), "wrist": (16, 16)}
SPEC = PolicySpec(
    cameras=tuple(CameraSpec(name=name, height=height, width=width) for name, (height, width) in SIZES.items()),
    state=StateSpec(names=("a", "b"), units=("m", "m")),
    action=ActionSpec(**AXES, low=(-1.0, -2.0, 0.0), high=(1.0, 2.0, 1.0)),
    tasks=TaskTable(names=("reach", TASK), num_slots=2),
    control_hz=20.0,
)


@dataclass(frozen=True, kw_only=True)
class ChunkConfig(LearnerConfig):
    """``num_observations`` T, ``num_actions`` H, and whether acting takes noise ``[A]``."""

    num_observations: int = T
    num_actions: int = H
    noisy: bool = False


class ChunkNet(nn.Module):
    """Scaled actions of the cameras' brightness, the states and the task."""

    def __init__(self, config: ChunkConfig) -> None:
        super().__init__()
        self.config = config
        self.convolutions = nn.ModuleDict({name: nn.Conv2d(3, 4, 3, stride=2) for name in SIZES})
        self.out = nn.Linear(config.num_observations * (4 * len(SIZES) + S) + 1, config.num_actions * A)

    def forward(self, images, state_BTS, task_id_B, noise_BA=None):
        rows = len(state_BTS)
        seen = [self.convolutions[name](images[name]).relu().mean((2, 3)).reshape(rows, -1) for name in SIZES]
        inputs = torch.cat([*seen, state_BTS.reshape(rows, -1), task_id_B[:, None].float()], 1)
        actions = self.out(inputs).tanh().reshape(rows, self.config.num_actions, A)
        return actions if noise_BA is None else (actions + 0.1 * noise_BA[:, None]).clamp(-1, 1)


class ChunkNetworks:
    def __init__(self, config: ChunkConfig) -> None:
        self.config = config

    def make_networks(self, spec, names, seed=0):
        torch.manual_seed(seed)
        return {name: ChunkNet(self.config) for name in names}

    def networks_for(self, mode):
        return ("actor",)

    def noise_shape(self, act, spec):
        return (A,) if self.config.noisy else None

    def acting_module(self, networks, act, spec):
        return networks["actor"]

    def distribution(self, networks, inputs, averaged=False):
        return None


class ChunkLearner:
    def __init__(self, config: ChunkConfig) -> None:
        self.config = config
        self._networks = ChunkNetworks(config).make_networks(SPEC, ("actor",))

    def networks(self):
        return self._networks

    def optimizers(self):
        return {}


def traits(config: ChunkConfig) -> Traits:
    return Traits(
        name="chunks for tests",
        columns=frozenset({"images", "state", "task_id", "actions"}),
        networks=("actor",),
        window=Window(num_observations=config.num_observations, num_actions=config.num_actions),
        capabilities=frozenset({"acts"}),
        modes=("mean",),
        exports=True,
    )


register(
    LearnerKind(
        tag="ChunksForTests",
        config_class=ChunkConfig,
        traits=traits,
        make_learner=lambda config, *_: ChunkLearner(config),
        networks=ChunkNetworks,
    )
)


def save_policy(run: Path, **config) -> Path:
    """Saves a checkpoint; returns its folder."""
    return save_checkpoint(run, 1, ChunkLearner(ChunkConfig(**config)), SPEC, ActConfig(), {"split": {"sources": []}})
