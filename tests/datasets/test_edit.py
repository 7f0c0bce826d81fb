"""``ptr-fast edit``: what comes out has the right episodes and labels, and shares its frames with what it came from."""

import os
from dataclasses import replace

import numpy as np
import pytest
from recordings import recordings
from test_lerobot_folders import make_store

from ptr_fast.config import RewardConfig, TaskTable
from ptr_fast.data.store import Episode, EpisodeStore, StoreWriter
from ptr_fast.data.store_meta import load_meta, save_meta
from ptr_fast.data.transitions import Transitions
from ptr_fast.errors import DataError
from ptr_robot import cli
from ptr_robot.datasets import edited_store
from ptr_robot.inspection.store_summary import summarize
from ptr_robot.verbs import export_dataset
from ptr_robot.verbs.edit import Args, main


def edit(*stores, out, **options):
    assert main(Args(stores=stores, out=out, **options)) == 0
    return EpisodeStore.open(out)


def frames(store, camera, episode):
    first, count = int(store.episodes.first[episode]), int(store.episodes.num_frames[episode])
    return [bytes(store.frame_bytes(camera, first + t)) for t in range(count)]


def numbers(store, episode):
    first, steps = int(store.episodes.first[episode]), int(store.episodes.num_steps[episode])
    return store.state[first : first + steps], store.action[first : first + steps]


def same_episode(one, e, other, o, camera="front", other_camera="front"):
    assert frames(one, camera, e) == frames(other, other_camera, o)
    for mine, yours in zip(numbers(one, e), numbers(other, o), strict=True):
        np.testing.assert_array_equal(mine, yours)
    np.testing.assert_array_equal(one.episodes.rewards[e], other.episodes.rewards[o])


@pytest.fixture
def store(tmp_path):
    return make_store(tmp_path / "a")


def test_drop_and_split_without_a_copy(store, tmp_path, capsys):
    out = edit(store.path, out=tmp_path / "kept", drop=("outcome=failure",), rest=tmp_path / "rest")
    assert "2 of 3 episodes" in capsys.readouterr().out
    rest = EpisodeStore.open(tmp_path / "rest")
    assert (out.episodes.episode_id, rest.episodes.episode_id) == (["day/0#0", "day/0#2"], ["day/1#1"])
    same_episode(store, 2, out, 1)
    same_episode(store, 1, rest, 0)
    steps = [folder / "steps" / "000000.arrow" for folder in (store.path, out.path, rest.path)]
    assert len({os.stat(file).st_ino for file in steps}) == 1
    out.verify()
    assert (out.num_records, summarize(out).records) == (17, 12)
    assert np.isnan(out.action[int(store.episodes.first[1])]).all()  # of no episode: not counted, not measured
    tasks = TaskTable(names=out.meta.tasks, num_slots=2)
    rows = Transitions(out, task_table=tasks, action=out.meta.action, rewards=RewardConfig())
    assert rows.record.tolist() == [*range(4), *range(10, 16)]  # not the five of the episode between


def test_an_edited_store_is_edited_and_appended_to(store, tmp_path):
    once = edit(store.path, out=tmp_path / "once", drop=("id=day/1*",), rename_camera=("front=top",))
    twice = edit(once.path, out=tmp_path / "twice", rename_camera=("top=wrist", "wrist=top"), keep=("id=day/0#2",))
    same_episode(store, 2, twice, 0, "front", "wrist")
    same_episode(store, 2, twice, 0, "wrist", "top")
    before = twice.fingerprint()
    meta = load_meta(twice.path)
    assert [camera.name for camera in meta.cameras] == ["wrist", "top"]
    one = recordings()[0]
    files = {"wrist": frames(store, "front", 0)[:-1], "top": frames(store, "wrist", 0)[:-1]}
    with StoreWriter.append(twice.path) as writer:
        writer.add(Episode(episode_id="new", task="t", states=one.states[:-1], actions=one.actions, frames=files))
    after = EpisodeStore.open(twice.path)
    assert after.fingerprint() != before
    assert frames(after, "wrist", 1) == files["wrist"]
    same_episode(store, 2, after, 0, "front", "wrist")
    store.verify()


def test_labels(store, tmp_path):
    out = edit(
        store.path, out=tmp_path / "out", rename_task=("open the drawer=pull the drawer",),
        success=("id=day/0*",), unknown=("task=open*",),
    )  # fmt: skip
    assert out.episodes.outcome == ["success", "unknown", "success"]
    assert out.episodes.task[1] == "pull the drawer"
    assert out.meta.tasks == ("put the lid on the pot", "pull the drawer")
    assert store.episodes.outcome == EpisodeStore.open(store.path).episodes.outcome


def test_merge(store, tmp_path):
    other = make_store(tmp_path / "b", rewards=False, after=False)
    with pytest.raises(ValueError, match=r"episode 'day/0#0' is in .*/a and in .*/b; --prefix puts"):
        edit(store.path, other.path, out=tmp_path / "out")
    out = edit(store.path, other.path, out=tmp_path / "out", prefix=True)
    assert out.episodes.episode_id[2:4] == ["a/day/0#2", "b/day/0#0"]
    assert out.num_episodes == 6
    same_episode(store, 2, out, 2)
    assert frames(out, "wrist", 4) == frames(other, "wrist", 1)
    assert out.episodes.rewards[3] is None
    assert [one["store"] for one in out.meta.source["stores"]] == [str(store.path), str(other.path)]


def test_merge_measures_bounds_again_or_says_that_they_differ(store, tmp_path):
    other = make_store(tmp_path / "b")
    for path, low in ((store.path, -1.0), (other.path, -2.0)):
        meta = load_meta(path)
        action = replace(meta.action, low=(low, -6.0, -1.0), bounds_source="data")
        save_meta(path, replace(meta, action=action))
    out = edit(store.path, other.path, out=tmp_path / "out", prefix=True)
    assert out.meta.action.bounds_source == "data"
    assert out.meta.action.low[0] == pytest.approx(0.0, abs=0.01)
    meta = load_meta(other.path)
    save_meta(other.path, replace(meta, action=replace(meta.action, bounds_source="options")))
    with pytest.raises(ValueError, match=r"bounds of the actions differ, and .*/b has 'options'"):
        edit(store.path, other.path, out=tmp_path / "no", prefix=True)
    save_meta(other.path, replace(meta, control_hz=9.0))
    with pytest.raises(ValueError, match=r"control_hz differ: .*/a has 5.0, .*/b has 9.0"):
        edit(store.path, other.path, out=tmp_path / "no", prefix=True)


def test_another_file_system_is_copied(store, tmp_path, monkeypatch, capsys):
    def refuse(*_):
        raise OSError(18, "Invalid cross-device link")

    monkeypatch.setattr(os, "link", refuse)
    out = edit(store.path, out=tmp_path / "out")
    assert "copied (another file system)" in capsys.readouterr().out
    same_episode(store, 0, out, 0)


def test_slips_of_the_pen_are_refused_and_nothing_is_left(store, tmp_path, capsys, monkeypatch):
    cases = {
        ("--drop", "id=nothing"): "--drop id=nothing: no episode matches",
        ("--keep", "name=x"): "expected FIELD=PATTERN with FIELD one of ['id', 'task',",
        ("--rename-task", "a=b"): "--rename-task: no task 'a'; there are ['open the drawer'",
        ("--rename-camera", "a=b"): "--rename-camera: no camera 'a'; there are ['front', 'wrist']",
        ("--rename-camera", "front=wrist"): "two cameras cannot have one name",
        ("--rename-camera", "front=a/b"): "--rename-camera: expected a name without '/', which names files, got 'a/b'",
        ("--rename-camera", "front= "): "--rename-camera: expected a name, got ' '",
        ("--keep", "id=*", "--drop", "id=*"): "no episode would be in it",
    }
    with pytest.raises(ValueError, match="--rest takes what --keep and --drop leave out"):
        Args(stores=(store.path,), out=tmp_path / "out", rest=tmp_path / "rest")
    for options, message in cases.items():
        assert cli.main(["edit", str(store.path), "--out", str(tmp_path / "out"), *options]) == 2
        assert message in capsys.readouterr().err
    assert cli.main(["edit", str(store.path), "--out", str(store.path)]) == 2
    assert "there already" in capsys.readouterr().err
    for wrong in ({"out": store.path / "new"}, {"out": tmp_path / "out", "rest": store.path / "steps" / "new"}):
        with pytest.raises(ValueError, match=r"new: lies inside the store .*/a, which stays as it is"):
            main(Args(stores=(store.path,), drop=("outcome=failure",), **wrong))
    for out, rest in (("x", "x/y"), ("x/y", "x"), ("x", "z/../x")):
        with pytest.raises(ValueError, match="--rest and --out: expected two folders, none inside the other"):
            Args(stores=(store.path,), out=tmp_path / out, rest=tmp_path / rest, drop=("id=*",))

    save = edited_store.save_meta

    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(edited_store, "save_meta", full)
    assert cli.main(["edit", str(store.path), "--out", str(tmp_path / "out")]) == 2
    assert "no space left" in capsys.readouterr().err
    monkeypatch.setattr(
        edited_store, "save_meta", lambda path, meta: full() if "rest" in path.name else save(path, meta)
    )
    two = ["--rest", str(tmp_path / "rest"), "--drop", "outcome=failure"]
    assert cli.main(["edit", str(store.path), "--out", str(tmp_path / "out"), *two]) == 2
    assert "cannot write" in capsys.readouterr().err
    assert [path.name for path in tmp_path.iterdir()] == ["a"]


def test_a_store_is_not_exported_into_a_store_or_with_names_that_lerobot_does_not_take(store, tmp_path):
    with pytest.raises(ValueError, match=r"new: lies inside the store .*/a, which stays as it is"):
        export_dataset.main(export_dataset.Args(store=store.path, out=store.path / "new"))
    with pytest.raises(ValueError, match=r"new: lies inside the store .*/a, which stays as it is"):
        StoreWriter.create(store.path / "new", load_meta(store.path))
    assert sorted(path.name for path in store.path.iterdir()) == ["episodes", "meta.json", "steps", "writer.lock"]
    meta = load_meta(store.path)
    cameras = tuple(replace(camera, name=f"obs/{camera.name}") for camera in meta.cameras)
    with StoreWriter.create(tmp_path / "b", replace(meta, cameras=cameras)) as writer:
        one, files = recordings()[0], {f"obs/{c.name}": frames(store, c.name, 0)[:-1] for c in meta.cameras}
        writer.add(Episode(episode_id="0", task="t", states=one.states[:-1], actions=one.actions, frames=files))
    with pytest.raises(ValueError, match=r"b: camera 'obs/\w+': LeRobot's names have no '/'; ptr-fast edit --rename"):
        export_dataset.main(export_dataset.Args(store=tmp_path / "b", out=tmp_path / "c"))
    assert not (tmp_path / "c").exists()


def test_every_file_of_an_exported_data_set_is_flushed_before_it_has_its_name(store, tmp_path, monkeypatch):
    flushed, fsync = set(), os.fsync

    def noted(descriptor):
        flushed.add(os.readlink(f"/proc/self/fd/{descriptor}").partition(".tmp/")[2])
        fsync(descriptor)

    monkeypatch.setattr(os, "fsync", noted)
    out = tmp_path / "out"
    assert export_dataset.main(export_dataset.Args(store=store.path, out=out)) == 0
    assert {path.relative_to(out).as_posix() for path in out.rglob("*")} <= flushed


def test_a_hidden_record_and_a_renamed_column_are_checked(store, tmp_path):
    out = edit(store.path, out=tmp_path / "out", drop=("outcome=failure",), rename_camera=("front=top",))
    steps = out.path / "steps" / "000000.arrow"
    data = bytearray(steps.read_bytes())
    steps.unlink()
    data[len(data) // 2] ^= 1
    steps.write_bytes(data)
    assert "expected CRC-32" in " ".join(EpisodeStore.open(out.path).damage())
    steps.write_bytes(data[:-100])
    with pytest.raises(DataError, match=r"000000.arrow: expected \d+ bytes, got"):
        EpisodeStore.open(out.path)


def test_neither_store_is_made_where_one_would_be_empty(store, tmp_path):
    for wanted in ({"keep": ("id=*",)}, {"drop": ("id=*",)}):
        with pytest.raises(ValueError, match="no episode would be in it"):
            main(Args(stores=(store.path,), out=tmp_path / "out", rest=tmp_path / "rest", **wanted))
    assert not (tmp_path / "out").exists()
    assert not (tmp_path / "rest").exists()


def test_two_outcomes_of_one_episode_are_refused(store, tmp_path):
    with pytest.raises(ValueError, match="--success and --failure: both match episode 'day/0#0'"):
        main(Args(stores=(store.path,), out=tmp_path / "out", success=("id=*",), failure=("id=day/0*",)))
    assert not (tmp_path / "out").exists()
