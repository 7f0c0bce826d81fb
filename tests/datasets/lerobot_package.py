"""Runs inside an environment with the lerobot package, and without ptr-fast: writes and reads its data sets.

``python lerobot_package.py write FOLDER image|video``: the episodes of ``recordings.py``.
``python lerobot_package.py read FOLDER OUT.npz``: everything that ``LeRobotDataset`` gives, item by item.
``python lerobot_package.py drop FOLDER OUT EPISODE``: without that episode, by its own tool.
``python lerobot_package.py train FOLDER``: two updates of its ACT policy.
"""

import inspect
import sys
from pathlib import Path

import numpy as np
from lerobot.datasets.lerobot_dataset import LeRobotDataset
from recordings import ACTION_NAMES, HZ, SIZES, STATE_NAMES, recordings


def write(folder: str, kind: str) -> None:
    features = {
        "observation.state": {"dtype": "float32", "shape": (3,), "names": list(STATE_NAMES)},
        "action": {"dtype": "float32", "shape": (3,), "names": list(ACTION_NAMES)},
        "next.reward": {"dtype": "float32", "shape": (1,), "names": None},
        "next.success": {"dtype": "bool", "shape": (1,), "names": None},
    }
    for name, size in SIZES.items():
        shape = (*size, 3)
        features[f"observation.images.{name}"] = {
            "dtype": kind,
            "shape": shape,
            "names": ["height", "width", "channels"],
        }
    data = LeRobotDataset.create(
        "test/recordings", HZ, features, root=folder, use_videos=kind == "video", robot_type="toy"
    )
    for one in recordings():
        for t in range(len(one.actions)):
            is_last = t == len(one.actions) - 1
            frame = {
                "observation.state": one.states[t],
                "action": one.actions[t],
                "next.reward": one.rewards[t : t + 1],
                "next.success": np.array([is_last and one.succeeds]),
                **{f"observation.images.{name}": one.frames[name][t] for name in SIZES},
            }
            if "task" in inspect.signature(data.add_frame).parameters:  # versions that write v2.1
                data.add_frame(frame, one.task)
            else:
                data.add_frame({**frame, "task": one.task})
        data.save_episode()
    if hasattr(data, "finalize"):
        data.finalize()


def read(folder: str, out: str) -> None:
    data = LeRobotDataset("test/recordings", root=folder)
    items = [data[i] for i in range(len(data))]
    columns = {key: np.stack([np.asarray(item[key]) for item in items]) for key in items[0]}
    stats = {f"stats/{key}/{name}": np.asarray(v) for key, one in data.meta.stats.items() for name, v in one.items()}
    np.savez(out, **columns, **stats, num_episodes=data.num_episodes, fps=data.fps)


def drop(folder: str, out: str, episode: str) -> None:
    from lerobot.datasets.dataset_tools import delete_episodes

    data = LeRobotDataset("test/recordings", root=folder)
    delete_episodes(data, [int(episode)], output_dir=out, repo_id="test/fewer")


def train(folder: str) -> None:
    import torch
    from lerobot.configs.types import FeatureType
    from lerobot.policies.act.configuration_act import ACTConfig
    from lerobot.policies.act.modeling_act import ACTPolicy
    from lerobot.policies.factory import make_pre_post_processors
    from lerobot.utils.feature_utils import dataset_to_policy_features

    meta = LeRobotDataset("test/recordings", root=folder).meta
    features = dataset_to_policy_features(meta.features)
    outputs = {key: f for key, f in features.items() if f.type is FeatureType.ACTION}
    inputs = {key: f for key, f in features.items() if key.startswith("observation.")}
    config = ACTConfig(
        input_features=inputs, output_features=outputs, chunk_size=2, n_action_steps=2, dim_model=32, n_heads=2,
        dim_feedforward=32, n_encoder_layers=1, n_decoder_layers=1, use_vae=False, pretrained_backbone_weights=None,
        device="cpu",
    )  # fmt: skip
    policy = ACTPolicy(config)
    before, _ = make_pre_post_processors(config, dataset_stats=meta.stats)
    deltas = {"action": [i / meta.fps for i in config.action_delta_indices]}
    data = LeRobotDataset("test/recordings", root=folder, delta_timestamps=deltas)
    optimizer = torch.optim.Adam(policy.parameters(), 1e-3)
    losses = []
    for batch in [*torch.utils.data.DataLoader(data, batch_size=4)][:2]:
        loss, _ = policy(before(batch))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(float(loss))
    assert np.isfinite(losses).all(), losses
    print("losses", losses)


if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).parent))
    {"write": write, "read": read, "train": train, "drop": drop}[sys.argv[1]](*sys.argv[2:])
