"""A tiny untrained policy for the toy kitchens, as a checkpoint."""

from pathlib import Path

from ptr_fast.checkpoint import save_checkpoint
from ptr_fast.config import ActConfig, BcConfig, EncoderConfig, PolicySpec, TaskTable
from ptr_fast.learners import make_learner
from ptr_fast.types import CameraSpec
from ptr_robot.sim.environment import STATE_SPEC, action_spec

TASK = "put block on plate"


def save_policy(run: Path, step: int, record: dict, seed: int = 0) -> Path:
    """Saves a checkpoint of ``run``; returns its folder."""
    spec = PolicySpec(
        cameras=(CameraSpec(name="image_0", height=32, width=32),),
        state=STATE_SPEC,
        action=action_spec(4),
        tasks=TaskTable(names=(TASK,), num_slots=2),
        control_hz=20.0,
    )
    config = BcConfig(encoder=EncoderConfig(name="conv3", num_filters=8, embedding_dim=16), hidden_dims=(16, 16))
    return save_checkpoint(run, step, make_learner(config, spec, seed=seed), spec, ActConfig(), record)
