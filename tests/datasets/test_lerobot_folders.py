"""LeRobot folders that its own packages wrote (0.3.3: v2.1, 0.6.1: v3.0), damage to them, and stores that go out and
come back. ``lerobot_package.py`` wrote the folders; ``test_lerobot_package.py`` asks the package itself."""

import json
import os
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import simplejpeg
from recordings import ACTION_NAMES, HZ, SIZES, STATE_NAMES, recordings

from ptr_fast.config import RewardConfig
from ptr_fast.data.store import Episode, EpisodeStore, StoreMeta, StoreWriter
from ptr_fast.data.store_meta import load_meta, save_meta
from ptr_fast.errors import DataError
from ptr_fast.types import ActionSpec, CameraSpec, StateSpec
from ptr_robot import cli
from ptr_robot.datasets.detect import open_source
from ptr_robot.datasets.lerobot_writer import LeRobotWriter
from ptr_robot.datasets.video_file import VideoFile
from ptr_robot.verbs import convert, export_dataset

FILES = Path(__file__).with_name("files")
FOLDERS = ("lerobot_v21_image", "lerobot_v21_video", "lerobot_v30_image", "lerobot_v30_video")
DATA, EPISODES = "data/chunk-000/file-000.parquet", "meta/episodes/chunk-000/file-000.parquet"


def read(source, out, **options):
    args = convert.Args(source=source, out=out, **{"encoding": "raw", **options})
    summary = convert.convert(args, open_source(args))
    return EpisodeStore.open(out), summary


@pytest.fixture
def copy(tmp_path):
    """A copy of the v3.0 folder of images, to be damaged."""
    shutil.copytree(FILES / "lerobot_v30_image", tmp_path / "data")
    return tmp_path / "data"


def frames_of(store, camera, episode, count):
    first = int(store.episodes.first[episode])
    return np.stack([store.frame(camera, first + t) for t in range(count)])


@pytest.mark.parametrize("folder", FOLDERS)
def test_what_the_package_wrote_is_read(folder, tmp_path):
    if folder.endswith("video"):
        pytest.importorskip("av", reason="videos need PyAV: pip install 'ptr-fast[lerobot]'")
    store, summary = read(FILES / folder, tmp_path / "store")
    assert store.meta.control_hz == HZ
    assert (store.meta.state.names, store.meta.action.names) == (STATE_NAMES, ACTION_NAMES)
    assert set(store.meta.state.units) == {"unknown"}
    assert any("units of the action" in what for what in summary.space.unknown)
    assert store.num_episodes == 3
    for e, expected in enumerate(recordings()):
        first, steps = int(store.episodes.first[e]), len(expected.actions)
        assert (store.episodes.num_steps[e], store.episodes.num_frames[e]) == (steps, steps)
        np.testing.assert_array_equal(store.state[first : first + steps], expected.states[:-1])
        np.testing.assert_array_equal(store.action[first : first + steps], expected.actions)
        np.testing.assert_array_equal(store.episodes.rewards[e], expected.rewards)
        assert store.episodes.task[e] == expected.task
        assert store.episodes.outcome[e] == ("success" if expected.succeeds else "failure")
        assert store.episodes.split[e] == ""  # {"train": "0:3"} is in every data set and says nothing
        for camera in SIZES:
            seen, wanted = frames_of(store, camera, e, steps), expected.frames[camera][:-1]
            if folder.endswith("image"):
                np.testing.assert_array_equal(seen, wanted)
                continue
            distance = np.abs(seen[:, None].astype(int) - wanted[None]).mean(axis=(2, 3, 4))
            assert distance.diagonal().max() < 2.5
            assert (distance.argmin(axis=1) == np.arange(steps)).all()


def test_detected_continued_and_limited_to_a_camera(tmp_path, capsys):
    options = ["--source", str(FILES / "lerobot_v30_image"), "--out", str(tmp_path / "s"), "--cameras", "wrist"]
    for expected in ("2 converted, 0 there already", "1 converted, 2 there already", "0 converted, 3 there already"):
        limit = ["--limit", "2"] if expected.startswith("2") else []
        assert cli.main(["convert", *options, *limit]) == 0
        assert expected in capsys.readouterr().out
    assert [camera.name for camera in EpisodeStore.open(tmp_path / "s").meta.cameras] == ["wrist"]


def test_keys_choose_features(tmp_path):
    source = FILES / "lerobot_v30_image"
    store, _ = read(source, tmp_path / "a", key=("state=observation.state,next.reward", "success=next.reward"))
    assert store.meta.state.names == (*STATE_NAMES, "next.reward")
    assert store.episodes.outcome == ["success", "failure", "success"]
    with pytest.raises(DataError, match=r"info.json: state: 'q' is not there; what can be named.*'action \[3\]'"):
        read(source, tmp_path / "b", key=("state=q",))
    with pytest.raises(ValueError, match="--key language: a LeRobot data set has its tasks in meta/"):
        read(source, tmp_path / "b", key=("language=task",))
    with pytest.raises(ValueError, match=r"no camera \['top'\]; present: \['front', 'wrist'\]"):
        read(source, tmp_path / "b", cameras=("top",))
    assert not (tmp_path / "b").exists()


def changed(file, change):
    pq.write_table(change(pq.read_table(file)), file)


def edit_info(root, **values):
    file = root / "meta" / "info.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), **values}))


def truncated(file):
    file.write_bytes(file.read_bytes()[: file.stat().st_size * 2 // 3])


def without(name):
    return lambda table: table.drop_columns([name])


DAMAGE = {
    "missing data": (lambda r: (r / DATA).unlink(), r"file-000.parquet: missing"),
    "truncated data": (lambda r: truncated(r / DATA), r"episode 'episode_000000': not a whole Parquet file"),
    "no action": (lambda r: changed(r / DATA, without("action")), r"episode_000000': expected column 'action', got \["),
    "lfs": (lambda r: (r / DATA).write_bytes(b"version https://git-lfs.github.com/spec/v1\n"), "git lfs pull"),
    "fewer rows": (
        lambda r: changed(r / DATA, lambda t: t.slice(1)),
        r"episode 'episode_000000', frame_index: expected 0 to 2 in order, got \[1, 2, 3\]",
    ),
    "cut rows": (
        lambda r: changed(r / DATA, lambda t: t.slice(0, 12)),
        r"file-000.parquet: episode 'episode_000002': expected 6 rows \(meta/episodes\), got 3",
    ),
    "no task": (
        lambda r: changed(r / "meta/tasks.parquet", lambda t: t.slice(1)),
        r"episode_000000', task_index: expected one of meta/tasks, got 0",
    ),
    "no tasks file": (lambda r: (r / "meta/tasks.parquet").unlink(), "tasks.parquet: missing"),
    "no episodes": (lambda r: (r / EPISODES).unlink(), r"meta/episodes: no file chunk-\*/file-\*.parquet"),
    "no length": (lambda r: changed(r / EPISODES, without("length")), "expected column 'length', got"),
    "version": (
        lambda r: edit_info(r, codebase_version="v1.6"),
        r"info.json: codebase_version: expected one of \['v2.0', 'v2.1', 'v3.0'\], got 'v1.6'",
    ),
    "fps": (lambda r: edit_info(r, fps=0), "info.json: fps: expected a positive number, got 0"),
    "features": (lambda r: edit_info(r, features={"action": 3}), "info.json: features: expected an entry with dtype"),
    "json": (lambda r: truncated(r / "meta/info.json"), "info.json: not valid JSON"),
}


@pytest.mark.parametrize("kind", DAMAGE)
def test_damage_is_named(kind, copy, tmp_path):
    damage, message = DAMAGE[kind]
    damage(copy)
    with pytest.raises(DataError, match=message) as caught:
        read(copy, tmp_path / "store")
    assert str(copy) in str(caught.value)


@pytest.mark.parametrize(
    ("field", "value", "message"),
    [
        ("data_path", "../other/{chunk_index}.parquet", "data_path: expected a file inside the data set"),
        ("data_path", "/{chunk_index}.parquet", "data_path: expected a file inside the data set"),
        ("data_path", "{chunk_index.real}", "data_path: cannot fill"),
        ("data_path", "{chunk_index:999999999d}", "data_path: cannot fill"),
        ("fps", float("inf"), "fps: expected a positive number, got inf"),
        ("splits", [1, 2], r"splits: expected an object such as .* got \[1, 2\]"),
        ("features", {"action": {"dtype": "float32", "shape": 3}}, "action: shape: expected a list of whole numbers"),
        ("features", {"a": {"dtype": "image", "info": "x"}}, "features: a: info: expected an object, got 'x'"),
    ],
)
def test_hostile_info(field, value, message, copy, tmp_path):
    file = copy / "meta/info.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), field: value}))
    with pytest.raises(DataError, match=message) as caught:
        read(copy, tmp_path / "store")
    assert str(copy) in str(caught.value)
    assert not (tmp_path / "store").exists()


@pytest.mark.parametrize(
    ("file", "name", "value", "message"),
    [
        (
            DATA,
            "action",
            lambda n: [[1.0] * (1 + 4 * (i % 2)) for i in range(n)],
            "action: expected rows .* one length",
        ),
        (DATA, "action", lambda n: [[1.0, None, 1.0]] * n, "action: expected numbers, got 4 empty ones"),
        (DATA, "action", lambda n: [[1.0, 2.0]] * n, "action: expected 3 numbers .*info.json.*, got 2"),
        (DATA, "next.reward", lambda n: [[1.0, 2.0]] * n, "next.reward: expected one number a step, got 2"),
        (DATA, "task_index", lambda n: [None] * n, "task_index: expected one of meta/tasks, got None"),
        (DATA, "episode_index", lambda n: ["a"] * n, "episode_index: expected whole numbers, got string"),
        (
            DATA,
            "observation.images.front",
            lambda n: [{"bytes": None, "path": "../secret.png"}] * n,
            "camera 'front', step 0: expected a file inside the data set, got '../secret.png'",
        ),
        (EPISODES, "length", lambda n: ["x"] * n, "episode 0: length: expected a whole number from 0 on, got 'x'"),
        (EPISODES, "episode_index", lambda n: [0] * n, "episode_index: expected each episode once, got 0 3 times"),
    ],
)
def test_hostile_columns(file, name, value, message, copy, tmp_path):
    changed(
        copy / file,
        lambda table: table.set_column(table.schema.names.index(name), name, pa.array(value(table.num_rows))),
    )
    with pytest.raises(DataError, match=message):
        read(copy, tmp_path / "store")


def test_an_episode_of_version_2_without_a_number(tmp_path):
    root = shutil.copytree(FILES / "lerobot_v21_image", tmp_path / "data")
    (root / "meta/episodes.jsonl").write_text('{"episode_index": null, "length": 3}\n')
    with pytest.raises(DataError, match=r"episodes.jsonl: episode_index: expected a whole number from 0 on, got None"):
        read(root, tmp_path / "store")


def test_a_bad_episode_is_left_out_where_asked(copy, tmp_path):
    changed(copy / DATA, lambda table: table.slice(0, 12))
    store, summary = read(copy, tmp_path / "store", on_bad="skip")
    assert store.num_episodes == 2
    assert "expected 6 rows" in summary.bad[0]["error"]


def test_damaged_videos(tmp_path):
    pytest.importorskip("av", reason="videos need PyAV: pip install 'ptr-fast[lerobot]'")
    root = shutil.copytree(FILES / "lerobot_v30_video", tmp_path / "data")
    video = root / "videos/observation.images.front/chunk-000/file-000.mp4"
    episodes = pq.read_table(root / EPISODES)
    name = "videos/observation.images.front/from_timestamp"
    place = episodes.schema.names.index(name)
    later = episodes.set_column(place, name, pa.array([0.0, 0.4, 9.0]))
    pq.write_table(later, root / EPISODES)
    with pytest.raises(
        DataError, match=r"file-000.mp4: episode 2, camera 'front', step 0: expected a frame at 9.0000 s"
    ):
        read(root, tmp_path / "a")
    truncated(video)
    with pytest.raises(DataError, match=r"file-000.mp4: episode 0, camera 'front': not a whole video"):
        read(root, tmp_path / "b")
    video.unlink()
    with pytest.raises(DataError, match=r"file-000.mp4: missing"):
        read(root, tmp_path / "c")


def test_a_task_that_changes_and_depth(copy, tmp_path, capsys):
    def two_tasks(table):
        indices = table.column("task_index").to_pylist()
        indices[2] = 1
        return table.set_column(table.schema.names.index("task_index"), "task_index", pa.array(indices))

    changed(copy / DATA, two_tasks)
    features = json.loads((copy / "meta/info.json").read_text())["features"]
    features["observation.images.wrist"]["info"] = {"is_depth_map": True}
    edit_info(copy, features=features)
    args = convert.Args(source=copy, out=tmp_path / "s", encoding="raw")
    source = open_source(args)
    assert source.cameras == ("front",)
    assert "wrist (a depth map)" in " ".join(source.notes)
    summary = convert.convert(args, source)
    assert summary.remarks == {"change their task on the way; the first one was taken": 1}


ACTION = ActionSpec(
    names=ACTION_NAMES, units=("0.01 m", "m", "1 = open, 0 = closed"), low=(-0.25, -6, -1), high=(0.75, 1, 1),
    bounds_source="options",
)  # fmt: skip
STATE = StateSpec(names=STATE_NAMES, units=("m", "m", "rad"))


def make_store(path, encoding="jpeg", after=True, rewards=True, outcomes=("success", "failure", "unknown")):
    cameras = tuple(
        CameraSpec(name=n, height=h, width=w, encoding=encoding, source_height=h, source_width=w)
        for n, (h, w) in SIZES.items()
    )
    meta = StoreMeta(cameras=cameras, action=ACTION, state=STATE, control_hz=5.0, source={"format": "recorded"})
    with StoreWriter.create(path, meta) as writer:
        for e, one in enumerate(recordings()):
            count = len(one.actions) + (after and e != 1)  # one without a last observation
            frames = {name: seen[:count] for name, seen in one.frames.items()}
            if encoding == "jpeg":
                frames = {n: [simplejpeg.encode_jpeg(f, quality=80) for f in seen] for n, seen in frames.items()}
            writer.add(
                Episode(
                    episode_id=f"day/{e % 2}#{e}",
                    task=one.task,
                    states=one.states[:count],
                    actions=one.actions,
                    frames=frames,
                    outcome=outcomes[e],
                    kind="policy",
                    domain="kitchen",
                    split=("", "val", "train")[e],
                    source="run/7",
                    rewards=one.rewards if rewards else None,
                )
            )
    return EpisodeStore.open(path)


def same(one, other):
    for name in ("cameras", "state", "control_hz"):
        assert getattr(one.meta, name) == getattr(other.meta, name)
    for name in ("names", "units", "low", "high", "clip"):
        assert getattr(one.meta.action, name) == getattr(other.meta.action, name)
    for name in ("episode_id", "task", "outcome", "kind", "domain", "split", "source", "digest"):
        assert getattr(one.episodes, name) == getattr(other.episodes, name), name
    for name in ("num_steps", "num_frames"):
        np.testing.assert_array_equal(getattr(one.episodes, name), getattr(other.episodes, name))
    np.testing.assert_array_equal(one.state, other.state)
    np.testing.assert_array_equal(one.action, other.action)
    for mine, yours in zip(one.episodes.rewards, other.episodes.rewards, strict=True):
        assert (mine is None) == (yours is None)
        assert mine is None or (mine == yours).all()
    for camera in one.meta.cameras:
        for record in range(one.num_records):
            assert one.frame_bytes(camera.name, record) == other.frame_bytes(camera.name, record)


@pytest.mark.parametrize("encoding", ["jpeg", "raw"])
@pytest.mark.parametrize("rewards", [True, False])
def test_a_store_goes_out_and_comes_back_whole(encoding, rewards, tmp_path, monkeypatch, capsys):
    store = make_store(tmp_path / "store", encoding, rewards=rewards)
    assert export_dataset.main(export_dataset.Args(store=tmp_path / "store", out=tmp_path / "out")) == 0
    assert "1 of 3 outcomes are unknown: next.success" in capsys.readouterr().out
    again, _ = read(tmp_path / "out", tmp_path / "again", encoding=encoding)
    same(store, again)
    assert again.meta.action.bounds_source == "layout of the exported store"
    args = convert.Args(source=tmp_path / "out", out=tmp_path / "again", encoding=encoding)
    assert convert.convert(args, open_source(args)).present == 3


class Silent:
    def advance(self):
        pass


def test_small_files_follow_each_other(tmp_path):
    store = make_store(tmp_path / "store", outcomes=("success", "failure", "success"))
    options = {"rewards": RewardConfig(), "as_video": False, "robot_type": "toy", "fps": 5}
    LeRobotWriter(store, **options, data_mb=0.001).write(tmp_path / "out", Silent())
    assert len([*(tmp_path / "out" / "data").rglob("*.parquet")]) == 3
    same(store, read(tmp_path / "out", tmp_path / "again", encoding="jpeg")[0])


def test_small_videos_follow_each_other(tmp_path):
    pytest.importorskip("av", reason="videos need PyAV: pip install 'ptr-fast[lerobot]'")
    store = make_store(tmp_path / "store", "raw", after=False)
    options = {"rewards": RewardConfig(), "as_video": True, "robot_type": "", "fps": 5}
    LeRobotWriter(store, **options, video_mb=-1).write(tmp_path / "out", Silent())
    assert len([*(tmp_path / "out" / "videos").rglob("*.mp4")]) == 6
    again, _ = read(tmp_path / "out", tmp_path / "again")
    for record in range(store.num_records):
        one, other = (s.frame("wrist", record).astype(int) for s in (store, again))
        assert np.abs(one - other).mean() < 2.5


def test_a_video_changes_nobodys_priority(tmp_path):
    pytest.importorskip("av", reason="videos need PyAV: pip install 'ptr-fast[lerobot]'")
    folder = tmp_path / "camera"
    folder.mkdir()

    def policies():
        return {thread: os.sched_getscheduler(int(thread)) for thread in os.listdir("/proc/self/task")}

    own, before = os.sched_getscheduler(0), policies()  # others' threads, such as a renderer's, have their own
    with VideoFile(folder / "0.mp4", 64, 64, 5) as video:
        video.add(np.zeros((2, 64, 64, 3), np.uint8))
        assert policies() == {thread: before.get(thread, own) for thread in policies()}
    assert os.sched_getscheduler(0) == own


def test_what_lies_beside_is_damaged(tmp_path):
    make_store(tmp_path / "store")
    export_dataset.main(export_dataset.Args(store=tmp_path / "store", out=tmp_path / "out"))
    beside = tmp_path / "out" / "meta" / "ptr_fast"
    (beside / "store.json").write_text('{"version": 2}')
    with pytest.raises(DataError, match=r"store.json: version: expected 1, got 2"):
        read(tmp_path / "out", tmp_path / "a")
    (beside / "store.json").write_text('{"version": 1}')
    with pytest.raises(DataError, match=r"store.json: not what ptr-fast export-dataset writes"):
        read(tmp_path / "out", tmp_path / "a")
    shutil.rmtree(beside)
    assert read(tmp_path / "out", tmp_path / "a")[0].num_episodes == 3


def test_success_and_rewards_where_they_are_known(tmp_path, capsys):
    make_store(tmp_path / "store", after=False, rewards=False, outcomes=("success", "failure", "success"))
    args = export_dataset.Args(store=tmp_path / "store", out=tmp_path / "out", robot_type="toy")
    export_dataset.main(args)
    assert "next.reward is computed from outcome and position" in capsys.readouterr().out
    rows = pq.read_table(tmp_path / "out" / DATA)
    assert rows.column("next.reward").to_pylist() == [-1, 10, 10, 10, *[-1] * 5, -1, -1, -1, 10, 10, 10]
    assert np.flatnonzero(rows.column("next.success")).tolist() == [3, 14]
    assert np.flatnonzero(rows.column("next.done")).tolist() == [3, 8, 14]
    stats = json.loads((tmp_path / "out/meta/stats.json").read_text())
    reward = np.asarray(rows.column("next.reward"))
    assert stats["next.reward"]["std"] == pytest.approx([reward.std()])
    assert stats["observation.images.front"]["count"] == [15]
    assert np.shape(stats["observation.images.front"]["mean"]) == (3, 1, 1)


def test_videos_are_close_and_said_to_lose(tmp_path, capsys):
    pytest.importorskip("av", reason="videos need PyAV: pip install 'ptr-fast[lerobot]'")
    store = make_store(tmp_path / "store", "raw", after=False)
    export_dataset.main(export_dataset.Args(store=tmp_path / "store", out=tmp_path / "out", video=True))
    assert "as videos (with loss)" in capsys.readouterr().out
    again, _ = read(tmp_path / "out", tmp_path / "again")
    assert again.episodes.episode_id == store.episodes.episode_id
    np.testing.assert_array_equal(store.action, again.action)
    for record in range(store.num_records):
        one, other = (s.frame("front", record).astype(int) for s in (store, again))
        assert np.abs(one - other).mean() < 2.5


def test_what_lies_beside_is_dropped_where_others_changed_the_data_set(tmp_path):
    make_store(tmp_path / "store")
    export_dataset.main(export_dataset.Args(store=tmp_path / "store", out=tmp_path / "out"))
    changed(tmp_path / "out" / EPISODES, lambda table: table.slice(0, 2))
    store, _ = read(tmp_path / "out", tmp_path / "a", encoding="jpeg")
    assert store.episodes.episode_id == ["episode_000000", "episode_000001"]

    export_dataset.main(export_dataset.Args(store=tmp_path / "store", out=tmp_path / "other"))
    data = tmp_path / "other" / DATA

    def same_action(table):
        place = table.schema.names.index("action")
        actions = table.column(place).chunk(0).take(pa.array([1] * table.num_rows))
        return table.set_column(place, table.schema.field(place), actions)

    changed(data, same_action)
    with pytest.raises(DataError, match=r"episode 'day/0#0': its actions are not those that were exported; delete"):
        read(tmp_path / "other", tmp_path / "b", encoding="jpeg")


def test_export_refuses_and_leaves_nothing(tmp_path, monkeypatch):
    store = make_store(tmp_path / "store")
    (tmp_path / "there").mkdir()
    with pytest.raises(ValueError, match="there: there already; choose another folder"):
        export_dataset.main(export_dataset.Args(store=store.path, out=tmp_path / "there"))
    save_meta(store.path, replace(load_meta(store.path), control_hz=7.5))
    args = export_dataset.Args(store=store.path, out=tmp_path / "out")
    with pytest.raises(ValueError, match=r"fps is a whole number, the store has 7\.5 steps per second; say --fps N"):
        export_dataset.main(args)

    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("ptr_robot.datasets.lerobot_writer.write_extra", full)
    with pytest.raises(OSError, match="out: no space left"):
        export_dataset.main(replace(args, fps=8))
    assert sorted(path.name for path in tmp_path.iterdir()) == ["store", "there"]


def test_steps_per_second_are_no_negative_number(tmp_path):
    with pytest.raises(ValueError, match="--fps: expected a whole number of at least 1, got -3"):
        export_dataset.Args(store=tmp_path / "store", out=tmp_path / "out", fps=-3)
