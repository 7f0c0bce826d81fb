import json
import re
import shutil
from dataclasses import replace

import pytest
from valued_run import BC, make_run

import ptr_robot.evaluation.ranking as select_module
from ptr_fast import diagnostics
from ptr_fast.checkpoint import read_checkpoint
from ptr_fast.errors import DataError
from ptr_fast.learners.registry import traits_of
from ptr_robot.cli import main as cli
from ptr_robot.evaluation.held_out import held_out
from ptr_robot.evaluation.metrics import evaluate_checkpoint
from ptr_robot.evaluation.ranking import rank
from ptr_robot.recipes import recipe_named
from ptr_robot.training.familiarity import Familiarity, familiarity_in, ranking_of


def evaluation(step, *, diverged=None, **metrics):
    ranking = "score" if "score" in metrics else None
    return {
        "step": step, "checkpoint": f"{step:06d}", "ranking": ranking, "diverged": diverged, "metrics": metrics
    }  # fmt: skip


def order(selection):
    return [entry["step"] for entry in selection["ranking"]]


def test_the_highest_score_wins():
    got = rank([evaluation(s, score=v, bellman_error=1.0) for s, v in ((1, 0.2), (2, 0.6), (3, 0.4))])
    assert (got["selected"], got["metric"], order(got)) == (2, "score", [2, 3, 1])
    assert [entry["rank"] for entry in got["ranking"]] == [1, 2, 3]


def test_the_lowest_error_wins():
    evaluations = [evaluation(s, score=v, bellman_error=1 / v) for s, v in ((1, 0.2), (2, 0.6), (3, 0.4))]
    assert order(rank(evaluations, "bellman_error")) == [2, 3, 1]


def test_ties_go_to_the_smaller_bellman_error_and_then_to_the_later_step():
    evaluations = [
        evaluation(1, score=0.50001, bellman_error=2.0),
        evaluation(2, score=0.5, bellman_error=1.0),
        evaluation(3, score=0.49999, bellman_error=1.0),
        evaluation(4, score=0.49999, bellman_error=None),
    ]
    assert order(rank(evaluations)) == [3, 2, 1, 4]


def test_diverged_and_unknown_are_listed_last_and_never_picked():
    evaluations = [
        evaluation(1, score=None, bellman_error=1.0),
        evaluation(2, score=0.99, bellman_error=1.0, diverged="Q outside [-33, 18] at 40 % of the steps"),
        evaluation(3, score=-0.5, bellman_error=1.0),
    ]
    got = rank(evaluations)
    assert (got["selected"], order(got)) == (3, [3, 2, 1])
    assert got["ranking"][1]["excluded"].startswith("diverged: Q outside")
    assert got["ranking"][1]["rank"] is None
    assert "could not be computed" in got["ranking"][2]["excluded"]
    assert rank(evaluations[:2])["selected"] is None


def test_a_doubted_critic_is_picked_only_where_there_is_no_other():
    doubted = evaluation(1, score=0.9, bellman_error=1.0) | {
        "misestimated": "Q is overestimated: on average 14.6 above"
    }
    sound, diverged = evaluation(2, score=0.1, bellman_error=9.0), evaluation(3, score=0.95, diverged="Q is not finite")
    got = rank([doubted, sound, diverged], "score")
    assert (got["selected"], order(got)) == (2, [2, 1, 3])
    assert (got["ranking"][1]["rank"], got["ranking"][1]["doubt"]) == (2, doubted["misestimated"])
    assert rank([doubted, diverged], "score")["selected"] == 1


def test_of_clones_the_newest_that_did_not_diverge_is_picked_unless_a_metric_is_named():
    evaluations = [evaluation(s, action_error=v, log_prob=0.0) for s, v in ((1, 0.1), (3, 0.3), (2, 0.2))]
    got = rank(evaluations)
    assert (got["selected"], got["metric"], got["better"], order(got)) == (3, None, None, [3, 2, 1])
    assert [entry["value"] for entry in got["ranking"]] == [None] * 3
    evaluations[1]["diverged"] = "the action is not finite"
    assert (rank(evaluations)["selected"], order(rank(evaluations))) == (2, [2, 1, 3])
    got = rank(evaluations, "action_error")
    assert (got["selected"], got["metric"], got["better"]) == (1, "action_error", "low")
    with pytest.raises(ValueError, match=r"metric 'score' is not there .* a policy without a critic has no Q"):
        rank(evaluations, "score")
    with pytest.raises(ValueError, match="at least one"):
        rank([])


def test_the_newest_counts_where_the_critic_did_not_know_the_task():
    evaluations = [evaluation(s, score=v, bellman_error=1 / v) for s, v in ((1, 0.6), (2, 0.5), (3, 0.4))]
    got = rank([{**each, "ranking": None} for each in evaluations])
    assert (got["selected"], got["metric"], order(got)) == (3, None, [3, 2, 1])
    assert rank(evaluations)["selected"] == 1

    traits = traits_of(recipe_named("smoke-proposals").learner)
    told = Familiarity(demonstrations=0.8, old=0.95, num_demonstrations=10, num_old=9)
    assert ranking_of(traits, told) is None
    assert ranking_of(traits_of(recipe_named("smoke-cql").learner), told) == "score"
    for known in (None, replace(told, demonstrations=0.9), replace(told, old=0.79, demonstrations=0.1)):
        assert ranking_of(traits, known) == "score"


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"old": float("nan")}, r"expected rank correlations in \[-1, 1\], got 0.8 and nan"),
        ({"demonstrations": 2.0}, r"expected rank correlations in \[-1, 1\], got 2.0 and 0.95"),
        ({"num_old": 0}, "expected episodes, got 10 and 0"),
        ({"old": "0.9"}, "familiarity.old: expected float, got '0.9'"),
        ({"new": 1}, "familiarity"),
    ],
)
def test_a_damaged_familiarity_is_refused(values, message):
    whole = {"demonstrations": 0.8, "old": 0.95, "num_demonstrations": 10, "num_old": 9}
    assert familiarity_in({"familiarity": whole}) == Familiarity(**whole)
    assert familiarity_in({"familiarity": None}) is familiarity_in({}) is None
    with pytest.raises(ValueError, match=message):
        familiarity_in({"familiarity": whole | values})


def test_a_checkpoint_whose_record_is_damaged_is_named(run):
    info = read_checkpoint(run)
    damaged = replace(info, run={**info.run, "familiarity": {"old": 1.0}})
    with pytest.raises(
        DataError, match=f"^{re.escape(str(info.path))}: the record of its run: familiarity: missing key"
    ):
        evaluate_checkpoint(damaged, held_out(info))


def test_the_verb_writes_a_selection_and_says_what_it_is_worth(run, capsys):
    assert cli(["select", "--run", str(run)]) == 0
    printed = capsys.readouterr().out
    assert "No offline metric guarantees success on a robot" in printed
    assert "ranked by selection score" in printed
    selection = json.loads((run / "selection.json").read_text())
    assert sorted(order(selection)) == [2, 4, 6]
    assert f"picked step {selection['selected']}" in printed
    values = [entry["value"] for entry in selection["ranking"]]
    assert values == sorted(values, reverse=True)
    assert all("bellman_error" in entry["metrics"] for entry in selection["ranking"])


def test_only_what_changed_is_evaluated_again(run, monkeypatch):
    cli(["select", "--run", str(run)])
    asked = []
    original = select_module.evaluate_checkpoint
    monkeypatch.setattr(
        select_module, "evaluate_checkpoint", lambda info, *a, **k: asked.append(info.step) or original(info, *a, **k)
    )
    assert cli(["select", "--run", str(run), "--json"]) == 0
    assert asked == []
    (run / "evaluation" / "000004.json").unlink()
    cli(["select", "--run", str(run)])
    assert asked == [4]
    cli(["select", "--run", str(run), "--max-episodes", "2"])  # other data, other numbers
    assert asked == [4, 2, 4, 6]


def test_one_checkpoint_is_no_choice(folder, store, capsys):
    assert cli(["select", "--run", str(make_run(folder / "one", store, steps=(2,)))]) == 0
    assert "the only checkpoint, so this is no choice" in capsys.readouterr().out


def test_no_checkpoint(folder, capsys):
    (folder / "empty").mkdir()
    assert cli(["select", "--run", str(folder / "empty")]) == 2
    assert "no checkpoint here" in capsys.readouterr().err


def test_cloned_run(folder, store, capsys):
    run = make_run(folder / "bc", store, config=BC)
    assert cli(["select", "--run", str(run)]) == 0
    printed = capsys.readouterr().out
    assert "the newest counts: no metric on held-out episodes" in printed
    assert "there is no Q" in printed
    assert "picked step 6" in printed
    assert cli(["report", "--run", str(run), "--out", str(folder / "bc.html")]) == 0
    assert "picked checkpoint (the newest)" in (folder / "bc.html").read_text()
    assert cli(["select", "--run", str(run), "--metric", "action_error"]) == 0
    assert "ranked by action error (low is better)" in capsys.readouterr().out
    assert cli(["select", "--run", str(run), "--metric", "late_rise"]) == 2
    assert "a policy without a critic has no Q" in capsys.readouterr().err


def test_nothing_left_to_pick_is_an_error_for_scripts(folder, run, capsys, monkeypatch):
    broken = folder / "broken"
    shutil.copytree(run, broken)
    shutil.rmtree(broken / "evaluation", ignore_errors=True)
    original = select_module.evaluate_checkpoint
    monkeypatch.setattr(
        select_module, "evaluate_checkpoint", lambda *a, **k: original(*a, **k) | {"diverged": "Q is not finite"}
    )
    assert cli(["select", "--run", str(broken)]) == 1
    assert "no checkpoint can be picked" in capsys.readouterr().out
    assert json.loads((broken / "selection.json").read_text())["selected"] is None


def test_a_doubted_critic_is_told_by_evaluate_and_select_and_report(folder, run, capsys, monkeypatch):
    """An untrained critic, and a bound that none keeps."""
    doubted = folder / "doubted"
    shutil.copytree(run, doubted)
    shutil.rmtree(doubted / "evaluation", ignore_errors=True)
    monkeypatch.setattr(diagnostics, "MAX_BIAS", 1e-6)
    assert cli(["evaluate", "--checkpoint", str(doubted / "checkpoints" / "000004")]) == 0
    told = re.compile(r"Q is (over|under)estimated: on average \S+ (above|below) the recorded returns")
    assert told.search(capsys.readouterr().out)
    assert told.search(json.loads((doubted / "evaluation" / "000004.json").read_text())["misestimated"])
    assert cli(["select", "--run", str(doubted)]) == 0
    printed = capsys.readouterr().out
    assert "step 4 is doubted: Q is " in printed
    assert "(doubted, as is every one that is not out): " in printed
    assert cli(["report", "--run", str(doubted), "--out", str(folder / "page.html")]) == 0
    assert told.search((folder / "page.html").read_text())
