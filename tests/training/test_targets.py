"""Targets that look several steps ahead, from the option to the checkpoint: trained, resumed, told, refused."""

import pytest
from changing_world import SMALL, episodes, make_store, ptr_fast, read_record, same_result, stopped, weights

from ptr_robot.cli import main as cli

AHEAD = ["--rewards.num-steps", "5", "--rewards.lower-bound-returns"]


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    return make_store(tmp_path_factory.mktemp("toy") / "store", episodes())


def pretrain(store, out, *more, recipe="smoke"):
    return ptr_fast("pretrain", recipe, "--data.stores", store, "--out", out, *SMALL, *more)


@pytest.mark.parametrize("frames", ["map", "device"])
def test_they_are_trained_on_and_resumed_exactly(store, tmp_path, frames, capsys):
    run, plain = tmp_path / "run", tmp_path / "plain"
    assert pretrain(store, plain, "--frames", frames) == 0
    assert "rewards.num_steps 1" in capsys.readouterr().out
    assert pretrain(store, run, *AHEAD, "--frames", frames) == 0
    said = capsys.readouterr().out
    assert "rewards.lower_bound_returns puts the returns of successes into the targets from the beginning" in said
    assert weights(run) != weights(plain)
    rewards = read_record(run)["config"]["rewards"]
    assert (rewards["num_steps"], rewards["lower_bound_returns"]) == (5, True)
    again = stopped(run, tmp_path / "again")
    assert ptr_fast("resume", again) == 0
    same_result(again, run)
    assert ptr_fast("evaluate", "--checkpoint", run, "--store", store, "--max-episodes", "1") == 0


def test_a_learner_without_a_discount_refuses_them_in_one_line(store, tmp_path, capsys):
    out = tmp_path / "cloning"
    arguments = ["pretrain", "smoke-bc", "--data.stores", store, "--out", out, *SMALL, *AHEAD[:2]]
    assert cli([str(word) for word in arguments]) != 0
    errors = capsys.readouterr().err.strip().splitlines()
    assert len(errors) == 1
    assert "rewards.num_steps 5: " in errors[0]
    assert "no discount" in errors[0]
    assert not out.exists()


def test_they_go_together_with_what_is_fitted_before_the_first_update(store, tmp_path):
    """The scale of standardised states is fitted to the data that the targets were made of, and resumed with."""
    run = tmp_path / "run"
    assert pretrain(store, run, *AHEAD, "--learner.standardise-state", recipe="smoke-proposals") == 0
    again = stopped(run, tmp_path / "again")
    assert ptr_fast("resume", again) == 0
    same_result(again, run)
