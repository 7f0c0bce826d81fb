"""Small specs and random batches for tests of learners."""

import torch

from ptr_fast.config import PolicySpec, TaskTable
from ptr_fast.types import ActionSpec, Batch, CameraSpec, StateSpec, Window


def make_spec(size: int = 16, state_dim: int = 3, action_dim: int = 4, num_slots: int = 5) -> PolicySpec:
    """A camera of ``size`` pixels and vectors of the given widths."""
    return PolicySpec(
        cameras=(CameraSpec(name="camera", height=size, width=size),),
        state=StateSpec(names=tuple(f"s{i}" for i in range(state_dim)), units=("m",) * state_dim),
        action=ActionSpec(
            names=tuple(f"a{i}" for i in range(action_dim)),
            units=("m",) * action_dim,
            low=(-1.0,) * action_dim,
            high=(1.0,) * action_dim,
        ),
        tasks=TaskTable(names=("open door", "close door"), num_slots=num_slots),
        control_hz=5.0,
    )


def make_batch(spec: PolicySpec, num_batch: int = 6, seed: int = 0, window: Window = Window()) -> Batch:
    """Random transitions; every third one is terminal with reward 10, and has the last action of its episode."""
    generator = torch.Generator().manual_seed(seed)
    num_past, num_actions = window.num_observations, window.num_actions
    frames = (num_batch, num_past, spec.cameras[0].height, spec.cameras[0].width, 3)
    terminal = torch.arange(num_batch) % 3 == 0
    return Batch(
        images={"camera": torch.randint(0, 256, frames, dtype=torch.uint8, generator=generator)},
        next_images={"camera": torch.randint(0, 256, frames, dtype=torch.uint8, generator=generator)},
        state=torch.randn(num_batch, num_past, spec.state.dim, generator=generator),
        next_state=torch.randn(num_batch, num_past, spec.state.dim, generator=generator),
        task_id=torch.randint(0, spec.tasks.num_slots, (num_batch,), generator=generator),
        observation_mask=(torch.arange(num_past) == num_past - 1) | (torch.arange(num_batch) % 4 > 0)[:, None],
        actions=1.98 * torch.rand(num_batch, num_actions, spec.action.dim, generator=generator) - 0.99,
        action_mask=(torch.arange(num_actions) == 0) | ~terminal[:, None],
        rewards=torch.where(terminal, 10.0, -1.0),
        masks=(~terminal).float(),
    )
