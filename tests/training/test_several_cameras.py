"""Runs that look through several cameras: trained, resumed, evaluated, fine-tuned on a store with other names."""

import json
from dataclasses import replace

import numpy as np
import pytest
import toy_robot
from changing_world import SMALL, ptr_fast, read_record, same_result, stopped

from ptr_fast.checkpoint import list_checkpoints, read_checkpoint
from ptr_fast.data.frames import open_frames
from ptr_fast.data.store import EpisodeStore
from ptr_fast.resize import resize
from ptr_robot.training.config import DataConfig
from ptr_robot.training.episode_choice import select_prior
from ptr_robot.training.matching import make_spec, with_camera_names

BOTH = ["--data.cameras", "wrist", "front"]


def two_cameras(path, count=8, names=("front", "wrist"), task="", wrist=24, seed=0):
    """A store whose second camera has another size."""
    toys = toy_robot.toy_episodes(count, seed, names)
    toys = [replace(toy, images={**toy.images, names[1]: resize(toy.images[names[1]], wrist, wrist)}) for toy in toys]
    toys = [replace(toy, task=task) for toy in toys] if task else toys
    meta = toy_robot.toy_meta(names, encoding="raw")
    front, second = meta.cameras
    meta = replace(meta, cameras=(front, replace(second, height=wrist, width=wrist)))
    return toy_robot.write_store(path, toys, meta)


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    """A store with two cameras of two sizes, and a run on both with an encoder each."""
    home = tmp_path_factory.mktemp("home")
    store = two_cameras(home / "store")
    told = ["pretrain", "smoke", "--data.stores", store, "--data.validation-share", "0.4", *BOTH]
    assert ptr_fast(*told, "--learner.encoder.cameras", "own", "--out", home / "base", *SMALL) == 0
    return home


def test_a_run_on_two_cameras_goes_on_bit_by_bit_and_is_evaluated(home, tmp_path, capsys):
    spec = read_checkpoint(list_checkpoints(home / "base")[-1]).spec
    assert [(camera.name, camera.height) for camera in spec.cameras] == [("wrist", 24), ("front", toy_robot.SIZE)]
    assert read_record(home / "base")["config"]["data"]["cameras"] == ["wrist", "front"]
    run = stopped(home / "base", tmp_path / "run")
    assert ptr_fast("resume", run) == 0
    same_result(run, home / "base")
    assert ptr_fast("evaluate", "--checkpoint", run) == 0
    assert "held-out episodes" in capsys.readouterr().out


def test_cameras_of_two_sizes_cannot_share_an_encoder(home, tmp_path, capsys):
    told = ["pretrain", "smoke", "--data.stores", home / "store", *BOTH, "--out", tmp_path / "run", *SMALL]
    assert ptr_fast(*told) == 2
    said = capsys.readouterr().err.strip().splitlines()
    assert len(said) == 1
    assert "cameras that share one encoder must have one size, got wrist 24x24, front" in said[0]
    assert not (tmp_path / "run").exists()


def test_the_order_of_the_cameras_is_told_and_others_are_named(home, capsys):
    sources = select_prior(DataConfig(stores=(home / "store",)), seed=0)
    assert [camera.name for camera in make_spec(sources, ["wrist", "front"], 0).cameras] == ["wrist", "front"]


def test_a_target_with_other_names_is_fine_tuned_on_with_a_map(home, tmp_path, capsys):
    target = two_cameras(tmp_path / "target", 4, names=("table", "hand"), task="fold towel", seed=3)
    told = ["finetune", "--checkpoint", home / "base", "--target", target, "--num-demos", "2", "--mix", "0.5", *SMALL]
    assert ptr_fast(*told, "--out", tmp_path / "fine") == 2
    said = capsys.readouterr().err
    assert "no camera 'wrist', 'front': the checkpoint sees ['wrist', 'front'], the store has ['table', 'hand']" in said
    assert "--camera-map STORE=CHECKPOINT" in said
    assert ptr_fast(*told, "--camera-map", "hand=wrist", "hand=front", "--out", tmp_path / "fine") == 2
    assert "expected STORE=CHECKPOINT, each once, got 'hand=front'" in capsys.readouterr().err
    assert not (tmp_path / "fine").exists()

    assert ptr_fast(*told, "--camera-map", "hand=wrist", "table=front", "--out", tmp_path / "fine") == 0
    record = read_record(tmp_path / "fine")
    prior, mine = record["split"]["sources"]
    assert (prior["cameras"], mine["cameras"]) == ({}, {"hand": "wrist", "table": "front"})
    assert mine["fingerprint"] == EpisodeStore.open(target).fingerprint()
    run = stopped(tmp_path / "fine", tmp_path / "run")
    assert ptr_fast("resume", run) == 0
    same_result(run, tmp_path / "fine")
    assert ptr_fast("evaluate", "--checkpoint", tmp_path / "fine") == 0
    more = ["finetune", "--from", tmp_path / "fine", "--num-demos", "3", "--out", tmp_path / "branch"]
    assert ptr_fast(*more, "--num-steps", "8") == 0
    assert read_record(tmp_path / "branch")["split"]["sources"][1]["cameras"] == mine["cameras"]


def test_another_store_is_looked_at_by_every_verb_through_a_map(home, tmp_path, capsys):
    other = two_cameras(tmp_path / "other", 4, names=("table", "hand"), seed=5)
    swapped = two_cameras(tmp_path / "same", 4, seed=5)
    there = ["--store", other, "--camera-map", "hand=wrist", "table=front"]
    acted = []
    for told in (there, ["--store", swapped]):
        capsys.readouterr()
        assert ptr_fast("act", "--checkpoint", home / "base", *told, "--json") == 0
        acted.append(capsys.readouterr().out)
    assert acted[0] == acted[1]
    base = stopped(home / "base", tmp_path / "run")
    for verb in ("act", "evaluate", "export", "select"):
        of = [verb, "--run" if verb == "select" else "--checkpoint", base]
        assert ptr_fast(*of, "--store", other) == 2
        assert "the store has ['table', 'hand']; name them with --camera-map STORE" in capsys.readouterr().err
        assert ptr_fast(*of, "--camera-map", "hand=wrist") == 2
        assert "camera-map: expected --store STORE beside it" in capsys.readouterr().err
    assert ptr_fast("evaluate", "--checkpoint", base, *there, "--json") == 0
    evaluation = json.loads(capsys.readouterr().out)
    assert evaluation["data"]["cameras"] == ["hand", "table"]
    assert evaluation["data"]["camera_names"] == {"hand": "wrist", "table": "front"}
    assert ptr_fast("report", "--run", base, "--out", tmp_path / "page.html") == 0
    page = (tmp_path / "page.html").read_text()
    assert "frame of hand, step" in page
    assert "frame of table, step" in page


def test_a_renamed_store_shows_the_same_frames(home, tmp_path):
    store = EpisodeStore.open(home / "store")
    swapped = store.renamed({"wrist": "front"})
    assert [camera.name for camera in swapped.meta.cameras] == ["front"]
    assert swapped.stored_names == {"front": "wrist"}
    assert np.array_equal(swapped.frame("front", 3), store.frame("wrist", 3))
    out = np.empty((1, 24, 24, 3), np.uint8)
    open_frames(swapped, "front").gather(np.array([3]), out)
    assert np.array_equal(out[0], store.frame("wrist", 3))
    assert swapped.fingerprint() == store.fingerprint()
    assert store.renamed({"wrist": "hand"}).renamed({"hand": "wrist"}).stored_names == store.stored_names
    with pytest.raises(ValueError, match="no camera 'side'"):
        store.renamed({"side": "front"})
    with pytest.raises(ValueError, match="two cameras cannot have one name"):
        store.renamed({"wrist": "x", "front": "x"})
    (source,) = select_prior(DataConfig(stores=(home / "store",)), seed=0)
    spec = make_spec([source], ["front"], 0)
    assert with_camera_names(store, spec, []).stored_names == store.stored_names


def test_a_run_on_states_alone_is_trained_and_evaluated_without_a_frame(home, tmp_path, monkeypatch):
    def touched(*_):
        raise AssertionError("a frame was read")

    for name in ("frame_parts", "frame_bytes", "frame", "verify"):
        monkeypatch.setattr(EpisodeStore, name, touched)
    told = ["pretrain", "smoke", "--data.stores", home / "store", "--data.validation-share", "0.4", *SMALL]
    blind = ["--learner.encoder.name", "none", "--learner.critic-head", "plain"]
    assert ptr_fast(*told, *blind, "--out", tmp_path / "run") == 0
    assert ptr_fast("evaluate", "--checkpoint", tmp_path / "run") == 0
