"""The rank correlation of offline metrics with the success of trials, on numbers that are known, and from files."""

import json
import math
from dataclasses import replace

import numpy as np
import pytest
from valued_run import make_run

from ptr_fast.diagnostics import rank_correlation
from ptr_fast.errors import DataError
from ptr_robot.cli import main as cli
from ptr_robot.evaluation.metric_correlation import TriedCheckpoint, metric_correlations
from ptr_robot.report.tried_checkpoints import trial_counts, tried_checkpoints


def tried(run, successes, num_trials=20, **metrics):
    return TriedCheckpoint(run=run, metrics=metrics, successes=successes, num_trials=num_trials)


def by_metric(points, seed=0):
    return {each.metric: each for each in metric_correlations(points, seed)}


def test_a_metric_that_orders_all_has_one_whatever_its_better_side():
    points = [tried(f"run {i // 3}", i, score=i**2, action_error=-(i**3), return_bias=10.0 - i) for i in range(9)]
    for metric, each in by_metric(points).items():
        assert each.over_all == pytest.approx(1.0), metric
        assert each.over_all_interval == pytest.approx((1.0, 1.0)), metric
        assert each.within == pytest.approx(1.0), metric
        assert (each.num_checkpoints, each.num_runs, each.num_runs_within) == (9, 3, 3), metric


def test_between_runs_and_within_runs_are_two_questions():
    """The better run has the higher metric, and within each run the metric is upside down."""
    points = [tried(run, start + i, score=start - i) for run, start in (("a", 0), ("b", 10)) for i in range(3)]
    (each,) = metric_correlations(points)
    assert each.over_all == pytest.approx(0.543, abs=0.001)  # ranks 3 2 1 6 5 4 against 1 to 6: 1 - 6 * 16 / (6 * 35)
    assert each.within == pytest.approx(-1.0)
    assert each.within_interval == pytest.approx((-1.0, -1.0))


def test_within_a_run_checkpoints_are_compared_that_were_tried_alike():
    """A search that succeeds and samples that fail: together they hide the order of the checkpoints."""
    ways = [("search", 7), ("sample", 0)]
    points = [replace(tried("a", start + i, score=i), way=way) for way, start in ways for i in range(3)]
    points += [tried("b", i, score=2 - i) for i in range(3)]
    (each,) = metric_correlations(points)
    assert (each.num_checkpoints, each.num_runs, each.num_runs_within) == (9, 2, 2)
    assert each.within == pytest.approx((1.0 - 1.0) / 2)


def test_what_is_unknown_is_left_out_and_told():
    points = [
        tried("a", 1, score=None, late_rise=1.0),
        tried("a", 2, score=1.0, late_rise=2.0),
        tried("b", 3, score=0.5),
    ]
    found = by_metric(points)
    assert (found["score"].num_checkpoints, found["score"].num_runs) == (2, 2)
    assert found["score"].over_all == pytest.approx(-1.0)
    assert math.isnan(found["score"].within)
    assert math.isnan(found["late_rise"].over_all_interval[0])  # of one run
    assert "preference" not in found
    with pytest.raises(ValueError, match="at least two checkpoints with trials, got 1"):
        metric_correlations(points[:1])


def test_the_interval_is_over_runs_and_a_function_of_the_seed():
    points = [tried(f"run {run}", (run * 7 + i * 3) % 11, score=(run + i) % 5) for run in range(8) for i in range(3)]
    one, again, other = (by_metric(points, seed)["score"] for seed in (0, 0, 1))
    assert one == again
    assert one.over_all_interval != other.over_all_interval
    assert one.over_all_interval[0] < one.over_all < one.over_all_interval[1]


def test_the_interval_is_that_of_runs_drawn_one_by_one():
    """The bootstrap as it is told, in plain loops, with ties among metrics and rates."""
    rng = np.random.default_rng(3)
    points = [
        tried(f"run {run}", int(rng.integers(0, 5)), score=float(rng.integers(0, 6))) for run in range(6) for _ in "abc"
    ]
    runs = [[(each.metrics["score"], each.rate) for each in points[i : i + 3]] for i in range(0, 18, 3)]
    drawn = np.random.default_rng(0).integers(0, 6, (2000, 6))
    every = [rank_correlation(*np.array([point for i in row for point in runs[i]]).T) for row in drawn[:400]]
    (each,) = metric_correlations(points)
    assert each.over_all_interval == pytest.approx(tuple(np.quantile(every, (0.025, 0.975))), abs=0.06)
    assert each.over_all == pytest.approx(rank_correlation(*np.array([point for run in runs for point in run]).T))


def write_trials(path, run, step, successes, num_trials=10, task="x", **over):
    """A result of trials of a run's checkpoint, the first ones successful."""
    trials = [{"index": i, "seed": 100 + i, "success": i < successes} for i in range(num_trials)]
    about = {"policy": "p", "checkpoint": str(run / "checkpoints" / f"{step:06d}"), "mode": "mean", "kitchen": "A"}
    counts = {"successes": successes, "num_trials": num_trials}
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps({**about, "task": task, **counts, "trials": trials, **over}))
    return path


def test_the_verb_joins_trials_and_evaluations(folder, store, capsys):
    runs = [make_run(folder / f"tried {i}", store, steps=(2, 4)) for i in range(2)]
    for i, run in enumerate(runs):
        assert cli(["select", "--run", str(run)]) in (0, 1)
        for step in (2, 4):
            for task in ("x", "y"):
                write_trials(run / "rollouts" / f"{task}-{step}.json", run, step, step + i, task=task)
    options = [option for run in runs for option in ("--run", str(run))]
    capsys.readouterr()
    assert cli(["correlate", *options, "--json"]) == 0
    rows = {row["metric"]: row for row in json.loads(capsys.readouterr().out)}
    assert rows["action_error"]["num_checkpoints"] == 4
    assert rows["action_error"]["num_runs"] == 2
    assert cli(["correlate", *options]) == 0
    assert "action error" in capsys.readouterr().out
    assert cli(["correlate", *options, "--mode", "search"]) == 2
    told = capsys.readouterr().err
    assert "rollouts: expected at least two checkpoints with trials by --mode search and an evaluation, got 0" in told
    assert "(modes of the trials there: mean)" in told
    for step in (
        2,
        4,
    ):  # a search tells of how many candidates, and from where it began: it is one of that mode all the same
        of = {"mode": "search", "candidates": 4, "elites": 1, "plan": {"start": "easy", "max_steps": 60}}
        write_trials(runs[0] / "rollouts" / f"search-{step}.json", runs[0], step, step, **of)
    assert cli(["correlate", *options, "--mode", "search", "--json"]) == 0
    assert {row["num_checkpoints"] for row in json.loads(capsys.readouterr().out)} == {2}
    for file in runs[0].glob("rollouts/search-*.json"):
        file.unlink()
    one = ["--rollouts", str(runs[0] / "rollouts" / "x-2.json")]
    write_trials(folder / "searched.json", runs[0], 2, 1, **of)
    assert cli(["correlate", *one, "--rollouts", str(folder / "searched.json")]) == 2, "one checkpoint, in two ways"
    assert "expected at least two checkpoints with trials and an evaluation, got 1" in capsys.readouterr().err
    alike = []
    for file in sorted(runs[1].glob("rollouts/x-*.json")):
        path = folder / f"alike-{file.name}"
        write_trials(path, runs[1], int(file.stem.partition("-")[2]), 0)
        alike += ["--rollouts", str(path)]
    assert cli(["correlate", *alike]) == 0
    assert "all 2 checkpoints succeeded in 0% of their trials: nothing to correlate with" in capsys.readouterr().out
    (runs[0] / "evaluation" / "000002.json").unlink()
    assert cli(["correlate", *options, "--json"]) == 0
    captured = capsys.readouterr()
    assert "1 checkpoints were tried and not evaluated, and are left out (--evaluate does that)" in captured.err
    assert json.loads(captured.out)[0]["num_checkpoints"] == 3
    assert cli(["correlate", *options, "--json", "--evaluate"]) == 0
    rows = {row["metric"]: row for row in json.loads(capsys.readouterr().out)}
    assert rows["fqe_value"]["num_checkpoints"] == 4


def test_every_start_counts_once(tmp_path):
    """Trials of the same seeds in two files, and more of them in a third; another task is another start."""
    folder, run = tmp_path / "trials", tmp_path / "run"
    write_trials(folder / "two.json", run, 2, 1, num_trials=2)
    write_trials(folder / "three.json", run, 2, 1, num_trials=3)
    films = write_trials(tmp_path / "films.json", run, 2, 1, num_trials=1)
    key = (run / "checkpoints" / "000002").resolve(), ("mean", "")
    assert trial_counts([folder, films]) == {key: (1, 3)}
    write_trials(folder / "y.json", run, 2, 2, num_trials=2, task="y")
    assert trial_counts([folder, films]) == {key: (3, 5)}


def test_a_result_without_a_trial_is_named(tmp_path):
    path = write_trials(tmp_path / "none.json", tmp_path, 2, 0, num_trials=0)
    with pytest.raises(DataError, match=r"none\.json: rollout\.trials: expected at least one, got none"):
        trial_counts([path])


@pytest.mark.parametrize("metrics", [[], None, "x", 3, {"score": "x"}, {"score": [1]}, {"score": 10**400}])
def test_an_evaluation_with_wrong_metrics_is_named(tmp_path, metrics):
    counts = trial_counts([write_trials(tmp_path / "x.json", tmp_path, 2, 1)])
    (tmp_path / "evaluation").mkdir()
    (tmp_path / "evaluation" / "000002.json").write_text(json.dumps({"metrics": metrics}))
    with pytest.raises(DataError, match=r"000002\.json: evaluation\.metrics.*: expected "):
        tried_checkpoints(counts)
