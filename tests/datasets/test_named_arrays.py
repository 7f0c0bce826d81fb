"""HDF5 of robomimic and LIBERO, Minari, zarr of diffusion_policy, and a file an episode: ``write_files.py`` wrote them.

robomimic 0.3.0's ``SequenceDataset`` loads ``robomimic.hdf5``. Minari 0.5.4 wrote ``minari`` itself,
diffusion_policy's ``ReplayBuffer`` (5ba07ac, zarr 2.18.7) the zarr folder, and robomimic 0.3.0
``robomimic_lift.hdf5.xz`` (``write_robomimic_lift.py``).
"""

import io
import json
import lzma
import shutil
import sys
import zipfile
from pathlib import Path

import numpy as np
import pytest
from recordings import SIZES, recordings

from ptr_fast.data.store import EpisodeStore
from ptr_fast.errors import DataError
from ptr_robot import cli
from ptr_robot.datasets.detect import detect_format, open_source
from ptr_robot.verbs import convert

FILES = Path(__file__).with_name("files")
EEF = ("state=obs/robot0_eef_pos,obs/robot0_gripper_qpos",)
READS = {
    "robomimic.hdf5": ("h5py", {"key": EEF, "task": "lift the cube"}),
    "libero.hdf5": ("h5py", {}),
    "minari": ("h5py", {"task": "play"}),
    "diffusion_policy.zarr": ("zarr", {"task": "push the T"}),
}


def read(source, out, **options):
    args = convert.Args(source=source, out=out, **{"encoding": "raw", **options})
    opened = open_source(args)
    return EpisodeStore.open(out) if convert.convert(args, opened) else None, opened


def known(name, tmp_path, **options):
    package, usual = READS[name]
    pytest.importorskip(package, reason=f"reading {name} needs {package}")
    return read(FILES / name, tmp_path / "store", **{**usual, **options})


def frames_of(store, camera, episode):
    first, count = int(store.episodes.first[episode]), int(store.episodes.num_frames[episode])
    return np.stack([store.frame(camera, first + t) for t in range(count)])


def check(store, after, cameras):
    """States, actions, rewards and frames are those of the recordings; ``after``: with what was seen at the end."""
    for e, one in enumerate(recordings()):
        first, steps = int(store.episodes.first[e]), len(one.actions)
        count = steps + after
        assert (store.episodes.num_steps[e], store.episodes.num_frames[e]) == (steps, count)
        np.testing.assert_array_equal(store.state[first : first + count], one.states[:count])
        np.testing.assert_array_equal(store.action[first : first + steps], one.actions)
        for camera, name in cameras.items():
            np.testing.assert_array_equal(frames_of(store, camera, e), one.frames[name][:count, ::2, ::2])


def test_robomimic(tmp_path):
    store, source = known("robomimic.hdf5", tmp_path)
    check(store, True, {"front_image": "front", "wrist_image": "wrist"})
    assert store.episodes.split == ["train", "val", "train"]
    assert store.episodes.task == ["lift the cube"] * 3
    assert store.episodes.outcome == ["unknown"] * 3
    for rewards, one in zip(store.episodes.rewards, recordings(), strict=True):
        np.testing.assert_array_equal(rewards, one.rewards)
    assert store.meta.state.names == ("robot0_eef_pos_0", "robot0_eef_pos_1", "robot0_gripper_qpos")
    assert "--key success=rewards takes episodes with a reward above 0" in " ".join(source.notes)
    assert "not read: dones" in source.notes


def test_robomimic_success_where_asked(tmp_path):
    store, _ = known("robomimic.hdf5", tmp_path, key=(*EEF, "success=rewards"), cameras=("front_image",))
    assert store.episodes.outcome == ["success", "failure", "success"]
    assert [camera.name for camera in store.meta.cameras] == ["front_image"]


def test_robomimic_asks_for_its_state(tmp_path):
    with pytest.raises(
        DataError, match=r"state: nothing is called state; --key state=PATH names.*obs/robot0_eef_pos \[2\]"
    ):
        known("robomimic.hdf5", tmp_path, key=())
    with pytest.raises(DataError, match=r"have no instruction: robomimic.hdf5#demo_0.*--task TEXT"):
        known("robomimic.hdf5", tmp_path, task="")


def test_a_file_that_robomimic_wrote(tmp_path):
    h5py, file = pytest.importorskip("h5py", reason="HDF5 files need h5py"), tmp_path / "lift.hdf5"
    file.write_bytes(lzma.decompress((FILES / "robomimic_lift.hdf5.xz").read_bytes()))
    store, source = read(file, tmp_path / "store", key=(*EEF, "success=rewards"), task="lift the cube", control_hz=20)
    assert (source.dataset, source.cameras) == ("Lift", ("agentview_image",))
    assert (store.episodes.outcome, store.episodes.split) == (["success"] * 3, ["train"] * 3)
    with h5py.File(file) as content:
        for e, demo in enumerate(content["data"].values()):
            first, steps = int(store.episodes.first[e]), len(demo["actions"])
            assert (store.episodes.num_steps[e], store.episodes.num_frames[e]) == (steps, steps + 1)
            np.testing.assert_array_equal(store.action[first : first + steps], demo["actions"][:].astype(np.float32))
            np.testing.assert_array_equal(store.episodes.rewards[e], demo["rewards"])
            for group, frames in (("obs", slice(0, steps)), ("next_obs", slice(1, steps + 1))):
                seen = [demo[group][name][:] for name in ("robot0_eef_pos", "robot0_gripper_qpos")]
                states = store.state[first : first + steps + 1][frames]
                np.testing.assert_array_equal(states, np.concatenate(seen, axis=1).astype(np.float32))
            pictures = frames_of(store, "agentview_image", e)
            np.testing.assert_array_equal(pictures[:-1], demo["obs/agentview_image"])
            np.testing.assert_array_equal(pictures[-1], demo["next_obs/agentview_image"][-1])


def test_libero_says_its_task_and_is_recognised(tmp_path):
    store, source = known("libero.hdf5", tmp_path)
    assert store.episodes.task == ["put the black bowl on the plate"] * 2
    assert store.meta.action.names[-1] == "gripper"
    assert store.meta.action.units[-1] == "1 = closed, -1 = open"
    assert store.meta.state.names == source.layout.state.names
    assert store.meta.control_hz == 20


def test_minari(tmp_path):
    store, source = known("minari", tmp_path)
    check(store, True, {})
    assert set(source.cameras) == set(SIZES)
    for e, one in enumerate(recordings()):
        assert np.abs(frames_of(store, "front", e).astype(int) - one.frames["front"]).mean() < 3  # Minari keeps JPEG
        np.testing.assert_allclose(store.episodes.rewards[e], one.rewards)


def test_minaris_jpeg_files_are_kept(tmp_path):
    h5py = pytest.importorskip("h5py")
    store, _ = known("minari", tmp_path, encoding="jpeg")
    with h5py.File(FILES / "minari/data/main_data.hdf5") as file:
        assert bytes(store.frame_bytes("wrist", 2)) == bytes(file["episode_0/observations/wrist"][2])


def test_zarr(tmp_path):
    store, source = known("diffusion_policy.zarr", tmp_path)
    check(store, False, {"wrist": "wrist"})
    assert any("img (float32 [32, 40, 3]; --cameras takes it" in note for note in source.notes)
    assert any("steps per second" in what for what in store.meta.source["unknown"])


def test_zarr_pictures_of_whole_floats(tmp_path):
    store, _ = known("diffusion_policy.zarr", tmp_path, cameras=("img",))
    check(store, False, {"img": "front"})


def write_npz(folder, last=True, **changes):
    folder.mkdir()
    for i, one in enumerate(recordings()):
        count = len(one.actions) + last
        columns = {"state": one.states[:count], "action": one.actions, "reward": one.rewards, "task": one.task}
        frames = {name: np.ascontiguousarray(seen[:count, ::2, ::2]) for name, seen in one.frames.items()}
        np.savez(folder / f"{i}.npz", **{**columns, **frames, **changes})


@pytest.mark.parametrize("last", [True, False])
def test_npz(last, tmp_path):
    write_npz(tmp_path / "data", last)
    store, _ = read(tmp_path / "data", tmp_path / "store")
    check(store, last, {"front": "front", "wrist": "wrist"})
    assert store.episodes.task == [one.task for one in recordings()]
    assert store.episodes.episode_id == ["0.npz", "1.npz", "2.npz"]


def test_npy_of_steps(tmp_path):
    (tmp_path / "data").mkdir()
    for i, one in enumerate(recordings()):
        steps = [
            {
                "observation": {"state": one.states[t], "front": one.frames["front"][t, ::2, ::2].copy()},
                "action": one.actions[t],
                "reward": float(one.rewards[t]),
                "language_instruction": one.task,
            }
            for t in range(len(one.actions))
        ]
        np.save(tmp_path / "data" / f"episode_{i}.npy", np.array(steps, dtype=object), allow_pickle=True)
    store, _ = read(tmp_path / "data", tmp_path / "store")
    check(store, False, {"front": "front"})
    assert store.episodes.task == [one.task for one in recordings()]
    np.testing.assert_array_equal(store.episodes.rewards[2], recordings()[2].rewards)


def test_damaged_episode_files(tmp_path):
    write_npz(tmp_path / "data")
    file = tmp_path / "data" / "1.npz"
    file.write_bytes(file.read_bytes()[:-400])
    with pytest.raises(DataError, match=r"1.npz: not a whole npz file of plain arrays"):
        read(tmp_path / "data", tmp_path / "a")
    store, _ = read(tmp_path / "data", tmp_path / "b", on_bad="skip")
    assert store.episodes.episode_id == ["0.npz", "2.npz"]
    write_npz(tmp_path / "other", state=np.zeros((3, 3), np.float32))
    with pytest.raises(DataError, match=r"0.npz: episode '0.npz', front: expected 3 frames, one for each state, got 5"):
        read(tmp_path / "other", tmp_path / "c")
    write_npz(tmp_path / "nameless", state=np.zeros(5, "U3"))
    with pytest.raises(DataError, match=r"0.npz: state: nothing is called state; --key state=PATH"):
        read(tmp_path / "nameless", tmp_path / "d")


def test_hostile_npz(tmp_path):
    arrays = {"action": np.zeros((3, 2)), "state": np.zeros((4, 2)), "image": np.zeros((4, 16, 16, 3), np.uint8)}
    for name, message in (("action", "action: expected rows of numbers"), ("state", "state: expected rows of numbers")):
        np.savez(tmp_path / "a.npz", **{**arrays, name: np.zeros((len(arrays[name]), 0))})
        with pytest.raises(DataError, match=message):
            read(tmp_path, tmp_path / "store", task="x")
    np.savez(tmp_path / "a.npz", **arrays, reward=np.zeros((3, 2)))
    with pytest.raises(DataError, match="reward: expected one number a step, got 2"):
        read(tmp_path, tmp_path / "store", task="x")
    for shape, message in (((10**13,), "does not fit into memory"), ((2**70,), "not a whole npz file")):
        header = io.BytesIO()
        np.lib.format.write_array_header_1_0(header, {"descr": "<f4", "fortran_order": False, "shape": shape})
        written(tmp_path / "a.npz", "action.npy", header.getvalue())
        with pytest.raises(DataError, match=f"a.npz: .*{message}"):
            read(tmp_path, tmp_path / "store", task="x")
    written(tmp_path / "a.npz", "hello.txt", b"hello")
    with pytest.raises(DataError, match=r"a.npz: hello.txt: not an array"):
        read(tmp_path, tmp_path / "store", task="x")
    assert not (tmp_path / "store").exists()


def written(file, name, content):
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr(name, content)


def test_damaged_hdf5(tmp_path):
    h5py = pytest.importorskip("h5py")
    file = tmp_path / "demos.hdf5"
    shutil.copy(FILES / "robomimic.hdf5", file)
    options = READS["robomimic.hdf5"][1]
    with h5py.File(file, "a") as content:
        del content["data/demo_1/actions"]
        content["data/demo_1/actions"] = np.zeros((4, 2))
    with pytest.raises(DataError, match=r"demo_1', next|demo_1'.*expected"):
        read(file, tmp_path / "a", **options)
    with h5py.File(file, "a") as content:
        del content["data/demo_1/obs/front_image"]
    with pytest.raises(DataError, match=r"demos.hdf5: episode 'demo_1'.*"):
        read(file, tmp_path / "b", **options)
    file.write_bytes(file.read_bytes()[: file.stat().st_size // 2])
    with pytest.raises(DataError, match=r"demos.hdf5: not a whole HDF5 file"):
        read(file, tmp_path / "c", **options)
    file.write_bytes(b"version https://git-lfs.github.com/spec/v1\n")
    with pytest.raises(DataError, match=r"demos.hdf5: a Git LFS pointer"):
        read(file, tmp_path / "d", **options)
    with h5py.File(tmp_path / "other.h5", "w") as content:
        content["x"] = 1
    with pytest.raises(DataError, match=r"other.h5: expected a group 'data' with demonstrations, got \['x'\]"):
        read(tmp_path / "other.h5", tmp_path / "e", **options)


def test_damaged_zarr_and_minari(tmp_path):
    pytest.importorskip("zarr")
    root = shutil.copytree(FILES / "diffusion_policy.zarr", tmp_path / "d.zarr")
    (root / "data/action/1.0").write_bytes(b"nothing")
    with pytest.raises(DataError, match=r"episode 1 \(rows 4 to 8\), action: a chunk is damaged"):
        read(root, tmp_path / "a", task="t")
    description = root / "data/state/.zarray"
    about = json.loads(description.read_text())
    description.write_text(json.dumps({**about, "dtype": "banana"}))
    with pytest.raises(DataError, match=r"data/state/.zarray: not the description of an array \(.*banana"):
        read(root, tmp_path / "b", task="t")
    description.write_text(json.dumps({**about, "shape": [], "chunks": []}))
    with pytest.raises(DataError, match=r"data/state: expected 15 rows \(episode_ends\), got \[\]"):
        read(root, tmp_path / "b", task="t")
    pickled = {"shape": [15], "chunks": [7], "dtype": "|O", "fill_value": None, "compressor": None}
    filters = [{"id": "vlen-bytes"}, {"id": "pickle", "protocol": 5}]
    description.write_text(json.dumps({**about, **pickled, "filters": filters}))
    with pytest.raises(DataError, match=r"data/state: its chunks are pickles, which can run any program"):
        read(root, tmp_path / "b", task="t")
    description.write_text(json.dumps(about))
    (root / "meta/episode_ends/.zarray").unlink()
    with pytest.raises(DataError, match=r"d.zarr: not a replay buffer with data and meta/episode_ends"):
        read(root, tmp_path / "b", task="t")
    pytest.importorskip("h5py")
    root = shutil.copytree(FILES / "minari", tmp_path / "minari")
    (root / "data/metadata.json").write_text('{"data_format": "arrow"}')
    with pytest.raises(DataError, match=r"metadata.json: data_format: expected 'hdf5', got 'arrow'"):
        read(root, tmp_path / "c", task="t")


def test_formats_are_told_from_the_folder():
    found = {name: detect_format(FILES / name) for name in ("robomimic.hdf5", "minari", "diffusion_policy.zarr")}
    assert found == {"robomimic.hdf5": "robomimic", "minari": "minari", "diffusion_policy.zarr": "zarr"}
    assert detect_format(FILES / "lerobot_v30_image") == "lerobot"


@pytest.mark.parametrize(
    ("name", "package", "extra"),
    [
        ("lerobot_v30_video", "av", "lerobot"),
        ("robomimic.hdf5", "h5py", "hdf5"),
        ("minari", "h5py", "hdf5"),
        ("diffusion_policy.zarr", "zarr", "zarr"),
    ],
)
def test_a_missing_package_is_named(name, package, extra, tmp_path, monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, package, None)
    options = ["--source", str(FILES / name), "--out", str(tmp_path / "store"), "--task", "t"]
    assert cli.main(["convert", *options]) == 2
    assert f"pip install 'ptr-fast[{extra}]'" in capsys.readouterr().err
    assert not (tmp_path / "store").exists()


def test_hostile_hdf5(tmp_path):
    h5py = pytest.importorskip("h5py", reason="HDF5 files need h5py")
    actions = "data/demo_0/actions"
    cases = {
        "expected a group 'data'": lambda file: replaced(file, "data", np.zeros(3)),
        "/data/demo_1: expected a group of arrays": lambda file: replaced(file, "data/demo_1", np.zeros(3)),
        "not fit into memory": lambda file: replaced(file, actions, shape=(10**13, 3), dtype="f8", chunks=(9, 3)),
        "in another file": lambda file: replaced(file, actions, shape=(4, 3), dtype="u1", external=[(__file__, 0, 12)]),
        "actions: its numbers are in another file": lambda file: virtual(file, actions, elsewhere),
        "'data' is in another file, .*elsewhere.hdf5, which is not read": lambda file: linked(file, "data", elsewhere),
        "/data/demo_1.* is in another file, .*elsewhere.hdf5": lambda file: linked(file, "data/demo_1", elsewhere),
    }
    elsewhere = shutil.copy(FILES / "robomimic.hdf5", tmp_path / "elsewhere.hdf5")
    for number, (message, damage) in enumerate(cases.items()):
        copy = tmp_path / f"{number}.hdf5"
        shutil.copy(FILES / "robomimic.hdf5", copy)
        with h5py.File(copy, "r+") as file:
            damage(file)
        with pytest.raises(DataError, match=message):
            read(copy, tmp_path / str(number), key=EEF, task="x")


def linked(file, path, other):
    import h5py

    del file[path]
    file[path] = h5py.ExternalLink(other, path)


def virtual(file, path, other):
    import h5py

    layout = h5py.VirtualLayout(file[path].shape, "f4")
    layout[:] = h5py.VirtualSource(other, path, file[path].shape)
    del file[path]
    file.create_virtual_dataset(path, layout)


def replaced(file, path, data=None, **options):
    del file[path]
    file.create_dataset(path, data=data, **options)
