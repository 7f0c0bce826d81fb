"""``pretrain --target``: demonstrations of a new task from the first update on, by the rules of fine-tuning."""

import shutil

import pytest
from changing_world import SMALL, moved, ptr_fast, read_record, same_result, stopped, weights

from ptr_fast.checkpoint import read_checkpoint

TARGET = ["--num-demos", "3", "--mix", "0.5"]
ALONE = ["--target", "TARGET", "--mix", "0"]


@pytest.fixture(scope="module")
def joint(home, tmp_path_factory):
    """A run on the first store and the demonstrations of ``fine``, from scratch."""
    out = tmp_path_factory.mktemp("joint") / "joint"
    choice = ["--data.exclude-tasks", "turn lever", "--data.validation-share", "0.25"]
    data = ["--data.stores", home / "store", *choice, "--target", home / "target", *TARGET]
    assert ptr_fast("pretrain", "smoke", *data, "--out", out, *SMALL) == 0
    return out


def test_its_sources_are_those_of_fine_tuning_with_the_same_options(home, joint):
    record, fine = read_record(joint), read_record(home / "fine")
    assert record["split"] == fine["split"]
    assert record["spec"] == fine["spec"]
    assert (record["parent"], record["ancestors"]) == (None, [])
    assert record["config"]["joint"]["target"] == str(home / "target")
    assert record["config"]["joint"]["task"] == "fold towel"
    assert weights(joint) != weights(home / "fine")


def test_it_is_resumed_where_its_stores_have_moved(home, joint, tmp_path):
    for name in ("store", "target"):
        shutil.copytree(home / name, tmp_path / name)
    run = stopped(joint, tmp_path / "run")
    assert ptr_fast("resume", run, *moved(home, tmp_path)) == 0
    same_result(run, joint)
    record = read_record(run)
    assert record["config"]["joint"]["target"] == str(tmp_path / "target")
    assert record["config"]["data"]["stores"] == [str(tmp_path / "store")]
    assert ptr_fast("resume", run, "--num-steps", "7") == 0  # what has moved is not taken for a changed setting


def test_its_held_out_episodes_are_those_of_the_target(joint, capsys):
    assert ptr_fast("evaluate", "--checkpoint", joint) == 0
    assert "target" in capsys.readouterr().out


def test_its_branches_keep_the_demonstrations(home, joint, tmp_path, capsys):
    start = joint / "checkpoints" / "000003"
    assert ptr_fast("pretrain", "--from", start, "--out", tmp_path / "same") == 0
    assert "with nothing changed" in capsys.readouterr().out
    assert weights(tmp_path / "same") == weights(joint)
    assert ptr_fast("pretrain", "--from", start, "--out", tmp_path / "more", "--data.exclude-tasks", "") == 2
    assert ptr_fast("pretrain", "--from", start, "--out", tmp_path / "anew", "--data.validation-share", "0.3") == 0
    record, before = read_record(tmp_path / "anew"), read_record(joint)
    assert record["split"]["mix"] == 0.5
    assert record["split"]["sources"][1] == before["split"]["sources"][1]


def test_it_is_fine_tuned_like_any_other_run(home, joint, tmp_path):
    more = ["--target", home / "target", "--task", "fold towel", "--num-demos", "2", "--mix", "0.5"]
    assert ptr_fast("finetune", "--checkpoint", joint, "--out", tmp_path / "fine", *more, *SMALL) == 0
    assert [source["role"] for source in read_record(tmp_path / "fine")["split"]["sources"]] == [
        "prior", "prior", "target",
    ]  # fmt: skip


def test_the_target_alone_is_a_mix_of_0(home, tmp_path, capsys):
    out = tmp_path / "alone"
    alone = ["--target", home / "target", "--num-demos", "3", "--mix", "0"]
    assert ptr_fast("pretrain", "smoke-bc", *alone, "--out", out, *SMALL) == 0
    record, fine = read_record(out), read_record(home / "fine")
    assert record["split"]["sources"] == fine["split"]["sources"][1:]
    assert record["spec"]["tasks"]["names"] == ["fold towel"]
    run = stopped(out, tmp_path / "again")
    assert ptr_fast("resume", run) == 0
    same_result(run, out)
    assert read_checkpoint(run).spec == read_checkpoint(out).spec
    capsys.readouterr()
    branch = ["pretrain", "--from", out / "checkpoints" / "000003", "--out", tmp_path / "branch"]
    assert ptr_fast(*branch, "--data.stores", home / "store") == 2
    assert "trains on the demonstrations of a new task alone" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ([], "no data to train on: name the stores with --data.stores"),
        (["--data.stores", "STORE", "--num-demos", "3"], "--num-demos is about demonstrations of a new task"),
        (["--data.stores", "STORE", "--target", "TARGET", "--mix", "0"], "leave --data.stores away"),
        (["--target", "TARGET"], "mix 0.9 needs other data: name it with --data.stores"),
        (["--target", "TARGET", "--mix", "1"], "mix must lie in [0, 1)"),
        (["--data.stores", "STORE", "--target", "TARGET", "--num-demos", "99"], "asked for 99 demonstrations"),
        (["--data.stores", "STORE", "--target", "TARGET", "--task", "fly"], "no task 'fly'"),
        (["--data.stores", "STORE", "--target", "TARGET", "--num-task-slots", "3"], "no room for ['fold towel']"),
        (["--data.stores", "STORE", "--target", "TARGET", "--camera-map", "eye=wrist"], "camera-map: expected"),
        ([*ALONE, "--data.tasks", "fold towel"], "--data.tasks fold towel is about --data.stores"),
        ([*ALONE, "--data.domains", "lab"], "of the target's episodes chooses --domains lab"),
        ([*ALONE, "--data.validation-share", "0.3"], "mix 0 trains on the target alone: leave it away"),
    ],
)
def test_options_that_do_not_go_together_are_one_clear_error(home, tmp_path, capsys, options, message):
    places = {"STORE": home / "store", "TARGET": home / "target"}
    words = [places.get(word, word) for word in options]
    short = [] if "--num-demos" in options else ["--num-demos", "3"] if "--target" in options else []
    assert ptr_fast("pretrain", "smoke", *words, *short, "--out", tmp_path / "run", *SMALL) == 2
    assert message in capsys.readouterr().err
    assert not (tmp_path / "run" / "train_config.json").exists()


def test_a_recipe_that_chooses_outcomes_says_how_to_choose_them_of_the_target(home, tmp_path, capsys):
    alone = ["pretrain", "smoke-bc-success", "--target", home / "target", "--num-demos", "2", "--mix", "0", *SMALL]
    assert ptr_fast(*alone, "--out", tmp_path / "run") == 2
    told = capsys.readouterr().err
    assert "cleared by --data.outcomes without a value" in told
    assert "chooses --outcomes success" in told
    assert ptr_fast(*alone, "--out", tmp_path / "run", "--data.outcomes", "--outcomes", "success") == 0
