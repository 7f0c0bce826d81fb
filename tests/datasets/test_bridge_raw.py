"""Raw Bridge folders: records, latency shift, splits, instructions, and what is wrong with a trajectory."""

import pickle

import numpy as np
import pytest
from PIL import Image

from ptr_fast.config import RewardConfig, TaskTable
from ptr_fast.data.store import EpisodeStore
from ptr_fast.data.transitions import Transitions
from ptr_fast.errors import DataError
from ptr_robot.datasets.bridge_raw import BridgeRawSource, find_trajectories

NEW, OLD, LAST_OLD = "2021-07-24_10-00-00", "2021-06-01_10-00-00", "2021-07-23_23-59-59"


def place(root, date=NEW, domain="toykitchen1", task="put_carrot_on_plate", group=0, number=0):
    return root / domain / task / date / "raw" / f"traj_group{group}" / f"traj{number}"


def test_records(tmp_path, run, make_trajectory):
    made = make_trajectory(place(tmp_path / "raw_data"), num_frames=6)
    _, out = run(tmp_path / "raw_data")
    store = EpisodeStore.open(out)
    assert (store.num_episodes, store.num_steps, store.num_records) == (1, 5, 6)
    np.testing.assert_array_equal(store.state, made["states"].astype(np.float32))
    np.testing.assert_array_equal(store.action[:5], made["actions"].astype(np.float32))
    for camera in (0, 1):
        assert [bytes(store.frame_bytes(f"image_{camera}", r)) for r in range(6)] == made["files"][camera]
    assert store.episodes.task == ["put_carrot_on_plate"]
    assert store.episodes.domain == ["toykitchen1"]
    assert store.episodes.source == [f"toykitchen1/put_carrot_on_plate/{NEW}/raw/traj_group0/traj0"]
    assert store.meta.cameras[0].resize == "none"


@pytest.mark.parametrize("date", [OLD, LAST_OLD])
def test_latency_shift_pairs_an_action_with_the_frame_one_step_later(tmp_path, run, make_trajectory, date):
    made = make_trajectory(place(tmp_path / "raw_data", date=date), num_frames=6)
    _, out = run(tmp_path / "raw_data")
    store = EpisodeStore.open(out)
    frames, states = made["files"][0], made["states"].astype(np.float32)
    # the reference: obs = f[:-1][1:], next = f[1:][1:], actions = a[:-1]
    table = Transitions(
        store,
        task_table=TaskTable(names=store.meta.tasks, num_slots=1),
        action=store.meta.action,
        rewards=RewardConfig(),
    )
    assert [bytes(store.frame_bytes("image_0", r)) for r in table.record] == frames[:-1][1:]
    assert [bytes(store.frame_bytes("image_0", r)) for r in table.next_record] == frames[1:][1:]
    np.testing.assert_array_equal(store.state[table.record], states[:-1][1:])
    np.testing.assert_array_equal(store.state[table.next_record], states[1:][1:])
    np.testing.assert_array_equal(store.action[table.record], made["actions"][:-1].astype(np.float32))


def test_second_public_layout(tmp_path, run, make_trajectory):
    """Bridge V2: a numbered folder between task and date, an instruction per trajectory, depth beside the cameras."""
    root = tmp_path / "raw_data" / "entity"
    folder = root / "toysink3" / "pnp" / "04" / "2022-01-01_00-00-00" / "raw" / "traj_group1" / "traj2"
    make_trajectory(folder, lang="move the pot to the left\nconfidence: 0.9\n", plain_actions=True)
    (folder / "depth_images0").mkdir()
    _, out = run(tmp_path / "raw_data")
    store = EpisodeStore.open(out)
    assert (store.episodes.task, store.episodes.domain) == (["move the pot to the left"], ["toysink3"])
    assert [camera.name for camera in store.meta.cameras] == ["image_0", "image_1"]
    notes = ("left out, as these folders are no colour cameras: depth_images0",)
    assert BridgeRawSource(tmp_path / "raw_data").notes == notes


def test_resize(tmp_path, run, make_trajectory):
    make_trajectory(place(tmp_path / "raw_data"))
    _, out = run(tmp_path / "raw_data", image_size=32, cameras=("image_1",))
    camera = EpisodeStore.open(out).meta.cameras[0]
    assert (camera.name, camera.height, camera.width) == ("image_1", 32, 32)
    assert (camera.source_height, camera.source_width, camera.resize) == (48, 64, "lanczos")
    assert EpisodeStore.open(out).frame("image_1", 0).shape == (32, 32, 3)


def test_order_and_splits_do_not_depend_on_what_else_is_there(tmp_path, run, make_trajectory):
    root = tmp_path / "raw_data"
    for number in range(12):
        make_trajectory(place(root, number=number), seed=number, num_frames=3, cameras=(0,))
    names = [folder.name for folder in find_trajectories(root)]
    assert names == [f"traj{number}" for number in range(12)]
    _, some = run(root, out="some", limit=5)
    _, all_of_them = run(root, out="all")
    some, all_of_them = EpisodeStore.open(some).episodes, EpisodeStore.open(all_of_them).episodes
    assert some.split == all_of_them.split[:5]
    assert some.digest == all_of_them.digest[:5]
    shares = [
        BridgeRawSource(root, seed=seed).shards()[0].episodes() for seed in range(1)
    ]  # an id stays the same under another seed
    assert next(iter(shares[0])).episode_id == all_of_them.episode_id[0]


def test_split_is_nine_to_one():
    from ptr_robot.datasets.bridge_raw import _split

    splits = [_split(0, f"traj{number}") for number in range(4000)]
    assert set(splits) == {"train", "val"}
    assert 0.88 < splits.count("train") / 4000 < 0.92
    assert splits != [_split(1, f"traj{number}") for number in range(4000)]


def test_one_that_lacks_a_camera_costs_the_others_nothing(tmp_path, run, make_trajectory):
    root = tmp_path / "raw_data"
    for number, cameras in enumerate([(0,), (0, 1), (0, 1), (0, 1, 2)]):
        make_trajectory(place(root, number=number), cameras=cameras)
    source = BridgeRawSource(root)
    assert source.cameras == ("image_0", "image_1")
    assert source.notes == (
        "cameras left out: image_2 (in 1 of 4 trajectories); --cameras takes them",
        "cameras that not all trajectories have: image_1 (lacking in 1); those without are bad episodes",
    )
    with pytest.raises(DataError, match=r"traj0/images1: missing; --cameras chooses"):
        run(root)
    assert not (tmp_path / "store").exists()
    summary, out = run(root, on_bad="skip")
    assert (len(summary.bad), EpisodeStore.open(out).num_episodes) == (1, 3)
    assert run(root, out="one", cameras=("image_0",))[0].converted == 4
    assert run(root, out="one")[0].present == 4  # the store's cameras are gone on with
    with pytest.raises(ValueError, match=r"no camera \['image_7'\]"):
        BridgeRawSource(root, ("image_7",))


def break_pickle(folder):
    (folder / "obs_dict.pkl").write_bytes(pickle.dumps({"states": [1]}))


def break_action(folder):
    (folder / "policy_out.pkl").write_bytes(pickle.dumps([{"action": np.zeros(7)}] * 5))


def cut_pickle(folder):
    file = folder / "policy_out.pkl"
    file.write_bytes(file.read_bytes()[:30])


def cut_jpeg(folder):
    file = folder / "images0" / "im_2.jpg"
    file.write_bytes(file.read_bytes()[:-80])


def put_png_of_16_bits(folder):
    Image.fromarray(np.full((48, 64), 40_000, np.uint16)).save(folder / "images0" / "im_2.jpg", format="PNG")


def put_nan(folder):
    (folder / "policy_out.pkl").write_bytes(pickle.dumps([np.full(7, np.nan)] * 5))


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda f: (f / "obs_dict.pkl").unlink(), r"obs_dict.pkl: missing"),
        (lambda f: (f / "images0" / "im_3.jpg").unlink(), r"images0: frame im_3 is missing"),
        (lambda f: (f / "images0" / "im_5.jpg").unlink(), r"expected 6 frames of 'image_0' for 5 actions, got 5"),
        (lambda f: (f / "obs_dict.pkl").write_bytes(b"\x80"), r"obs_dict.pkl: damaged pickle"),
        (
            lambda f: (f / "images0" / "im_1.jpg").write_bytes(b"GIF"),
            r"camera 'image_0', step 1: .* \(neither JPEG nor PNG\)",
        ),
        (put_png_of_16_bits, r"camera 'image_0', step 2: .* 8 bits a channel, got mode I;16 of PNG"),
        (break_pickle, r"obs_dict.pkl: expected a dict with 'full_state'"),
        (cut_pickle, r"policy_out.pkl: refused pickle: .* \(truncated\?\)"),
        (
            lambda f: (f / "policy_out.pkl").write_bytes(pickle.dumps([])),
            r"policy_out.pkl: expected a list with one action per step, got an empty list",
        ),
        (break_action, r"policy_out.pkl, step 0: expected a dict with 'actions'"),
        (cut_jpeg, r"camera 'image_0', step 2: not a whole image"),
        (put_nan, r"actions, step 0: expected finite numbers"),
    ],
)
def test_bad_trajectories(tmp_path, run, make_trajectory, damage, message):
    root = tmp_path / "raw_data"
    make_trajectory(place(root, number=0))
    make_trajectory(place(root, number=1))
    damage(place(root, number=1))
    with pytest.raises(DataError, match=message):
        run(root)
    summary, out = run(root, on_bad="skip")
    assert EpisodeStore.open(out).num_episodes == 1
    assert [bad["episode_id"].endswith("traj1") for bad in summary.bad] == [True]


def test_a_damaged_first_frame_is_named_too(tmp_path, run, make_trajectory):
    make_trajectory(place(tmp_path / "raw_data"))
    (place(tmp_path / "raw_data") / "images0" / "im_0.jpg").write_bytes(b"")
    with pytest.raises(DataError, match=r"traj0', camera 'image_0', step 0: not a whole image of 0 bytes"):
        run(tmp_path / "raw_data")
    assert not (tmp_path / "store").exists()


def test_wrong_date_and_too_short(tmp_path, run, make_trajectory):
    make_trajectory(place(tmp_path / "a", date="yesterday"))
    with pytest.raises(DataError, match=r"yesterday: expected a folder named YYYY-MM-DD_HH-MM-SS"):
        run(tmp_path / "a")
    make_trajectory(place(tmp_path / "b", date=OLD), num_frames=2)
    with pytest.raises(DataError, match="no step is left of 1 actions after the latency shift"):
        run(tmp_path / "b", out="other")
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match=r"empty: not recognised as one of \['rlds', 'bridge-raw', 'bridge-npy', "):
        run(tmp_path / "empty")
    with pytest.raises(DataError, match="no trajectory found"):
        run(tmp_path / "empty", format="bridge-raw")
