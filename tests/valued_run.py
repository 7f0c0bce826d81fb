"""A tiny run on toy episodes, as pretrain writes it: three checkpoints of two updates each, and a split."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from toy_robot import toy_episodes, toy_meta, write_store

from ptr_fast.checkpoint import save_checkpoint
from ptr_fast.config import ActConfig, BcConfig, CqlConfig, EncoderConfig, RewardConfig, to_dict
from ptr_fast.data.store import EpisodeStore
from ptr_fast.learners import make_learner
from ptr_fast.types import Batch
from ptr_robot.training.matching import make_spec
from ptr_robot.training.sources import Source

ENCODER = EncoderConfig(name="conv3", num_filters=4, num_groups=2, pooling="mean", embedding_dim=8)
CQL = CqlConfig(encoder=ENCODER, hidden_dims=(16,), num_action_samples=2)
BC = BcConfig(encoder=ENCODER, hidden_dims=(16,))


def make_store(path: Path, count: int = 7) -> EpisodeStore:
    """Toy episodes with one camera; the third one failed."""
    toys = toy_episodes(count, cameras=("image_0",))
    toys[2] = replace(toys[2], outcome="failure")
    return EpisodeStore.open(write_store(path, toys, toy_meta(("image_0",), encoding="raw")))


def make_run(
    out: Path,
    store: EpisodeStore,
    *,
    config=CQL,
    validation=(0, 1, 2, 3),
    train=(4, 5, 6),
    steps=(2, 4, 6),
    mode="mean",
) -> Path:
    """Writes a run folder; the learner does two updates before each of ``steps``."""
    source = Source(role="prior", store=store, train=np.array(train, int), validation=np.array(validation, int))
    spec = make_spec([source], ["image_0"], 4)
    learner = make_learner(config, spec, seed=0)
    record = {
        "verb": "pretrain",
        "config": {"learner": to_dict(config), "rewards": to_dict(RewardConfig(num_final_steps=2))},
        "versions": {"ptr_fast": "0", "torch": torch.__version__},
        "split": {"mix": 1.0, "sources": [source.record().to_json()]},
    }
    out.mkdir(parents=True)
    (out / "split.json").write_text(json.dumps(record["split"]))
    for step in steps:
        for update in (step - 2, step - 1):
            learner.update(_batch(update, spec), update)
        save_checkpoint(out, step, learner, spec, ActConfig(mode=mode), record)
    return out


def _batch(seed: int, spec, size: int = 4) -> Batch:
    generator = torch.Generator().manual_seed(seed)
    shape = (size, 1, spec.camera.height, spec.camera.width, 3)
    images = [torch.randint(0, 256, shape, dtype=torch.uint8, generator=generator) for _ in range(2)]
    states = [torch.randn(size, 1, spec.state.dim, generator=generator) for _ in range(2)]
    return Batch(
        images={"image_0": images[0]},
        next_images={"image_0": images[1]},
        state=states[0],
        next_state=states[1],
        task_id=torch.zeros(size, dtype=torch.int64),
        actions=torch.rand(size, 1, spec.action.dim, generator=generator) * 1.8 - 0.9,
        rewards=torch.tensor([-1.0, 10.0] * (size // 2)),
        masks=torch.tensor([1.0, 0.0] * (size // 2)),
    )
