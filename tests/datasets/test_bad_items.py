"""One bad item is one bad episode; nothing is asked for that is not used; what a file is instead is told."""

import pickle
import shutil

import numpy as np
import pytest
from rlds_writer import jpegs, usual, usual_steps, write

from ptr_fast.data.store import EpisodeStore
from ptr_fast.errors import DataError
from ptr_robot import cli
from ptr_robot.datasets.bridge_npy import BridgeNpySource
from ptr_robot.datasets.rlds import RldsSource

POINTER = b"version https://git-lfs.github.com/spec/v1\noid sha256:0000\nsize 4096\n"
LFS = r"a Git LFS pointer, not the data: run 'git lfs pull'"
GROUP = "kitchen/open_door/2022-01-01_00-00-00/raw/traj_group0"


def raw(root, make_trajectory, count=4):
    for number in range(count):
        make_trajectory(root / GROUP / f"traj{number}", seed=number, cameras=(0, 1))
    return root


def empty(folder):
    shutil.rmtree(folder)
    folder.mkdir()


def wrong_size(folder):
    for file in (folder / "images0").iterdir():
        file.unlink()
    for t, frame in enumerate(jpegs(6, height=32, width=32)):
        (folder / "images0" / f"im_{t}.jpg").write_bytes(frame)


def make_empty(file):
    file.write_bytes(b"")


def make_pointer(file):
    file.write_bytes(POINTER)


def make_folder(file):
    file.unlink()
    file.mkdir()


def pickle_other_actions(folder):
    (folder / "policy_out.pkl").write_bytes(pickle.dumps([np.zeros(5)] * 5))


RAW_DAMAGE = {
    "empty folder": (empty, r"obs_dict.pkl: missing"),
    "empty file": (lambda f: make_empty(f / "obs_dict.pkl"), r"obs_dict.pkl: empty \(0 bytes\)"),
    "pointer": (lambda f: make_pointer(f / "policy_out.pkl"), rf"policy_out.pkl: {LFS}"),
    "frame pointer": (lambda f: make_pointer(f / "images1" / "im_2.jpg"), rf"image_1', step 2: .*\({LFS}"),
    "folder for a file": (lambda f: make_folder(f / "obs_dict.pkl"), r"obs_dict.pkl: a folder, expected a file"),
    "instruction pointer": (lambda f: make_pointer(f / "lang.txt"), rf"lang.txt: {LFS}"),
    "no camera": (lambda f: shutil.rmtree(f / "images1"), r"images1: missing; --cameras"),
    "camera is a file": (
        lambda f: (shutil.rmtree(f / "images1"), (f / "images1").write_text("")),
        r"images1: a file, expected a folder",
    ),
    "another size": (wrong_size, r"image_0', step 0: expected 48x64 like the frames of the first episodes, got 32x32"),
    "another action": (pickle_other_actions, r"actions: expected floats \[n, 7\], got float32 \[5, 5\]"),
    "frame is a folder": (lambda f: make_folder(f / "images0" / "im_1.jpg"), r"im_1.jpg: Is a directory"),
}


@pytest.mark.parametrize("place", [0, 2, 3])
@pytest.mark.parametrize("damage", RAW_DAMAGE)
def test_one_bad_trajectory(tmp_path, run, make_trajectory, damage, place):
    root = raw(tmp_path / "raw_data", make_trajectory)
    spoil, message = RAW_DAMAGE[damage]
    spoil(root / GROUP / f"traj{place}")
    with pytest.raises(DataError, match=message):
        run(root)
    assert (tmp_path / "store").exists() is (place > 0)
    summary, out = run(root, on_bad="skip")
    store = EpisodeStore.open(out)
    assert (store.num_episodes, len(summary.bad)) == (3, 1)
    assert [c.name for c in store.meta.cameras] == ["image_0", "image_1"]
    assert summary.bad[0]["episode_id"].endswith(f"traj{place}")


def test_nothing_is_asked_for_that_is_not_used(tmp_path, run, make_trajectory):
    root = raw(tmp_path / "raw_data", make_trajectory)
    for number in range(4):
        (root / GROUP / f"traj{number}" / "agent_data.pkl").unlink()
    assert run(root)[0].converted == 4
    make_pointer(root / GROUP / "traj0" / "agent_data.pkl")
    assert run(root)[0].present == 4


NPY_DAMAGE = {
    "empty": (make_empty, r"out.npy: empty \(0 bytes\)"),
    "pointer": (make_pointer, rf"out.npy: {LFS}"),
    "zip": (lambda f: f.write_bytes(b"PK\x03\x04rest"), r"out.npy: a zip archive: unpack it first"),
    "link": (
        lambda f: (f.unlink(), f.symlink_to(f.parent / "annexed")),
        r"out.npy: a link to a file that is not there",
    ),
    "no list": (lambda f: np.save(f, np.array({}, object)), r"out.npy: expected a one-dimensional .* of shape \(\)"),
    "page": (lambda f: f.write_bytes(b"<!DOCTYPE html>"), r"out.npy: a web page, not the data"),
}


@pytest.mark.parametrize("place", [0, 1, 2])
@pytest.mark.parametrize("damage", NPY_DAMAGE)
def test_one_bad_file_of_trajectories(tmp_path, run, make_npy, damage, place):
    files = [tmp_path / "npy" / "kitchen" / task / "train" / "out.npy" for task in ("aim", "bend", "cut")]
    for seed, file in enumerate(files):
        make_npy(file, lengths=(4,), seed=seed)
    spoil, message = NPY_DAMAGE[damage]
    spoil(files[place])
    with pytest.raises(DataError, match=message):
        run(tmp_path / "npy")
    summary, out = run(tmp_path / "npy", on_bad="skip")
    assert (EpisodeStore.open(out).num_episodes, len(summary.bad)) == (2, 1)


def test_a_file_without_trajectories_is_no_fault(tmp_path, run, make_npy):
    make_npy(tmp_path / "npy" / "kitchen" / "open_door" / "train" / "out.npy")
    other = tmp_path / "npy" / "kitchen" / "a_first" / "val" / "out.npy"
    other.parent.mkdir(parents=True)
    np.save(other, [])  # what Bridge's preparation writes where no trajectory is left
    assert run(tmp_path / "npy")[0].converted == 2


def test_a_trajectory_that_lacks_a_camera_does_not_cost_all_others_theirs(tmp_path, run, make_npy):
    for seed, (task, cameras) in enumerate(
        [("aim", ("images0",)), ("bend", ("images0", "images1")), ("cut", ("images0", "images1"))]
    ):
        make_npy(tmp_path / "npy" / "kitchen" / task / "train" / "out.npy", lengths=(4,), cameras=cameras, seed=seed)
    assert BridgeNpySource(tmp_path / "npy").cameras == ("image_0", "image_1")
    summary, out = run(tmp_path / "npy", on_bad="skip")
    assert (EpisodeStore.open(out).num_episodes, len(summary.bad)) == (2, 1)
    assert "no camera 'image_1'" in summary.bad[0]["error"]


@pytest.mark.parametrize("place", [0, 3])
def test_one_bad_episode_of_rlds(tmp_path, run, place):
    episodes = [usual(seed=seed) for seed in range(4)]
    del episodes[place]["steps/observation/image"]
    source = write(tmp_path / "own", usual_steps(), episodes)
    with pytest.raises(DataError, match=rf"#{place}', camera 'image': expected image files, got nothing"):
        run(source)
    summary, out = run(source, on_bad="skip")
    assert (EpisodeStore.open(out).num_episodes, len(summary.bad)) == (3, 1)


def shard(source, number, total=8):
    return source / f"own-train.tfrecord-{number:05d}-of-{total:05d}"


@pytest.fixture
def sharded(tmp_path):
    """Eight files with two episodes each."""
    return write(tmp_path / "own", usual_steps(), [usual(seed=seed) for seed in range(16)], num_shards=8)


@pytest.mark.parametrize(
    ("spoil", "message", "kept"),
    [
        (make_pointer, LFS, 14),
        (make_empty, r"expected 2 episodes \(dataset_info.json\), got 0", 14),
        (lambda f: f.write_bytes(b"\x1f\x8b rest"), "gzip data: unpack it first", 14),
        (lambda f: f.write_bytes(f.read_bytes()[:-9]), r"\(truncated\?\)", 15),
    ],
)
@pytest.mark.parametrize("place", [0, 5])
def test_one_bad_shard(sharded, run, spoil, message, kept, place):
    spoil(shard(sharded, place))
    with pytest.raises(DataError, match=message):
        run(sharded)
    summary, out = run(sharded, on_bad="skip")
    assert (EpisodeStore.open(out).num_episodes, len(summary.bad)) == (kept, 1)


def test_missing_shards(sharded, run, tmp_path, capsys):
    missing = shard(sharded, 2)
    data = missing.read_bytes()
    missing.unlink()
    with pytest.raises(
        DataError, match=r"1 of 8 files are missing, e.g. \S+00002-of-00008; fetch them, or read the 7 tha"
    ):
        run(sharded)
    summary, out = run(sharded, allow_missing_shards=True)
    assert (summary.converted, summary.bad) == (14, [])  # every file is held against its own number of episodes
    assert any("reading the 7 that are here" in note for note in RldsSource(sharded, allow_missing_shards=True).notes)
    missing.write_bytes(data)
    summary, out = run(sharded)
    assert (summary.present, summary.converted, EpisodeStore.open(out).num_episodes) == (14, 2, 16)
    missing.unlink()
    missing.symlink_to(tmp_path / "annexed")
    with pytest.raises(DataError, match=r"1 of 8 files are missing, e.g. \S+ \(a link to a file that is not there"):
        run(sharded)
    assert run(sharded, allow_missing_shards=True)[0].present == 14
    missing.unlink()
    missing.write_bytes(data)
    (shard(sharded, 3).with_suffix(".tfrecord-00003-of-00008.part")).write_bytes(b"half")
    assert any("not read: own-train.tfrecord-00003-of-00008.part" in note for note in RldsSource(sharded).notes)


def test_descriptions_that_are_not_needed_do_not_stop(sharded, run):
    for content in (POINTER, b"{", b"[]"):
        (sharded / "dataset_info.json").write_bytes(content)
        assert any("dataset_info.json: " in note for note in RldsSource(sharded).notes)
    assert run(sharded)[0].converted == 16


def test_a_shard_without_a_record_that_nobody_expected(sharded, run):
    (sharded / "dataset_info.json").unlink()
    make_empty(shard(sharded, 4))
    with pytest.raises(DataError, match=r"00004-of-00008: empty \(0 bytes\)"):
        run(sharded)


@pytest.mark.parametrize(
    ("content", "message"), [(POINTER, LFS), (b"", r"empty \(0 bytes\)"), (b"<html>", "a web page, not the data")]
)
def test_features_that_are_something_else(sharded, run, content, message):
    (sharded / "features.json").write_bytes(content)
    with pytest.raises(DataError, match=rf"features.json: {message}"):
        run(sharded)


def test_folders_and_files_mixed_up(sharded, run, tmp_path, make_trajectory):
    for name in ("features.json", "dataset_info.json", shard(sharded, 0).name):
        with pytest.raises(
            DataError, match=rf"{name}: a file, expected the folder of the data set: --source {sharded}"
        ):
            run(sharded / name)
    make_folder(sharded / "features.json")
    with pytest.raises(DataError, match=r"features.json: a folder, expected a file"):
        run(sharded)
    root = raw(tmp_path / "raw_data", make_trajectory, 1)
    for inside in (root / GROUP, root / GROUP / "traj0"):
        with pytest.raises(
            DataError, match="this is inside a raw Bridge folder: give one above the folder named by its"
        ):
            run(inside)
    with pytest.raises(DataError, match=r"obs_dict.pkl: a file, expected the folder of the data set"):
        run(root / GROUP / "traj0" / "obs_dict.pkl")
    (tmp_path / "npy" / "train" / "out.npy").mkdir(parents=True)
    with pytest.raises(DataError, match=r"train/out.npy is a folder, expected a file"):
        run(tmp_path / "npy")


@pytest.mark.parametrize("name", ["meta.json", "steps/000000.arrow", "episodes/000000.arrow"])
def test_a_store_that_git_keeps_elsewhere(sharded, run, name):
    _, out = run(sharded)
    make_pointer(out / name)
    with pytest.raises(DataError, match=rf"{name}: .*{LFS}"):
        EpisodeStore.open(out)
    with pytest.raises(DataError, match=rf"{name}: a file, not a store \(expected its folder\)"):
        EpisodeStore.open(out / name)


def test_what_is_not_read_is_called_by_its_name(tmp_path, run, sharded):
    (tmp_path / "log.bag").write_bytes(b"#ROSBAG V2.0")
    with pytest.raises(DataError, match=r"log.bag: a file, expected a folder: ROS bag is not read"):
        run(tmp_path / "log.bag")
    (tmp_path / "data.tar").write_bytes(b"\0" * 257 + b"ustar" + b"\0" * 250)
    with pytest.raises(DataError, match=r"data.tar: a file, expected a folder: a tar archive: unpack it first"):
        run(tmp_path / "data.tar")
    (tmp_path / "bags").mkdir()
    shutil.copy(tmp_path / "log.bag", tmp_path / "bags" / "log.bag")
    with pytest.raises(DataError, match=r"it holds ROS bag \(log.bag\), which is not read"):
        run(tmp_path / "bags")
    (tmp_path / "lerobot" / "meta").mkdir(parents=True)
    (tmp_path / "lerobot" / "meta" / "info.json").write_text("{}")
    with pytest.raises(DataError, match=r"info.json: codebase_version: expected one of"):
        run(tmp_path / "lerobot")
    _, out = run(sharded)
    with pytest.raises(DataError, match="this is a store already"):
        run(out, out="again")
    (tmp_path / "link").symlink_to(tmp_path / "nowhere")
    with pytest.raises(DataError, match="link: a link to a file that is not there"):
        run(tmp_path / "link")


def test_a_bad_episode_leaves_a_whole_store(tmp_path, run):
    """Bounds and the list of bad episodes are those of what was converted before."""
    episodes = [usual(seed=seed) for seed in range(4)]
    del episodes[2]["steps/action"]
    with pytest.raises(DataError, match="steps/action: expected numbers, got nothing"):
        run(write(tmp_path / "own", usual_steps(), episodes))
    store = EpisodeStore.open(tmp_path / "store")
    assert (store.num_episodes, store.meta.action.bounds_source) == (2, "data")


def test_the_command_is_one_line(sharded, tmp_path, capsys):
    make_pointer(shard(sharded, 0))
    assert cli.main(["convert", "--source", str(sharded), "--out", str(tmp_path / "store")]) == 2
    shown = capsys.readouterr()
    assert "Git LFS pointer" in shown.err.splitlines()[-1]
    assert not (tmp_path / "store").exists()
