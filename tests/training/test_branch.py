"""Branches: a new run from a checkpoint with changed settings, ``--from``."""

import shlex
import shutil

import pytest
from changing_world import (
    as_version_1,
    episodes,
    grow,
    moved,
    new_task,
    numbers,
    ptr_fast,
    read_record,
    weights,
)

from ptr_fast.checkpoint import list_checkpoints, read_checkpoint
from ptr_robot.cli import main as cli
from ptr_robot.training import loop as train
from ptr_robot.training.ancestry import trained_on
from ptr_robot.training.divergence import Divergence
from ptr_robot.training.processes import branch_command

VERBS = {"base": "pretrain", "fine": "finetune"}


@pytest.mark.parametrize("name", list(VERBS))
def test_with_nothing_changed_it_is_the_run_that_it_leaves(home, tmp_path, capsys, name):
    out, start = tmp_path / "branch", home / name / "checkpoints" / "000003"
    assert ptr_fast(VERBS[name], "--from", start, "--out", out) == 0
    assert f"a branch of {start} with nothing changed" in capsys.readouterr().out
    assert weights(out) == weights(home / name)
    assert numbers(out) == numbers(home / name)[3:]
    before, after = read_record(home / name), read_record(out)
    parent = after["parent"]
    assert (parent["kind"], parent["run"], parent["step"]) == ("branch", str(home / name), 3)
    assert after["spec"] == before["spec"]
    assert after["split"] == before["split"]
    assert after["config"] == {**before["config"], "out": str(out)}
    assert [a["run"] for a in after["ancestors"]] == [str(home / name), *[a["run"] for a in before["ancestors"]]]


def test_a_branch_from_what_fine_tuning_begins_with_has_it_too(home, tmp_path):
    out = tmp_path / "branch"
    assert ptr_fast("finetune", "--from", home / "fine" / "checkpoints" / "000000", "--out", out) == 0
    assert [path.name for path in list_checkpoints(out)] == ["000000", "000003", "000006"]
    assert weights(out) == weights(home / "fine")


@pytest.mark.parametrize("name", list(VERBS))
def test_settings_that_are_changed_are_told_and_recorded_and_a_branch_is_resumed(home, tmp_path, capsys, name):
    out = tmp_path / "branch"
    changes = ["--learner.cql-alpha", "2", "--learner.critic-lr", "1e-5", "--batch-size", "6", "--num-steps", "5"]
    assert ptr_fast(VERBS[name], f"--from={home / name / 'checkpoints' / '000003'}", "--out", out, *changes) == 0
    said = capsys.readouterr().out
    assert "loop.batch_size 4 -> 6" in said
    assert "learner.cql_alpha 10.0 -> 2.0" in said
    assert "learner.critic_lr" in said
    config = read_record(out)["config"]
    assert (config["learner"]["cql_alpha"], config["loop"]["batch_size"]) == (2.0, 6)
    assert [p.name for p in list_checkpoints(out)] == ["000005"]
    assert ptr_fast("resume", out, "--num-steps", "6") == 0
    assert numbers(out)[-1]["step"] == 6
    assert read_checkpoint(out).config.cql_alpha == 2.0


def test_a_branch_stopped_before_its_first_checkpoint_begins_at_its_parent_again(home, tmp_path):
    out = tmp_path / "branch"
    assert ptr_fast("pretrain", "--from", home / "base" / "checkpoints" / "000003", "--out", out) == 0
    expected = weights(out)
    shutil.rmtree(out / "checkpoints")
    assert ptr_fast("resume", out) == 0
    assert weights(out) == expected
    assert [row["step"] for row in numbers(out)] == [4, 5, 6]


def test_more_data_keeps_what_was_trained_on_and_what_was_held_out(home, world, capsys):
    grow(world / "store", [*episodes(9, seed=9), *new_task()])
    out, start = world / "branch", world / "base" / "checkpoints" / "000003"
    more = ["--data.stores", world / "store", world / "target", *moved(home, world)]
    assert ptr_fast("pretrain", "--from", start, "--out", out, *more) == 0
    (before,), after = read_record(home / "base")["split"]["sources"], read_record(out)["split"]["sources"]
    assert len(after) == 2
    assert set(before["train"]) <= set(after[0]["train"])
    assert set(before["validation"]) <= set(after[0]["validation"])
    new = {name for name in after[0]["train"] if name not in before["train"]}
    assert {name[:6] for name in new} == {"toy_9_", "toy_7_"}
    known, tasks = read_record(home / "base")["spec"]["tasks"], read_record(out)["spec"]["tasks"]
    assert tasks["names"] == [*known["names"], "arrange cups", "fold towel"]
    assert tasks["num_slots"] == known["num_slots"]
    assert ptr_fast("resume", out, "--num-steps", "7") == 0
    own, _ = trained_on(read_checkpoint(out / "checkpoints" / "000006").run)
    assert [(t.run, t.store.name) for t in own] == [("", "store"), ("", "target"), (str(world / "base"), "store")]


def test_without_data_options_new_episodes_are_left_out(home, world, capsys):
    grow(world / "store", new_task())
    out, start = world / "branch", world / "base" / "checkpoints" / "000003"
    assert ptr_fast("pretrain", "--from", start, "--out", out, *moved(home, world)) == 0
    assert "3 episodes are new since the run began and are left out" in capsys.readouterr().out
    assert weights(out) == weights(home / "base")


def test_more_demonstrations_keep_the_first_ones(home, world, capsys):
    grow(world / "target", new_task())
    out, start = world / "branch", ["finetune", "--from", world / "fine", *moved(home, world), "--out"]
    assert ptr_fast(*start, out, "--num-demos", "5", "--mix", "0.25") == 0
    before, after = (read_record(run)["split"]["sources"][1] for run in (home / "fine", out))
    assert set(before["train"]) < set(after["train"])
    assert len(after["train"]) == 5
    assert set(after["train"]) | set(after["validation"]) == set(before["train"]) | set(before["validation"])
    assert read_record(out)["split"]["mix"] == 0.25
    assert ptr_fast(*start, world / "fewer", "--num-demos", "2") == 2
    assert "3 demonstrations were trained on already" in capsys.readouterr().err
    assert ptr_fast(*start, world / "alone", "--mix", "0") == 0
    assert [source["role"] for source in read_record(world / "alone")["split"]["sources"]] == ["target"]


def test_a_branch_of_a_run_of_version_1(home, world):
    as_version_1(world / "base")
    out, start = world / "branch", world / "base" / "checkpoints" / "000003"
    more = ["--data.stores", world / "store", *moved(home, world)]
    grow(world / "store", new_task())
    assert ptr_fast("pretrain", "--from", start, "--out", out, *more) == 0
    (before,), (after,) = (read_record(run)["split"]["sources"] for run in (home / "base", out))
    assert set(before["train"]) <= set(after["train"])
    assert set(before["validation"]) <= set(after["validation"])


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["finetune", "--from", "BASE"], "is of a run of pretrain: use ptr-fast pretrain --from"),
        (["pretrain", "--from", "FINE"], "is of a run of finetune: use ptr-fast finetune --from"),
        (["pretrain", "--from", "BASE"], "begins at step 6 and is to end at step 6: give a larger --num-steps"),
        (["pretrain", "--from", "BASE", "--num-steps", "9", "--learner.hidden-dims", "8"], "a branch keeps the nets"),
        (["pretrain", "--from", "BASE", "--num-steps", "9", "--learner.encoder.num-filters", "4"], "learner.encoder"),
        (["pretrain", "--from", "BASE", "--num-steps", "9", "--learner.num-critics", "4"], "learner.num_critics"),
        (["pretrain", "--from", "NOWHERE"], "NOWHERE: no checkpoint here"),
        (["pretrain", "smoke", "--from", "BASE"], "smoke: --from takes the place of a recipe"),
        (["pretrain", "--from"], "--from: expected a run or a checkpoint"),
    ],
)
def test_mistakes_are_one_line(home, tmp_path, capsys, words, expected):
    places = {"BASE": home / "base", "FINE": home / "fine", "NOWHERE": tmp_path / "NOWHERE"}
    out = tmp_path / "branch"
    tail = [] if words[-1] == "--from" else ["--out", out]
    assert ptr_fast(*[places.get(word, word) for word in words], *tail) == 2
    (line,) = [line for line in capsys.readouterr().err.splitlines() if "error" in line]
    assert expected in line
    assert not list_checkpoints(out)


def test_a_finished_cosine_is_not_branched_into_nothing(home, tmp_path, capsys):
    cosine = ["--learner.lr-schedule", "cosine", "--learner.lr-schedule-steps", "6", "--num-steps", "8"]
    start = ["pretrain", "--from", home / "base" / "checkpoints" / "000003", "--out", tmp_path / "branch"]
    assert ptr_fast(*start, *cosine) == 2
    assert "updates 7 to 8 would train with a rate of 0" in capsys.readouterr().err
    assert ptr_fast(*start, *cosine, "--learner.lr-schedule-steps", "8") == 0


def test_the_alarm_gives_the_command_of_a_branch(home, tmp_path, capsys, monkeypatch):
    """What its message ends with runs as it stands."""
    out, often = tmp_path / "a run", ["--batch-size", "4", "--log-every", "1", "--checkpoint-every", "1"]
    sunk = Divergence(kind="too_low", name="q/data", reason="it sank")
    with monkeypatch.context() as patch:
        patch.setattr(train, "reported_divergence", lambda numbers, *_: sunk if numbers["lr/critic"] < 2.7e-4 else None)
        cosine = ["--learner.lr-schedule", "cosine", "--num-steps", "9"]
        words = ["pretrain", "smoke", "--data.stores", home / "store", "--out", out, *often, *cosine]
        assert ptr_fast(*words) == 3
    command = capsys.readouterr().err.splitlines()[-1]
    words = shlex.split(command)
    assert words[:2] == ["ptr-fast", "pretrain"]
    assert len(words) > 6  # with what the advice names first
    assert cli(words[1:]) == 0
    branch = read_record(tmp_path / "a run-2")
    assert branch["parent"]["run"] == str(out)
    assert branch["config"]["learner"] != read_record(out)["config"]["learner"]
    capsys.readouterr()
    assert ptr_fast("resume", out) == 0  # nothing rings any more
    told = "with nothing changed it will ring again: go on with other settings: ptr-fast pretrain --from "
    assert told in capsys.readouterr().out


def test_the_command_takes_the_first_free_name(tmp_path, monkeypatch):
    (tmp_path / "run-2").mkdir()
    start = tmp_path / "run" / "checkpoints" / "000004"
    command = branch_command("finetune", start, tmp_path / "run", ["--learner.cql-alpha", "1"])
    assert command == f"ptr-fast finetune --from {start} --out {tmp_path}/run-3 --learner.cql-alpha 1"
    monkeypatch.setenv("WORLD_SIZE", "4")
    assert branch_command("pretrain", start, tmp_path / "run").startswith(
        "torchrun --nproc-per-node N -m ptr_robot pre"
    )
