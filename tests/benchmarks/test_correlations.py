"""Rows of how well offline metrics tell success: critics by their search, clones by themselves."""

import json

from benchmarks.correlations import groups_of, picked
from ptr_robot.evaluation.metric_correlation import TriedCheckpoint


def test_critics_count_by_their_search_and_clones_by_their_own_way(tmp_path):
    (tmp_path / "trials").mkdir()
    for run, mode, metrics in (
        ("critic", "search", {"score": 0.5, "action_error": 0.1}),
        ("critic", "mean", {"score": 0.5, "action_error": 0.1}),
        ("clone", "sample", {"action_error": 0.2}),
        ("clone", "mean", {"action_error": 0.2}),
    ):
        evaluation = tmp_path / run / "evaluation"
        evaluation.mkdir(parents=True, exist_ok=True)
        (evaluation / "000100.json").write_text(json.dumps({"metrics": metrics}))
        trials = [{"success": i < 3, "num_steps": 9} for i in range(4)]
        result = {"checkpoint": str(tmp_path / run / "checkpoints" / "000100"), "mode": mode, "task": "t"}
        result |= {
            "successes": 3,
            "num_trials": 4,
            "trials": trials,
            "plan": {"seed": 0, "start": "easy", "max_steps": 60},
            "policy": run,
            **({"candidates": 4, "elites": 1} if mode == "search" else {}),
            "kitchen": "H",
        }
        (tmp_path / "trials" / f"{run}-{mode}.json").write_text(json.dumps(result))
    groups = groups_of(tmp_path / "trials")
    told = {
        name: [(step, each.way[:6], each.rate, "score" in each.metrics) for step, each in tried]
        for name, tried in groups.items()
    }
    assert told == {
        "critics by search": [(100, "search", 0.75, True)],
        "clones": [(100, "mean, ", 0.75, False), (100, "sample", 0.75, False)],
    }


def test_what_each_rule_picks_and_the_newest_where_a_run_lacks_the_metric():
    def tried(step, run, successes, way="mean", **metrics):
        return step, TriedCheckpoint(run=run, way=way, metrics=metrics, successes=successes, num_trials=10)

    group = [
        tried(200, "a", 3, action_error=0.5, fqe_value=1.0),
        tried(100, "a", 7, action_error=0.1, fqe_value=0.0),
        tried(100, "b", 1, action_error=0.2, fqe_value=None),
        tried(300, "b", 5, action_error=0.3, fqe_value=2.0),
        tried(100, "alone", 9, action_error=0.3),
        tried(200, "alone", 2, way="sample", action_error=0.3),  # one checkpoint each way: nothing to pick
    ]
    assert picked(group) == {
        "runs": 2, "trials": 20, "newest": 8, "action error": 8, "fitted value": 8, "best": 12,
    }  # fmt: skip
