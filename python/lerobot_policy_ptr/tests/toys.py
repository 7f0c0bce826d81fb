"""A small data set that LeRobot wrote, LeRobot's training of it, and what policies of it see and command."""

from __future__ import annotations

import sys

import numpy as np
from lerobot.datasets.lerobot_dataset import LeRobotDataset

from ptr_fast.config import EncoderConfig, PolicySpec, TaskTable
from ptr_fast.types import ActionSpec, CameraSpec, StateSpec

SMALL = EncoderConfig(name="conv3", num_filters=8, embedding_dim=16)
SPEC = PolicySpec(
    cameras=tuple(CameraSpec(name=name, height=24, width=32) for name in ("front", "wrist")),
    state=StateSpec(names=("x", "y", "grip"), units=("m", "m", "1")),
    action=ActionSpec(names=("dx", "dy", "dg"), units=("m", "m", "1"), low=(-1.0, -0.1, 0.0), high=(1.0, 0.1, 2.0)),
    tasks=TaskTable(names=("push", "pull"), num_slots=4),
    control_hz=10.0,
)
NAMES = {"observation.state": ["x", "y", "grip"], "action": ["dx", "dy", "dg"]}


def make_data(root, rewards):
    """Three episodes of 9 to 11 frames, written by LeRobot itself."""
    features = {key: {"dtype": "float32", "shape": (3,), "names": names} for key, names in NAMES.items()}
    frame = {"dtype": "image", "shape": (24, 32, 3), "names": ["height", "width", "channels"]}
    features["observation.images.front"] = frame
    if rewards:
        features["next.reward"] = {"dtype": "float32", "shape": (1,), "names": None}
        features["next.done"] = {"dtype": "bool", "shape": (1,), "names": None}
    data = LeRobotDataset.create("me/toys", 10, features, root=root, use_videos=False, robot_type="toy")
    rng = np.random.default_rng(0)
    for episode in range(3):
        for t in range(num := 9 + episode):
            row = {key: rng.normal(size=3).astype(np.float32) for key in NAMES}
            row["observation.images.front"] = rng.integers(0, 256, (24, 32, 3), np.uint8)
            last = t == num - 1
            own = {"next.reward": np.float32([10 * last]), "next.done": np.array([last])} if rewards else {}
            data.add_frame({**row, **own, "task": "push" if episode else "pull"})
        data.save_episode()
    data.finalize()
    return root


def train(monkeypatch, root, out, *options):
    from lerobot.scripts import lerobot_train

    words = ["--dataset.repo_id=me/toys", f"--dataset.root={root}", f"--output_dir={out}"]
    words += ["--policy.push_to_hub=false", "--policy.device=cpu", "--batch_size=8"]
    words += ["--steps=3", "--save_freq=3", "--log_freq=1", "--num_workers=0", "--wandb.enable=false", *options]
    monkeypatch.setattr(sys, "argv", ["lerobot-train", *words])
    lerobot_train.main()
    return out / "checkpoints" / "last" / "pretrained_model"
