"""Source trees as the original programs would have written them, with known content."""

import pickle
import shutil
from pathlib import Path

import numpy as np
import pytest
import simplejpeg

from ptr_robot.datasets.detect import open_source
from ptr_robot.verbs.convert import Args, convert


@pytest.fixture
def rlds(shared_dir, tmp_path) -> Path:
    """A copy of the real Bridge episodes that a test may damage."""
    return Path(shutil.copytree(shared_dir / "data" / "bridge_rlds", tmp_path / "bridge_rlds", copy_function=copy))


def copy(source, target):
    shutil.copyfile(source, target)
    return target


@pytest.fixture
def run(tmp_path):
    """Converts as the verb does; returns the summary and the store's folder."""

    def run(source, out="store", **options):
        args = Args(source=source, out=tmp_path / out, **options)
        return convert(args, open_source(args)), tmp_path / out

    return run


def images(seed, num_frames, height=48, width=64):
    """Smooth pictures, so that JPEG keeps them well."""
    rng = np.random.default_rng(seed)
    low, high = rng.integers(0, 256, (2, num_frames, 1, 1, 3)).astype(np.float64)
    y, x = np.linspace(0, 1, height)[:, None, None], np.linspace(0, 1, width)[None, :, None]
    return (low * (1 - y) * (1 - x) + high * y * x).astype(np.uint8)


@pytest.fixture
def make_trajectory():
    """One raw Bridge trajectory folder; returns what was put in."""

    def make(folder, seed=0, num_frames=6, cameras=(0, 1), lang=None, plain_actions=False):
        folder.mkdir(parents=True)
        rng = np.random.default_rng(seed)
        states = rng.normal(size=(num_frames, 7))
        actions = [rng.uniform(-0.05, 0.05, 7) for _ in range(num_frames - 1)]
        dump(folder / "obs_dict.pkl", {"full_state": states, "time_stamp": list(range(num_frames))})
        dump(
            folder / "policy_out.pkl",
            actions if plain_actions else [{"actions": a, "policy_type": "vr"} for a in actions],
        )
        dump(folder / "agent_data.pkl", {"traj_ok": True, "camera_info": [{"name": "cam0"}]})
        files = {}
        for camera in cameras:
            (folder / f"images{camera}").mkdir()
            files[camera] = [simplejpeg.encode_jpeg(i, quality=90) for i in images(seed + camera, num_frames)]
            for t, data in enumerate(files[camera]):
                (folder / f"images{camera}" / f"im_{t}.jpg").write_bytes(data)
        if lang is not None:
            (folder / "lang.txt").write_text(lang)
        return {"states": states, "actions": np.asarray(actions), "files": files}

    return make


def dump(file, value, protocol=pickle.HIGHEST_PROTOCOL):
    file.write_bytes(pickle.dumps(value, protocol=protocol))


@pytest.fixture
def make_npy():
    """One ``out.npy`` as numpy.save writes it; returns the trajectories."""

    def make(file, lengths=(4, 2), cameras=("images0", "images1"), seed=0):
        file.parent.mkdir(parents=True)
        trajectories = []
        for number, num_steps in enumerate(lengths):
            rng = np.random.default_rng([seed, number])
            frames = {name: images([seed, number, i], num_steps + 1, 16, 16) for i, name in enumerate(cameras)}
            states = rng.normal(size=(num_steps + 1, 7)).astype(np.float32)
            steps = [{**{n: f[t] for n, f in frames.items()}, "state": states[t]} for t in range(num_steps + 1)]
            trajectories.append(
                {
                    "observations": steps[:-1],
                    "next_observations": [dict(step) for step in steps[1:]],
                    "actions": [rng.uniform(-0.05, 0.05, 7) for _ in range(num_steps)],
                    "terminals": [0] * num_steps,
                }
            )
        np.save(file, np.asarray(trajectories, dtype=object), allow_pickle=True)
        return trajectories

    return make
