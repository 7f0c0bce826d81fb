"""Fitted Q evaluation and the classifier of success, from a run's own episodes: computed, kept, ranked by, unknown."""

import json
import math

import numpy as np
import pytest
from valued_run import BC, make_run

from ptr_fast.checkpoint import list_checkpoints, read_checkpoint
from ptr_fast.diagnostics import value_range
from ptr_robot.cli import main as cli
from ptr_robot.evaluation.fitted_metrics import DISCOUNT, FITTED, fitted_metrics
from ptr_robot.evaluation.held_out import held_out, trained_episodes
from ptr_robot.evaluation.metrics import rewards_of
from ptr_robot.training.store_places import StorePlaces


@pytest.fixture(scope="module")
def mixed(folder, store):
    """A run that trained on a failure, and held none out."""
    return make_run(folder / "mixed", store, validation=(0, 1), train=(2, 3, 4, 5, 6), steps=(2, 4))


def test_it_is_fitted_to_what_was_trained_on_and_a_function_of_that(mixed):
    info = read_checkpoint(list_checkpoints(mixed)[-1])
    data = held_out(info)
    one, again = (fitted_metrics(info, data, StorePlaces(), seed=3) for _ in range(2))
    assert one == again
    assert tuple(one["metrics"]) == FITTED
    low, high = value_range(rewards_of(info), DISCOUNT)
    assert low <= one["metrics"]["fqe_value"] <= high
    assert 0.0 <= one["metrics"]["success_chance"] <= 1.0
    assert one["metrics"]["classifier_auc"] is None  # no failure was held out
    told = one["fitted_on"]
    assert (told["num_episodes"], told["num_successes"] + told["num_failures"] <= 5, told["num_failures"]) == (
        5,
        True,
        1,
    )


def test_the_chosen_training_episodes_are_spread_over_the_stores(mixed, store):
    info = read_checkpoint(list_checkpoints(mixed)[-1])
    ((chosen, episodes),) = trained_episodes(info, StorePlaces(), 3, seed=0)
    assert chosen.path == store.path
    assert len(episodes) == 3
    assert set(episodes) <= {2, 3, 4, 5, 6}
    (everything,) = trained_episodes(info, StorePlaces(), 100, seed=0)
    assert np.array_equal(everything[1], [2, 3, 4, 5, 6])


@pytest.mark.parametrize("metric", ["fqe_value", "success_chance"])
def test_select_ranks_by_it_and_keeps_it(metric, mixed, capsys):
    assert cli(["select", "--run", str(mixed), "--metric", metric, "--json"]) == 0
    selection = json.loads(capsys.readouterr().out)
    values = {entry["step"]: entry["value"] for entry in selection["ranking"]}
    assert selection["metric"] == metric
    best = next(entry for entry in selection["ranking"] if not entry["excluded"])
    assert best["step"] == selection["selected"]
    for step, value in values.items():
        kept = json.loads((mixed / "evaluation" / f"{step:06d}.json").read_text())
        assert kept["metrics"][metric] == value
        assert math.isfinite(value)
        assert kept["fitted_on"]["num_episodes"] == 5


def test_where_all_succeeded_the_chance_of_success_is_unknown(folder, store, capsys):
    run = make_run(folder / "successes", store, config=BC, validation=(0, 1), train=(4, 5, 6), steps=(2,))
    assert cli(["evaluate", "--checkpoint", str(run), "--fitted"]) == 0
    shown = " ".join(capsys.readouterr().out.split())
    assert "fitted to 3 training episodes" in shown
    assert "nothing tells one from the other" in shown
    assert cli(["select", "--run", str(run), "--metric", "success_chance"]) == 1
    shown = " ".join(capsys.readouterr().out.split())
    assert "chance of success could not be computed on these episodes: " in shown
    assert cli(["select", "--run", str(run), "--metric", "fqe_value"]) == 0


def test_an_evaluation_without_them_is_what_it_was(run, capsys):
    assert cli(["evaluate", "--checkpoint", str(run), "--json"]) == 0
    result = json.loads(capsys.readouterr().out)
    assert not set(FITTED) & set(result["metrics"])
    assert "fitted_on" not in result
