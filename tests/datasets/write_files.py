"""Wrote the HDF5, zarr and Minari files in ``files/``, from ``recordings.py``: ``python THIS FOLDER [NAME...]``.

Minari's file is written by Minari itself, from an environment that plays the recordings, and the zarr folder by
diffusion_policy's own ``ReplayBuffer`` (zarr 2; their repository on PYTHONPATH). ``robomimic.hdf5`` and ``libero.hdf5``
are written with h5py in the layouts that robomimic and LIBERO document, because their own writers need a simulator;
``write_robomimic_lift.py`` uses those of robomimic.
"""

import json
import sys
from pathlib import Path

import numpy as np
from recordings import SIZES, recordings


def halved(frames: np.ndarray) -> np.ndarray:
    """Every second pixel: these formats hold no image files, and the files are small."""
    return np.ascontiguousarray(frames[:, ::2, ::2])


def robomimic(file: Path) -> None:
    import h5py

    with h5py.File(file, "w") as out:
        data = out.create_group("data")
        data.attrs["env_args"] = json.dumps({"env_name": "Lift", "type": 1, "env_kwargs": {}})
        for i, one in enumerate(recordings()):
            demo = data.create_group(f"demo_{i}")
            demo.attrs["num_samples"] = len(one.actions)
            demo["actions"], demo["rewards"] = one.actions.astype(np.float64), one.rewards.astype(np.float64)
            demo["dones"] = (np.arange(len(one.actions)) == len(one.actions) - 1).astype(np.int64)
            demo["states"] = np.zeros((len(one.actions), 5))
            for name, part in (("obs", slice(None, -1)), ("next_obs", slice(1, None))):
                group = demo.create_group(name)
                group["robot0_eef_pos"] = one.states[part, :2].astype(np.float64)
                group["robot0_gripper_qpos"] = one.states[part, 2:].astype(np.float64)
                for camera, frames in one.frames.items():
                    group.create_dataset(f"{camera}_image", data=halved(frames[part]), compression=9)
        data.attrs["total"] = sum(len(one.actions) for one in recordings())
        mask = out.create_group("mask")
        mask["train"], mask["valid"] = np.array([b"demo_0", b"demo_2"]), np.array([b"demo_1"])
        mask["20_percent"] = np.array([b"demo_0"])


def libero(file: Path) -> None:
    import h5py

    with h5py.File(file, "w") as out:
        data = out.create_group("data")
        data.attrs["problem_info"] = json.dumps({"language_instruction": "put the black bowl on the plate"})
        for i, one in enumerate(recordings()[:2]):
            demo, steps = data.create_group(f"demo_{i}"), len(one.actions)
            demo["actions"] = np.tile(one.actions[:, 2:], (1, 7)).astype(np.float64)
            demo["rewards"] = (np.arange(steps) == steps - 1).astype(np.uint8)
            obs = demo.create_group("obs")
            obs["ee_states"], obs["gripper_states"] = np.tile(one.states[:-1, :2], (1, 3)), one.states[:-1, :2]
            obs["joint_states"] = np.zeros((steps, 7))
            obs.create_dataset("agentview_rgb", data=halved(one.frames["front"][:-1]), compression=9)


def diffusion_policy(folder: Path) -> None:
    from diffusion_policy.common.replay_buffer import ReplayBuffer

    buffer = ReplayBuffer.create_from_path(str(folder), mode="a")
    for one in recordings():
        columns = {
            "img": halved(one.frames["front"][:-1]).astype(np.float32),
            "wrist": halved(one.frames["wrist"][:-1]),
            "state": one.states[:-1],
            "action": one.actions,
        }
        buffer.add_episode(columns, compressors="disk")


def minari(folder: Path) -> None:
    import os
    import shutil
    import tempfile

    import gymnasium

    class Playback(gymnasium.Env):
        observation_space = gymnasium.spaces.Dict(
            {
                "state": gymnasium.spaces.Box(-np.inf, np.inf, (3,), np.float32),
                **{n: gymnasium.spaces.Box(0, 255, (*size, 3), np.uint8) for n, size in SIZES.items()},
            }
        )
        action_space = gymnasium.spaces.Box(-10, 10, (3,), np.float32)
        episode = -1

        def seen(self):
            one = recordings()[self.episode]
            return {"state": one.states[self.t], **{name: frames[self.t] for name, frames in one.frames.items()}}

        def reset(self, *, seed=None, options=None):
            super().reset(seed=seed)
            self.episode, self.t = (self.episode + 1) % 3, 0
            return self.seen(), {}

        def step(self, action):
            one = recordings()[self.episode]
            reward = float(one.rewards[self.t])
            self.t += 1
            return self.seen(), reward, self.t == len(one.actions), False, {}

    os.environ["MINARI_DATASETS_PATH"] = tempfile.mkdtemp()
    from minari import DataCollector

    collector = DataCollector(Playback(), record_infos=False)
    for one in recordings():
        collector.reset(seed=0)
        for action in one.actions:
            collector.step(action)
    collector.create_dataset("test/recordings-v0", algorithm_name="playback", description="three short episodes")
    shutil.copytree(Path(os.environ["MINARI_DATASETS_PATH"]) / "test" / "recordings-v0", folder)


WRITERS = {
    "robomimic.hdf5": robomimic,
    "libero.hdf5": libero,
    "diffusion_policy.zarr": diffusion_policy,
    "minari": minari,
}

if __name__ == "__main__":
    out = Path(sys.argv[1])
    for name in sys.argv[2:] or WRITERS:
        WRITERS[name](out / name)
