"""Held-out episodes are checked against all that a run and its ancestors trained on, by id and by content."""

import json
import shutil
from dataclasses import replace

import numpy as np
import pytest
from toy_robot import TASKS, toy_episodes, toy_meta, write_store

from ptr_fast.checkpoint import read_checkpoint
from ptr_fast.data.store import EpisodeStore
from ptr_robot.cli import main as cli
from ptr_robot.evaluation.held_out import held_out
from ptr_robot.training.store_places import StorePlaces
from ptr_robot.training.trained_on import TrainedOn

ONE_STEP = ["--num-steps", "1", "--batch-size", "2", "--keep-best", "0", "--keep-last", "0"]
TOYS = toy_episodes(30, cameras=("image_0",))


def store_of(path, toys, **changes):
    return write_store(path, toys, toy_meta(tuple(toys[0].images), **{"encoding": "raw", **changes}))


def pretrain(store, out, *more):
    stores = [str(path) for path in (store if isinstance(store, list) else [store])]
    command = ["pretrain", "smoke", "--data.stores", *stores, "--data.validation-share", "0.3", "--out", str(out)]
    assert cli([*command, *ONE_STEP, *more]) == 0
    return out


def finetune(base, target, out, *more, task=TASKS[0]):
    command = ["finetune", "--checkpoint", str(base), "--target", str(target), "--task", task, "--out", str(out)]
    assert cli([*command, *ONE_STEP, *more]) == 0
    return out


def sources_of(run):
    return json.loads((run / "train_config.json").read_text())["split"]["sources"]


def digests(store, ids):
    table = EpisodeStore.open(store).episodes
    return {table.digest[table.episode_id.index(name)] for name in ids}


def evaluated(run, *options):
    out = run / "e.json"
    assert cli(["evaluate", "--checkpoint", str(run), "--max-episodes", "0", "--out", str(out), *options]) == 0
    return json.loads(out.read_text())


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("trained")


@pytest.fixture(scope="module")
def store(folder):
    return store_of(folder / "store", TOYS)


@pytest.fixture(scope="module")
def base(folder, store):
    """Pre-trained on seven of the ten episodes of each of three tasks."""
    return pretrain(store, folder / "base")


@pytest.fixture(scope="module")
def fine(folder, base, store):
    """On a task that pre-training had, without old data in the batches: eight demonstrations, two others."""
    return finetune(base, store, folder / "fine", "--num-demos", "4", "--mix", "0")


def test_two_stores_that_share_episodes(folder, capfd):
    first = store_of(folder / "first", TOYS[:18])
    renamed = [replace(toy, episode_id=f"copy of {toy.episode_id}") for toy in TOYS[9:]]
    second = store_of(folder / "second", renamed)
    run = pretrain([first, second], folder / "two")
    told = capfd.readouterr().out
    trained, validation = set(), set()
    for path, source in zip((first, second), sources_of(run), strict=True):
        trained |= digests(path, source["train"])
        validation |= digests(path, source["validation"])
    assert validation
    assert not trained & validation
    assert "prior episodes to hold out in" in told
    assert "are trained on (" in told
    assert "they are no held-out data and are left out" in told


def test_fine_tuning_on_a_task_that_pre_training_had(folder, base, store, capfd):
    held = set(sources_of(base)[0]["validation"])
    for mix in ("0", "0.5"):
        run = finetune(base, store, folder / f"mix {mix}", "--num-demos", "4", "--mix", mix)
        told = capfd.readouterr().out
        *priors, target = sources_of(run)
        assert set(target["validation"]) <= held - set(target["train"])
        of_the_task = {toy.episode_id for toy in TOYS if toy.task == TASKS[0]}
        left_out = of_the_task - set(target["train"]) - set(target["validation"])
        assert left_out == (of_the_task - held) - set(target["train"])
        assert f"{len(left_out)} of 6 target episodes to hold out in {store} are trained on" in told
        assert not {name for prior in priors for name in prior["validation"]} & set(target["train"])


def test_none_of_the_target_is_held_out(folder, base, store, capfd):
    known = [toy for toy in TOYS if toy.task == TASKS[0] and toy.episode_id in sources_of(base)[0]["train"]]
    target = store_of(folder / "all known", known)
    run = finetune(base, target, folder / "none", "--num-demos", "2", "--mix", "0.5")
    told = capfd.readouterr().out
    assert "5 of 5 target episodes to hold out in" in told
    assert "they are no held-out data and are left out; none is held out: evaluate and select need other" in told
    assert sources_of(run)[-1]["validation"] == []
    result = evaluated(run)
    assert result["data"]["is_held_out"] is False
    assert "2 TRAINING episodes" in " ".join(capfd.readouterr().out.split())


def test_a_store_that_was_copied_and_has_grown(folder, base, store, capfd):
    more = toy_episodes(4, seed=1, cameras=("image_0",))
    grown = store_of(folder / "grown", [replace(toy, episode_id=f"{i}") for i, toy in enumerate([*TOYS, *more])])
    assert evaluated(base, "--store", str(grown))["data"]["num_trained_on"] == 0
    told = " ".join(capfd.readouterr().out.split())
    assert "21 of 34 episodes were trained on (21 by this run): they are no held-out data and are left out" in told
    assert "13 held-out episodes" in told
    assert "0 of them trained on by the run or its ancestors" in told


def test_data_of_an_ancestor_is_no_held_out_data(folder, base, fine, store, capfd):
    later = finetune(fine, store, folder / "later", "--num-demos", "5", "--mix", "0", task=TASKS[1])
    capfd.readouterr()
    for run, runs in ((fine, {str(base)}), (later, {str(base), str(fine)})):
        trained = TrainedOn(read_checkpoint(run).run)
        opened = EpisodeStore.open(store)
        _, used, words = trained.split(opened, np.arange(opened.num_episodes))
        before = {name for r in (base, fine, run) for source in sources_of(r) for name in source["train"]}
        assert {opened.episodes.episode_id[i] for i in used} == before
        assert all(name in words for name in runs)
        data = evaluated(run, "--store", str(store))["data"]
        assert data["num_episodes"] == 30 - len(before)
        assert data["is_held_out"] is True
    everything = store_of(folder / "everything", [toy for toy in TOYS if toy.episode_id in before])
    data = evaluated(later, "--store", str(everything))["data"]
    assert (data["is_held_out"], data["num_trained_on"]) == (False, len(before))
    assert f"{len(before)} TRAINING episodes" in " ".join(capfd.readouterr().out.split())


def test_names_and_content(folder, base, store):
    trained = TrainedOn(read_checkpoint(base).run)
    name = sources_of(base)[0]["train"][0]
    (toy,) = (toy for toy in TOYS if toy.episode_id == name)
    other = toy_episodes(1, seed=9, cameras=("image_0",))[0]
    toys = [
        toy,
        replace(toy, episode_id="renamed"),
        replace(other, episode_id="another one"),
    ]
    opened = EpisodeStore.open(store_of(folder / "names", toys))
    assert [trained.by(opened, i) for i in range(3)] == ["", "", None]
    again = [replace(other, episode_id=name, task=toy.task)]
    opened = EpisodeStore.open(store_of(folder / "again", again))
    assert trained.by(opened, 0) == "", "the same name: the recording, converted again"
    elsewhere = [replace(other, episode_id=name, task="another task")]
    assert trained.by(EpisodeStore.open(store_of(folder / "elsewhere", elsewhere)), 0) is None


def of_version_1(run, out, **changes):
    """The run with a record as it was before episodes were recorded with their digests."""
    shutil.copytree(run, out, symlinks=True)
    info = read_checkpoint(out)
    record = {key: info.run[key] for key in ("verb", "config", "split", "versions")}
    for source in record["split"]["sources"]:
        del source["others"], source["episodes"]
    if parent := info.run["parent"]:
        record["checkpoint"] = {"path": parent["checkpoint"], "step": parent["step"]}
    return replace(info, run={**record, **changes})


def test_what_an_old_record_does_not_say_is_unknown_and_never_held_out(folder, base, fine, store):
    old = of_version_1(base, folder / "old base")
    data = held_out(old)
    assert data.is_held_out, "the store is as it was: its table has the digests"
    copy = store_of(folder / "renamed copy", [replace(toy, episode_id=f"x{toy.episode_id}") for toy in TOYS])
    assert len(held_out(old, places=StorePlaces(given=copy), max_episodes=0).episodes) == 9
    moved = of_version_1(base, folder / "moved base")
    moved.run["split"]["sources"][0]["store"] = str(folder / "gone")
    (folder / "moved base" / "train_config.json").unlink()
    data = held_out(moved, places=StorePlaces(given=copy))
    assert data.is_held_out is None
    assert "its store" in data.unknown
    assert "is not there" in data.unknown
    orphan = of_version_1(fine, folder / "old fine", checkpoint={"path": str(folder / "no base"), "step": 1})
    data = held_out(orphan, places=StorePlaces(given=copy))
    assert data.is_held_out is None
    assert "what " in data.unknown
    nothing = replace(old, run={"converted_from": "checkpoint"})
    shutil.rmtree(folder / "old base")
    data = held_out(nothing, places=StorePlaces(given=copy))
    assert (data.is_held_out, data.num_trained_on) == (None, 0)
    assert "what this checkpoint was trained on is not recorded" in data.unknown


def test_select_and_report_count_what_was_trained_on(base, capfd):
    assert cli(["select", "--run", str(base)]) in (0, 1)
    counted = "0 of them trained on by the run or its ancestors"
    assert counted in " ".join(capfd.readouterr().out.split())
    assert json.loads((base / "selection.json").read_text())["data"]["num_trained_on"] == 0
    assert cli(["report", "--run", str(base)]) == 0
    assert counted in (base / "report.html").read_text()


def test_a_task_with_too_few_episodes_and_the_camera_are_told_at_the_start(folder, capfd):
    cameras = ("image_0", "wrist")
    toys = [toy for toy in toy_episodes(12, cameras=cameras) if toy.task != TASKS[2]]
    few = store_of(folder / "few", toys[:6])
    run = pretrain(few, folder / "few run", "--data.validation-share", "0.25")
    told = capfd.readouterr().out
    assert (
        "nothing is held out of 2 tasks, data.validation-share 0.25 holds none out of so few: "
        f"{TASKS[0]!r} (3 episodes), {TASKS[1]!r} (3 episodes)" in told
    )
    assert "the camera that is trained on is 'image_0', not 'wrist': --data.cameras takes others" in told
    finetune(run, few, folder / "few fine", "--num-demos", "3", "--mix", "0")
    told = capfd.readouterr().out
    assert f"all 3 episodes of {TASKS[0]!r} in {few} are demonstrations; --num-demos 2 holds one out" in told
    assert "is 'image_0', not 'wrist': the checkpoint was trained so" in told


def test_a_store_with_a_task_that_the_checkpoint_does_not_know(folder, base, capfd):
    fresh = toy_episodes(4, seed=5, cameras=("image_0",))
    mixed = store_of(folder / "mixed", [*fresh[1:], replace(fresh[0], task="fold cloth")])
    here = ", ".join(map(repr, sorted({toy.task for toy in fresh[1:]})))
    for verb in ("evaluate", "act"):
        assert cli([verb, "--checkpoint", str(base), "--store", str(mixed)]) == 2
        told = capfd.readouterr().err
        assert "the checkpoint does not know the tasks 'fold cloth' of this store" in told
        assert f"name one that it knows with --task: {here}" in told
    assert evaluated(base, "--store", str(mixed), "--task", TASKS[1])["data"]["num_episodes"] == 1
    alone = store_of(folder / "alone", [replace(fresh[0], task="fold cloth")])
    assert cli(["evaluate", "--checkpoint", str(base), "--store", str(alone)]) == 2
    assert "and none of them is here to be named with --task" in capfd.readouterr().err
