"""PTR's out.npy files: content, each frame once, resuming, and files that do not hold what they should."""

import numpy as np
import pytest

from ptr_fast.data.store import EpisodeStore
from ptr_fast.errors import DataError
from ptr_robot.datasets.bridge_npy import BridgeNpySource


def place(root, domain="toykitchen1", task="put_carrot_on_plate", split="train"):
    return root / domain / task / split / "out.npy"


def save(file, trajectories):
    np.save(file, np.asarray(trajectories, dtype=object), allow_pickle=True)


def test_content(tmp_path, run, make_npy):
    root = tmp_path / "npy"
    made = make_npy(place(root)), make_npy(place(root, split="val"), lengths=(3,), seed=1)
    _, out = run(root, encoding="raw")
    store = EpisodeStore.open(out)
    assert store.episodes.num_steps.tolist() == [4, 2, 3]
    assert store.episodes.num_frames.tolist() == [5, 3, 4]
    assert store.episodes.split == ["train", "train", "val"]
    assert set(store.episodes.task) == {"put_carrot_on_plate"}
    assert set(store.episodes.domain) == {"toykitchen1"}
    assert store.episodes.episode_id[1] == "toykitchen1/put_carrot_on_plate/train/out.npy#1/2"
    assert store.meta.source["terminal_flags_all_zero"] is True
    assert "rewards_all_zero" not in store.meta.source
    for number, trajectory in enumerate([*made[0], *made[1]]):
        first = store.episodes.first[number]
        for t, step in enumerate([*trajectory["observations"], trajectory["next_observations"][-1]]):
            np.testing.assert_array_equal(store.state[first + t], step["state"])
            for camera, key in (("image_0", "images0"), ("image_1", "images1")):
                np.testing.assert_array_equal(store.frame(camera, first + t), step[key])
        actions = np.asarray(trajectory["actions"], np.float32)
        np.testing.assert_array_equal(store.action[first : first + len(actions)], actions)


def test_second_run_does_not_load_finished_files(tmp_path, run, make_npy, monkeypatch):
    root = tmp_path / "npy"
    make_npy(place(root), cameras=("images0",))
    run(root, cameras=("image_0",))

    def refuse(file):
        raise AssertionError(f"loaded {file}")

    monkeypatch.setattr("ptr_robot.datasets.bridge_npy.load_object_array", refuse)
    summary, _out = run(root, cameras=("image_0",))
    assert (summary.present, summary.converted) == (2, 0)


def test_simulated_data(tmp_path, run, make_npy):
    """A flat CHW frame under ``image``, rewards, and an action that is not Bridge's."""
    file = place(tmp_path / "npy")
    trajectories = make_npy(file, lengths=(3,), cameras=("image",))
    pixels = [step["image"].copy() for step in trajectories[0]["observations"]]
    for rows in (trajectories[0]["observations"], trajectories[0]["next_observations"]):
        for step in rows:
            step["image"] = step["image"].transpose(2, 0, 1).reshape(-1)
    trajectories[0]["rewards"] = [0.0, 0.0, 1.0]
    trajectories[0]["actions"] = [action[:4] for action in trajectories[0]["actions"]]
    save(file, trajectories)
    _, out = run(tmp_path / "npy", encoding="raw")
    store = EpisodeStore.open(out)
    np.testing.assert_array_equal(store.frame("image", 1), pixels[1])
    assert store.meta.source["rewards_all_zero"] is False
    low, high = np.quantile(store.action[:3].astype(np.float64), [0.01, 0.99], axis=0)
    np.testing.assert_allclose(store.meta.action.low, low, atol=1e-8)
    np.testing.assert_allclose(store.meta.action.high, high, atol=1e-8)
    assert store.meta.action.bounds_source == "data"
    assert store.meta.action.names == ("action_0", "action_1", "action_2", "action_3")
    assert set(store.meta.action.units) == {"unknown"}


def test_depth_is_no_camera_and_is_named(tmp_path, run, make_npy):
    file = place(tmp_path / "npy")
    trajectories = make_npy(file, lengths=(3,))
    for trajectory in trajectories:
        for step in (*trajectory["observations"], *trajectory["next_observations"]):
            step.update(images2=np.zeros((16, 16), np.uint16), depth_images0=np.zeros((16, 16, 1), np.float32))
    save(file, trajectories)
    told = "depth_images0 (float32 [16, 16, 1]), images2 (uint16 [16, 16])"
    assert BridgeNpySource(tmp_path / "npy").notes == (f"left out, as these are no colour pictures: {told}",)
    _, out = run(tmp_path / "npy")
    assert [camera.name for camera in EpisodeStore.open(out).meta.cameras] == ["image_0", "image_1"]
    with pytest.raises(DataError, match=r"images2: expected uint8 \[H, W, 3\], got uint16"):
        run(tmp_path / "npy", out="asked", cameras=("image_2",))


def shift_frames(trajectory):
    trajectory["next_observations"][0]["images0"] = trajectory["observations"][0]["images0"]


def shift_states(trajectory):
    trajectory["next_observations"][1] = {**trajectory["next_observations"][1], "state": np.zeros(7, np.float32)}


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (shift_frames, r"trajectory 1/2, step 0, 'image_0': the next frame is not the frame of step 1"),
        (shift_states, r"trajectory 1/2, step 1: the next state is not the state of step 2"),
        (lambda t: t.pop("actions"), r"trajectory 1/2: expected a dict with 'actions'"),
        (lambda t: t["actions"].pop(), r"trajectory 1/2, observations: expected 3 steps, got 4"),
        (lambda t: t.update(observations=[]), r"trajectory 1/2, observations: expected at least one step"),
        (lambda t: t["observations"][0].pop("state"), r"trajectory 1/2, step 0: expected a dict with 'state'"),
        (lambda t: t["observations"][0].pop("images0"), r"trajectory 1/2, step 0: no camera 'image_0'"),
        (
            lambda t: t["observations"][0].update(images0=np.zeros(5)),
            r"images0: expected uint8 \[H, W, 3\], got float64",
        ),
        (lambda t: t.update(actions=[np.full(7, np.inf)] * 4), r"#1/2', actions, step 0: expected finite numbers"),
        (lambda t: t.update(actions=["left"] * 4), r"actions: expected rows of numbers"),
    ],
)
def test_bad_trajectories(tmp_path, run, make_npy, damage, message):
    file = place(tmp_path / "npy")
    trajectories = make_npy(file, lengths=(4, 4))
    damage(trajectories[1])
    save(file, trajectories)
    with pytest.raises(DataError, match=message):
        run(tmp_path / "npy", encoding="raw")
    summary, out = run(tmp_path / "npy", encoding="raw", on_bad="skip")
    assert EpisodeStore.open(out).num_episodes == 1
    assert len(summary.bad) == 1


def test_bad_files(tmp_path, run, make_npy):
    root = tmp_path / "npy"
    make_npy(place(root))
    other = place(root, task="zzz")
    make_npy(other)
    other.write_bytes(other.read_bytes()[:-50])
    with pytest.raises(DataError, match=r"zzz/train/out.npy: refused pickle"):
        run(root, encoding="raw")
    np.save(other, np.zeros(3))
    with pytest.raises(
        DataError, match=r"zzz/train/out.npy: expected an object array of trajectories, got dtype float64"
    ):
        run(root, encoding="raw")
    other.write_bytes(b"hello")
    with pytest.raises(DataError, match=r"zzz/train/out.npy: not an .npy file"):
        run(root, encoding="raw")
    _summary, out = run(root, encoding="raw", on_bad="skip")
    assert EpisodeStore.open(out).num_episodes == 2
    with pytest.raises(DataError, match=r"no out.npy found"):
        BridgeNpySource(tmp_path / "store")
