"""The lerobot package itself on what ``export-dataset`` wrote: it loads it item by item, trains on it, and edits it.

Runs in an environment of its own, which ``make test-lerobot`` makes: PTR_FAST_LEROBOT_PYTHON is its interpreter.
"""

import os
import subprocess
from pathlib import Path

import numpy as np
import pytest
from recordings import HZ, SIZES, recordings
from test_lerobot_folders import make_store, read, same

from ptr_robot.verbs import export_dataset

SCRIPT = Path(__file__).with_name("lerobot_package.py")
PYTHON = os.environ.get("PTR_FAST_LEROBOT_PYTHON", "")
pytestmark = pytest.mark.skipif(
    not (PYTHON and Path(PYTHON).is_file()),
    reason="needs the lerobot package in its own environment: make test-lerobot",
)


def package(*args):
    """Runs ``lerobot_package.py`` with the package's interpreter."""
    clean = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    done = subprocess.run(
        [PYTHON, str(SCRIPT), *map(str, args)], env={**clean, "HF_HUB_OFFLINE": "1"}, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr[-2000:]
    return done.stdout


@pytest.fixture
def exported(tmp_path):
    """A store of raw frames and the folders that it went out to: images and videos."""
    store = make_store(tmp_path / "store", "raw", outcomes=("success", "failure", "success"))
    for name, video in (("image", False), ("video", True)):
        export_dataset.main(export_dataset.Args(store=store.path, out=tmp_path / name, video=video))
    return store


@pytest.mark.parametrize("kind", ["image", "video"])
def test_the_package_gives_every_item(kind, exported, tmp_path):
    package("read", tmp_path / kind, tmp_path / "items.npz")
    items = np.load(tmp_path / "items.npz")
    assert (int(items["num_episodes"]), int(items["fps"])) == (3, 5)
    wanted = recordings()
    states = np.concatenate([one.states[:-1] for one in wanted])
    actions = np.concatenate([one.actions for one in wanted])
    np.testing.assert_array_equal(items["observation.state"], states)
    np.testing.assert_array_equal(items["action"], actions)
    np.testing.assert_array_equal(items["next.reward"], np.concatenate([one.rewards for one in wanted]))
    assert items["next.success"].sum() == 2
    assert items["task"].tolist() == [one.task for one in wanted for _ in one.actions]
    for name in SIZES:
        pixels = np.concatenate([one.frames[name][:-1] for one in wanted]).transpose(0, 3, 1, 2)
        error = np.abs(items[f"observation.images.{name}"] * 255 - pixels)
        assert error.max() < 1e-4 if kind == "image" else error.mean() < 2.5
    np.testing.assert_allclose(items["stats/action/mean"], actions.mean(axis=0), rtol=1e-6)
    np.testing.assert_allclose(items["stats/action/std"], actions.std(axis=0), rtol=1e-6)


def test_the_package_trains_on_it(exported, tmp_path):
    assert "losses" in package("train", tmp_path / "image")


def test_the_package_edits_it_and_it_comes_back(exported, tmp_path):
    package("drop", tmp_path / "image", tmp_path / "fewer", 1)
    store, _ = read(tmp_path / "fewer", tmp_path / "again")
    assert store.num_episodes == 2
    assert store.episodes.task == [exported.episodes.task[0], exported.episodes.task[2]]
    assert store.episodes.outcome == ["success", "success"]
    np.testing.assert_array_equal(store.episodes.rewards[1], recordings()[2].rewards)


def test_what_it_writes_today_is_read(tmp_path):
    package("write", tmp_path / "data", "image")
    store, _ = read(tmp_path / "data", tmp_path / "store")
    assert (store.num_episodes, store.meta.control_hz) == (3, HZ)
    for e, one in enumerate(recordings()):
        first = int(store.episodes.first[e])
        np.testing.assert_array_equal(store.action[first : first + len(one.actions)], one.actions)
        np.testing.assert_array_equal(store.frame("front", first), one.frames["front"][0])


def test_a_store_with_last_observations_survives_the_package_looking_at_it(exported, tmp_path):
    package("read", tmp_path / "image", tmp_path / "items.npz")
    same(exported, read(tmp_path / "image", tmp_path / "again")[0])
