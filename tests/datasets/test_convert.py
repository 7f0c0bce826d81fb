"""The verb: the same command twice, after a kill, with other settings, on a full disk; and what it prints."""

import importlib.util
import json
import os
import resource
import sys
import textwrap

import numpy as np
import pytest
import simplejpeg
import warm_python

from ptr_fast.data.store import EpisodeStore, StoreWriter
from ptr_fast.errors import DataError
from ptr_robot import cli
from ptr_robot.datasets import frames
from ptr_robot.datasets.layout import BRIDGE_HIGH, BRIDGE_LOW
from ptr_robot.verbs import convert
from ptr_robot.verbs.convert import Args


def stamps(path):
    files = [file for file in path.rglob("*") if file.is_file() and file.name != "writer.lock"]
    return {str(file.relative_to(path)): (file.stat().st_ino, file.stat().st_mtime_ns) for file in files}


@pytest.fixture
def small_parts(monkeypatch):
    monkeypatch.setattr(convert, "EPISODES_PER_PART", 4)


def test_second_run_changes_nothing(rlds, run, small_parts):
    summary, out = run(rlds)
    assert summary.converted == 25
    before = stamps(out)
    assert len(before) == 1 + 2 * 7
    summary, _ = run(rlds)
    assert (summary.converted, summary.present) == (0, 25)
    assert stamps(out) == before


@pytest.mark.parametrize("workers", [1, 3])
def test_workers_do_not_change_the_store(rlds, run, small_parts, workers):
    one, other = run(rlds, out="one"), run(rlds, out="other", workers=workers)
    assert EpisodeStore.open(one[1]).fingerprint() == EpisodeStore.open(other[1]).fingerprint()


def test_killed_between_the_two_files_of_a_part_and_run_again(rlds, run, tmp_path):
    out = tmp_path / "store"
    code = f"""
        import os, signal
        from pathlib import Path
        from ptr_fast.data import store_writer
        from ptr_robot.verbs import convert
        convert.EPISODES_PER_PART = 4
        write = store_writer._write_part
        def write_and_die(path, batch):
            if path.parent.name == "episodes" and path.name == "000002.arrow":
                os.kill(os.getpid(), signal.SIGKILL)
            return write(path, batch)
        store_writer._write_part = write_and_die
        convert.main(convert.Args(source=Path({str(rlds)!r}), out=Path({str(out)!r})))
    """
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    done = warm_python.run([sys.executable, "-c", textwrap.dedent(code)], capture_output=True, env=environment)
    assert done.returncode == -9, done.stderr
    assert (out / "steps" / "000002.arrow").exists()
    assert EpisodeStore.open(out).num_episodes == 8
    before = stamps(out)
    summary, _ = run(rlds)
    assert (summary.present, summary.converted) == (8, 17)
    store = EpisodeStore.open(out)
    store.verify()
    whole = EpisodeStore.open(run(rlds, out="whole")[1])
    assert store.episodes.episode_id == whole.episodes.episode_id
    assert store.episodes.digest == whole.episodes.digest
    assert store.meta == whole.meta
    after = stamps(out)
    kept = [f"{folder}/00000{part}.arrow" for folder in ("steps", "episodes") for part in (0, 1)]
    assert [after[name] for name in kept] == [before[name] for name in kept]


def test_interrupt_keeps_what_was_read(rlds, run, monkeypatch):
    work, calls = convert._work, []

    def interrupted(args, handle, *about):
        calls.append(handle)
        if handle.episode_id.endswith("#9"):
            raise KeyboardInterrupt
        return work(args, handle, *about)

    monkeypatch.setattr(convert, "_work", interrupted)
    with pytest.raises(KeyboardInterrupt):
        run(rlds)
    monkeypatch.setattr(convert, "_work", work)
    summary, out = run(rlds)
    assert (summary.present, summary.converted) == (9, 16)
    assert EpisodeStore.open(out).meta.source["rewards_all_zero"] is True


def test_tasks_and_limit(rlds, run):
    summary, out = run(rlds, tasks=("CARROT", "turn lever"))
    assert (summary.converted, summary.filtered) == (14, 11)
    assert set(EpisodeStore.open(out).episodes.task) == {"put carrot on plate", "turn lever vertical to front"}
    assert run(rlds, tasks=("CARROT", "turn lever"), limit=5)[0].present == 5
    assert run(rlds, limit=10)[0].converted < 10
    summary, first = run(rlds, out="first", limit=3)
    assert (summary.converted, EpisodeStore.open(first).num_episodes) == (3, 3)
    assert run(rlds, out="first", limit=3)[0].converted == 0
    assert run(rlds, out="first", limit=4)[0].converted == 1
    with pytest.raises(DataError, match=r"no usable episode whose task contains one of \['fold'\]"):
        run(rlds, out="none", tasks=("fold",))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"image_size": 32}, r"options \{.*'image_size': None.*'image_size': 32"),
        ({"encoding": "raw"}, r"options .*'encoding': 'jpeg'.*'encoding': 'raw'"),
        ({"cameras": ("image_0",)}, r"options .*'image_3'\].*\['image_0'\]"),
        ({"control_hz": 10.0}, r"options .*10.0"),
        (
            {"key": ("state=action",)},
            r"options .*'keys': \{'action': \['steps/action'\], 'state': \['steps/action'\]\}",
        ),
    ],
)
def test_other_settings_need_another_store(rlds, run, change, message):
    _, out = run(rlds, limit=2)
    before = stamps(out)
    with pytest.raises(ValueError, match=rf"cannot go on with this store: it was made with {message}"):
        run(rlds, **change)
    assert stamps(out) == before
    rlds.rename(rlds.parent / "another")
    with pytest.raises(ValueError, match="it was made with name bridge_rlds, now it is another"):
        run(rlds.parent / "another")


def test_a_store_that_was_begun_before_there_were_layouts(rlds, run):
    _, out = run(rlds, limit=10)
    file = out / "meta.json"
    meta = json.loads(file.read_text())
    meta["action"]["bounds_source"] = "reference"
    for name in ("layout", "unknown"):
        del meta["source"][name]
    for name in ("keys", "flip_gripper"):
        del meta["source"]["options"][name]
    file.write_text(json.dumps(meta))
    assert EpisodeStore.open(out).meta.action.bounds_source == "reference"
    summary, _ = run(rlds)
    assert (summary.present, summary.converted) == (10, 15)
    whole = EpisodeStore.open(run(rlds, out="whole")[1])
    assert EpisodeStore.open(out).meta == whole.meta


def test_bounds(rlds, run):
    _, out = run(rlds, limit=20)
    reference = EpisodeStore.open(out).meta.action
    assert (reference.low, reference.high) == (BRIDGE_LOW, BRIDGE_HIGH)
    assert (reference.clip, reference.bounds_source) == (0.99, "layout bridge")
    run(rlds, bounds=("data",))
    store = EpisodeStore.open(out)
    assert (store.num_episodes, store.meta.action.bounds_source) == (25, "data")
    inside = ((store.action >= store.meta.action.low) & (store.action <= store.meta.action.high)).mean(axis=0)
    assert (inside >= 0.98 - 2 / 250).all()
    assert 0 < store.meta.action.high[0] < 0.05
    run(rlds)
    assert EpisodeStore.open(out).meta.action == reference


def test_full_disk(rlds, run, small_parts):
    _, out = run(rlds, limit=4)
    before = stamps(out)
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (60_000, hard))
    try:
        with pytest.raises(RuntimeError, match=r"cannot write part .*000001.arrow: File too large"):
            run(rlds)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert stamps(out) == before
    assert run(rlds)[0].converted == 21


def test_another_writer(rlds, run):
    _, out = run(rlds, limit=1)
    with StoreWriter.append(out), pytest.raises(RuntimeError, match="another writer has this store open"):
        run(rlds)


def test_command(rlds, tmp_path, capsys):
    arguments = ["convert", "--source", str(rlds), "--out", str(tmp_path / "store"), "--cameras", "image_0", "image_1"]
    assert cli.main(arguments) == 0
    shown = capsys.readouterr()
    assert "25 episodes, 250 steps, image_0 64x64 jpeg, image_1 64x64 jpeg" in shown.out
    assert "now: 25 converted, 0 there already" in shown.out
    assert "8  put carrot on plate" in shown.out
    assert "note: split 'val'" in shown.out
    assert shown.err.startswith("convert: 25/25 episodes")
    assert cli.main(["convert", "--source", str(tmp_path / "nowhere"), "--out", str(tmp_path / "store")]) == 2
    shown = capsys.readouterr()
    assert (shown.out, shown.err.count("\n")) == ("", 1)
    assert "nowhere: no such folder" in shown.err


def test_an_option_that_is_given_twice_counts_twice(rlds, tmp_path, capsys):
    arguments = ["convert", "--source", str(rlds), "--out", str(tmp_path / "store"), "--limit", "1"]
    keys = ["--key", "state=observation/state", "--key", "action=action", "language=language_instruction"]
    assert cli.main([*arguments, *keys, "--bounds", "gripper=0:1", "--bounds", "all=-1:1"]) == 0
    assert EpisodeStore.open(tmp_path / "store").meta.action.low == (-1,) * 6 + (0,)
    with pytest.raises(SystemExit, match="2"):
        cli.main([*arguments, "--key", "state=action", "--key", "state=observation/state"])
    assert "each once, got" in capsys.readouterr().err


def test_command_lists_what_it_left_out(rlds, tmp_path, capsys):
    file = rlds / "bridge_dataset-train.tfrecord-00000-of-00001"
    file.write_bytes(file.read_bytes()[:-1])
    out = tmp_path / "store"
    assert cli.main(["convert", "--source", str(rlds), "--out", str(out), "--on-bad", "skip"]) == 0
    shown = capsys.readouterr().out
    assert "1 bad episodes left out" in shown
    assert "(truncated?)" in shown
    assert len(json.loads((out / "bad_episodes.json").read_text())) == 1


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"image_size": 0}, "image-size must be at least 1, got 0"),
        ({"image_size": 10**8}, "image-size must be at most 65500"),
        ({"workers": 0}, "workers must be at least 1, got 0"),
        ({"limit": 0}, "limit must be at least 1, got 0"),
        ({"jpeg_quality": 101}, r"jpeg-quality must lie in 1..100, got 101"),
        ({"blank_task": " "}, "blank-task: expected what is done, got ' '"),
        ({"control_hz": 0.0}, r"control-hz must be positive, got 0.0"),
    ],
)
def test_arguments(tmp_path, change, message):
    with pytest.raises(ValueError, match=message):
        Args(source=tmp_path, out=tmp_path, **change)


@pytest.mark.skipif(importlib.util.find_spec("nvidia") is None, reason="DALI is not installed")
def test_dali_decodes_the_same_pixels(rlds, run, capsys):
    settings = {"image_size": 32, "encoding": "raw", "limit": 3, "cameras": ("image_0",)}
    _, ours = run(rlds, out="ours", decoder="simplejpeg", **settings)
    _, theirs = run(rlds, out="theirs", decoder="dali", **settings)
    assert "decoder: DALI" in capsys.readouterr().out
    ours, theirs = EpisodeStore.open(ours), EpisodeStore.open(theirs)
    assert ours.num_records == theirs.num_records
    for record in range(ours.num_records):
        difference = ours.frame("image_0", record).astype(int) - theirs.frame("image_0", record)
        assert abs(difference).max() <= 1


@pytest.mark.skipif(importlib.util.find_spec("nvidia") is None, reason="DALI is not installed")
def test_a_frame_that_dali_cannot_decode_is_named():
    good = simplejpeg.encode_jpeg(np.zeros((48, 64, 3), np.uint8))
    camera = frames.camera_spec("image_0", good, 32, "raw", "the first")
    decoders = frames.JpegDecoders("dali")
    whole = frames.convert_frames([good, good], camera, 95, "episode 'e'", decoders)
    assert whole.shape == (2, 32, 32, 3)
    with pytest.raises(DataError, match="episode 'e', step 1: not a whole image"):
        frames.convert_frames([good, good[:200]], camera, 95, "episode 'e'", decoders)
    assert (frames.convert_frames([good, good], camera, 95, "episode 'e'", decoders) == whole).all()
