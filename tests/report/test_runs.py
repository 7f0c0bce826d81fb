import json

import numpy as np
import pytest

from ptr_fast.diagnostics import wilson_interval
from ptr_fast.errors import DataError
from ptr_robot.report.episodes import over_checkpoints
from ptr_robot.report.runs import find_rollouts, read_run, trial_rows
from ptr_robot.report.tried_checkpoints import trial_counts


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
    with pytest.raises(DataError, match=r"metrics\.jsonl, line 2: metrics: expected an object, got \[\]"):
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


DEEP = "[" * 100_000
HUGE = 10**400


@pytest.mark.parametrize(
    ("row", "words"),
    [
        ('{"a": 1.0}', "metrics: missing key 'step'"),
        ('{"step": Infinity}', "metrics.step: expected int, got inf"),
        ('{"step": 1e400}', "metrics.step: expected int, got inf"),
        ('{"step": -1}', "metrics.step: expected 0 to"),
        (f'{{"step": {2**63}}}', "metrics.step: expected 0 to"),
        ('{"step": 1, "time_s": null}', "metrics.time_s: expected float, got None"),
        ('{"step": 1, "time_s": [1]}', r"metrics.time_s: expected float, got \[1\]"),
        ('{"step": 1, "time_s": "x"}', "metrics.time_s: expected float, got 'x'"),
        ('{"step": 1, "time_s": Infinity}', "metrics.time_s: expected a finite number"),
        (f'{{"step": 1, "a": {HUGE}}}', "metrics.a: expected a number that fits into a float"),
    ],
)
def test_a_wrong_number_of_the_metrics_is_named_with_its_line(tmp_path, row, words):
    run = write_metrics(tmp_path / "run", {"step": 0}, row)
    with pytest.raises(DataError, match=rf"metrics\.jsonl, line 2: {words}"):
        read_run(run)


CURVES = {name: [0.0, 1.0] for name in ("q", "q_averaged", "value", "advantage", "returns")}
EPISODE = {"episode_id": "e", "task": "t", "outcome": "success", "num_steps": 2, "curves": {"step": [0, 1], **CURVES}}
DATA = {"store": "s", "is_held_out": True, "num_episodes": 1, "num_steps": 2, "note": ""}
EVALUATION = {"step": 2, "networks": "online", "data": DATA, "value_range": [0.0, 1.0], "metrics": {"score": 0.5}}
EVALUATION |= {"episodes": [EPISODE]}
RANKED = {"step": 2, "value": None, "excluded": None, "metrics": {}}
SELECTION = {"selected": 2, "metric": None, "networks": "online", "data": DATA, "ranking": [RANKED]}
SOURCE = {"role": "prior", "store": "s", "fingerprint": "f", "train": ["e"], "validation": []}
RECORD = {"config": {"learner": {}}, "split": {"mix": 0.5, "sources": [SOURCE]}}
TRIED = {"policy": "p", "checkpoint": "c", "mode": "mean", "task": "t", "kitchen": "E", "plan": {}}
TRIED |= {"trials": [{"seed": 0, "success": True, "num_steps": 9}], "successes": 1, "num_trials": 1}


def changed(data, place, value):
    """A copy with another value at ``place`` (names and numbers with dots between); ``...``: without it."""
    data = json.loads(json.dumps(data))
    *above, last = (int(part) if part.isdecimal() else part for part in place.split("."))
    inner = data
    for part in above:
        inner = inner[part]
    inner[last] = value
    if value is ...:
        del inner[last]
    return data


def test_what_is_changed_below_is_sound(tmp_path):
    (tmp_path / "evaluation").mkdir()
    for name, data in (("evaluation/2", EVALUATION), ("selection", SELECTION), ("train_config", RECORD)):
        (tmp_path / f"{name}.json").write_text(json.dumps(data))
    run = read_run(tmp_path)
    assert (run.evaluations, run.selection, run.config) == ({2: EVALUATION}, SELECTION, RECORD)
    (tmp_path / "a.json").write_text(json.dumps(TRIED))
    assert trial_rows([tmp_path / "a.json"])[0].successes == 1


@pytest.mark.parametrize("cameras", [{}, {"cameras": []}])
def test_a_policy_of_states_alone_has_curves_without_frames(tmp_path, cameras):
    data = {**DATA, "store": str(tmp_path / "gone"), **cameras}
    page = over_checkpoints({2: {**EVALUATION, "data": data}})
    assert "Q along t at 1 checkpoints" in page
    assert "<img" not in page


@pytest.mark.parametrize(
    ("data", "place", "value", "words"),
    [
        (EVALUATION, "step", ..., "evaluation: missing key 'step'"),
        (EVALUATION, "step", "x", "evaluation.step: expected int, got 'x'"),
        (EVALUATION, "value_range", ..., "evaluation: missing key 'value_range'"),
        (EVALUATION, "value_range", [1.0], "evaluation.value_range: expected 2 values, got 1"),
        (EVALUATION, "episodes", ..., "evaluation: missing key 'episodes'"),
        (EVALUATION, "episodes", {}, "evaluation.episodes: expected a list, got {}"),
        (EVALUATION, "episodes.0.curves", 3, r"evaluation.episodes\[0\].curves: expected an object, got 3"),
        (EVALUATION, "episodes.0.curves.q.1", "x", r"evaluation.episodes\[0\].curves.q\[1\]: expected float, got 'x'"),
        (EVALUATION, "episodes.0.curves.value", ..., r"evaluation.episodes\[0\].curves: 'value' is missing"),
        (EVALUATION, "episodes.0.curves.value", [1.0], r"evaluation.episodes\[0\].curves: expected as many values"),
        (EVALUATION, "metrics", None, "evaluation.metrics: expected an object, got None"),
        (EVALUATION, "metrics.score", HUGE, "evaluation.metrics.score: expected a number that fits into a float"),
        (SELECTION, "ranking", 3, "selection.ranking: expected a list, got 3"),
        (SELECTION, "metric", "x", "selection.metric: expected one of ptr-fast select, got 'x'"),
        (SELECTION, "selected", ..., "selection: missing key 'selected'"),
        (RECORD, "config", [3], r"record.config: expected an object, got \[3\]"),
        (RECORD, "split", 3, "record.split: expected an object, got 3"),
        (RECORD, "split", "x", "record.split: expected an object, got 'x'"),
        (RECORD, "split", [3], r"record.split: expected an object, got \[3\]"),
        (RECORD, "split", [{}], r"record.split: expected an object, got \[{}\]"),
        (RECORD, "split.sources", 3, "record.split.sources: expected a list, got 3"),
        (RECORD, "split.sources.0", {}, r"record.split.sources\[0\]: missing key 'role'"),
        (RECORD, "split.sources.0.train", "x", r"record.split.sources\[0\].train: expected a list, got 'x'"),
        (RECORD, "familiarity", {"old": 1.0}, "record.familiarity: missing key 'demonstrations'"),
        (TRIED, "trials", 3, "rollout.trials: expected a list, got 3"),
        (TRIED, "trials", [3], r"rollout.trials\[0\]: expected an object, got 3"),
        (TRIED, "trials", [{}], r"rollout.trials\[0\]: missing key 'success'"),
        (TRIED, "trials.0.num_steps", "x", r"rollout.trials\[0\].num_steps: expected int, got 'x'"),
        (TRIED, "plan", None, "rollout.plan: expected an object, got None"),
        (TRIED, "checkpoint", 3, "rollout.checkpoint: expected str, got 3"),
        (TRIED, "checkpoint", ["c"], "rollout.checkpoint: expected str, got"),
        (TRIED, "successes", None, "rollout.successes: expected int, got None"),
        (TRIED, "successes", -3, "rollout.successes: expected 1, as its trials are, got -3"),
        (TRIED, "successes", 9, "rollout.successes: expected 1, as its trials are, got 9"),
        (TRIED, "num_trials", float("inf"), "rollout.num_trials: expected int, got inf"),
        (TRIED, "num_trials", [5], "rollout.num_trials: expected int, got"),
        (TRIED, "candidates", 4, "rollout.elites: expected a number, as rollout.candidates is there, got none"),
        (TRIED, "candidates", "4", "rollout.candidates: expected int, got '4'"),
        (TRIED, "elites", None, "rollout.elites: expected int, got None"),
        (TRIED, "plan.max_steps", "60", "rollout.plan.max_steps: expected int, got '60'"),
        (TRIED, "steered", "x", "rollout.steered: expected an object, got 'x'"),
        (TRIED, "num_trials", 5, "rollout.num_trials: expected 1, as its trials are, got 5"),
    ],
)
def test_a_wrong_field_is_named_with_its_file(tmp_path, data, place, value, words):
    path, read = file_of(tmp_path, data)
    path.write_text(json.dumps(changed(data, place, value)))
    with pytest.raises(DataError, match=rf"{path.name}: {words}"):
        read()


@pytest.mark.parametrize("data", [EVALUATION, SELECTION, RECORD, TRIED])
def test_what_is_nested_too_deeply_is_named(tmp_path, data):
    path, read = file_of(tmp_path, data)
    path.write_text(DEEP)
    with pytest.raises(DataError, match=rf"{path.name}: not valid JSON \(nested too deeply\)"):
        read()


def file_of(folder, data):
    """Where such data lie, and what reads them."""
    if data is TRIED:
        return folder / "a.json", lambda: trial_rows([folder / "a.json"])
    name = {"ranking": "selection", "split": "train_config"}.get(list(data)[-1], "evaluation/000002")
    (folder / "evaluation").mkdir()
    return folder / f"{name}.json", lambda: read_run(folder)


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


def test_trials_of_another_setting_are_rows_of_their_own(tmp_path):
    """What is told otherwise, played otherwise or proposed by another is no other draw of the same trials."""
    settings = {
        "": {},
        ", ensemble": {"plan": {"play": "ensemble", "ensemble_decay": 0.01}},
        ", ensemble, decay 0": {"plan": {"play": "ensemble", "ensemble_decay": 0.0}},
        ", told 'another task'": {"plan": {"policy_task": "another task"}},
        ', steered by {"by": "/x/clone"}': {"steered": {"by": "/x/clone"}},
        ', steered by {"by": "/y/clone"}': {"steered": {"by": "/y/clone"}},
    }
    files = [rollout(tmp_path / f"{i}.json", successes=i, num=6, **o) for i, o in enumerate(settings.values())]
    assert [(row.policy, row.successes, row.num_trials) for row in trial_rows(files)] == [
        (f"p{name}", i, 6) for i, name in enumerate(settings)
    ]
    assert len(trial_counts(files)) == len(settings)


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
    with pytest.raises(DataError, match=r"a\.json: rollout: missing key 'mode'"):
        trial_rows([path])


def test_files_and_folders_each_once(tmp_path):
    first, second = rollout(tmp_path / "a.json"), rollout(tmp_path / "b.json")
    assert find_rollouts([second, tmp_path]) == [second.resolve(), first.resolve()]
    with pytest.raises(DataError, match="no such rollout"):
        find_rollouts([tmp_path / "gone"])
