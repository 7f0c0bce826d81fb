import json

import numpy as np
import pytest

from ptr_fast.diagnostics import wilson_interval
from ptr_fast.errors import DataError
from ptr_robot.report.runs import find_rollouts, read_run, trial_rows


def write_metrics(run, *lines):
    run.mkdir(exist_ok=True)
    (run / "metrics.jsonl").write_text("\n".join(line if isinstance(line, str) else json.dumps(line) for line in lines))
    return run


def test_metrics_are_series_in_order_of_steps(tmp_path):
    run = write_metrics(
        tmp_path / "run",
        {"step": 1, "time_s": 0.5, "a": 1.0},
        {"step": 3, "time_s": 1.5, "a": 9.0, "b": 2},
        {"step": 2, "time_s": 1.0, "a": 2.0},
        {"step": 3, "time_s": 2.5, "a": 3.0, "b": None},  # written again after a resume
    )
    data = read_run(run)
    np.testing.assert_array_equal(data.metrics["a"], [[1, 2, 3], [1.0, 2.0, 3.0]])
    assert set(data.metrics) == {"a"}
    assert (data.last_step, data.seconds, data.name) == (3, 2.5, "run")


def test_only_the_last_line_may_be_cut_short(tmp_path):
    run = write_metrics(tmp_path / "run", {"step": 1, "a": 1.0}, '{"step": 2, "a"')
    assert read_run(run).last_step == 1
    write_metrics(run, {"step": 1, "a": 1.0}, "[]", {"step": 2, "a": 1.0})
    with pytest.raises(DataError, match=r"metrics\.jsonl, line 2: expected an object with a step"):
        read_run(run)
    (run / "metrics.jsonl").write_bytes(b'{"step": 1}\n\xa1\xff\n{"step": 2}\n')
    with pytest.raises(DataError, match=r"metrics\.jsonl, line 2: expected an object with a step"):
        read_run(run)
    (run / "metrics.jsonl").write_bytes(b'{"step": 1, "a": 1.0}\n\xa1\xff')
    assert read_run(run).last_step == 1


def test_what_is_no_run_is_named(tmp_path):
    with pytest.raises(DataError, match="no such run folder"):
        read_run(tmp_path / "none")
    with pytest.raises(DataError, match="not a run folder"):
        read_run(tmp_path)
    (tmp_path / "selection.json").write_text("[1]")
    with pytest.raises(DataError, match=r"selection\.json: expected an object, got list"):
        read_run(tmp_path)


def rollout(path, policy="p", checkpoint="c", successes=2, num=4, first_seed=0, **over):
    trials = [{"seed": first_seed + i, "success": i < successes, "num_steps": 10 + i} for i in range(num)]
    path.write_text(
        json.dumps(
            {"policy": policy, "checkpoint": checkpoint, "mode": "mean", "task": "t", "kitchen": "E", "trials": trials}
            | over
        )
    )
    return path


def test_trials_are_counted_per_policy_and_mode(tmp_path):
    files = [
        rollout(tmp_path / "b.json", "second", successes=4),
        rollout(tmp_path / "a.json", "first", successes=1),
        rollout(tmp_path / "c.json", "second", successes=0, checkpoint="other seed"),
        rollout(tmp_path / "d.json", "second", successes=0, mode="search"),
    ]
    rows = trial_rows(files)
    assert [(r.policy, r.mode, r.successes, r.num_trials) for r in rows] == [
        ("second", "mean", 4, 8),
        ("first", "mean", 1, 4),
        ("second", "search", 0, 4),
    ]
    assert rows[0].interval == wilson_interval(4, 8)
    assert rows[0].median_steps == 11.5
    assert np.isnan(rows[2].median_steps)


def test_how_far_the_trials_came(tmp_path):
    path = rollout(tmp_path / "a.json")
    data = json.loads(path.read_text())
    for i, trial in enumerate(data["trials"]):
        trial |= {"reached": i < 3, "lifted": None if i == 3 else True}
    path.write_text(json.dumps(data))
    (row,) = trial_rows([path])
    assert (row.reached, row.lifted) == (3, None)


def test_the_same_trial_counts_once(tmp_path):
    import os

    old, new = rollout(tmp_path / "a.json", successes=0), rollout(tmp_path / "b.json", successes=3)
    os.utime(old, (1, 1))
    os.utime(new, (2, 2))
    (row,) = trial_rows([new, old])
    assert (row.successes, row.num_trials) == (3, 4)


def test_a_missing_field_is_named(tmp_path):
    path = tmp_path / "a.json"
    path.write_text(json.dumps({"policy": "p"}))
    with pytest.raises(DataError, match=r"a\.json: field 'mode' is missing"):
        trial_rows([path])


def test_files_and_folders_each_once(tmp_path):
    first, second = rollout(tmp_path / "a.json"), rollout(tmp_path / "b.json")
    assert find_rollouts([second, tmp_path]) == [second.resolve(), first.resolve()]
    with pytest.raises(DataError, match="no such rollout"):
        find_rollouts([tmp_path / "gone"])
