"""Checks of how a run acts: by what was tried, and by what its critic knew before the first update."""

import json
import re
import shutil

import pytest
import toy_reach
from findings import found, trials

from benchmarks.familiarity import rows_of
from ptr_fast.checkpoint import read_checkpoint
from ptr_fast.config import ActConfig
from ptr_robot.cli import main as cli


def test_search_that_succeeds_where_the_mean_does_not(rewritten):
    run = rewritten("healthy", lambda _, row: row)
    trials(run, "mean", 1)
    trials(run, "search", 15)
    finding = found(run)["actor_behind"]
    assert "1 of 20 trials succeed by mean, and 15 of 20 by search" in finding.seen
    trials(run, "mean", 12)
    assert "actor_behind" not in found(run)


def test_a_search_that_succeeds_less_often_than_the_clone_that_it_chooses_from(rewritten):
    run = rewritten("healthy_proposals", lambda _, row: row)
    trials(run, "sample", 12)
    trials(run, "search", 2, candidates=32, elites=4)
    finding = found(run)["search_behind"]
    assert (
        "2 of 20 trials succeed by search, mean of the best 4 of 32, and 12 of 20 by the clone's samples (reach)"
        in finding.seen
    )
    assert "--candidates 4 --elites 1" in finding.advice
    trials(run, "search", 14, candidates=4, elites=1)  # another way to search, on the same starts
    assert "search_behind" not in found(run)
    trials(run, "search", 3, candidates=4, elites=1)
    assert "--mode sample" in found(run)["search_behind"].advice
    assert "--candidates" not in found(run)["search_behind"].advice, "that is what was tried"
    for name, max_steps in (("search-4-1", 20), ("sample", 60)):
        file = run / "rollouts" / f"{name}.json"
        file.write_text(json.dumps(json.loads(file.read_text()) | {"plan": {"start": "easy", "max_steps": max_steps}}))
    (run / "rollouts" / "search-32-4.json").unlink()
    assert "search_behind" not in found(run), "trials of 20 decisions beside trials of 60"


def test_a_search_is_compared_with_samples_that_were_tried_alike(rewritten):
    run = rewritten("healthy_proposals", lambda _, row: row)
    trials(run, "sample", 14, step=600)
    trials(run, "search", 2, step=0, candidates=32, elites=4)
    assert "search_behind" not in found(run), "another checkpoint"
    trials(run, "search", 2, step=600, candidates=32, elites=4, plan={"frame_delay": 5})
    assert "search_behind" not in found(run), "late frames"
    trials(run, "search", 4, step=600, candidates=32, elites=4)
    assert "--candidates 4" in found(run)["search_behind"].advice
    assert "(reach, step 600)" in found(run)["search_behind"].seen
    trials(run, "search", 2, step=600, candidates=4, elites=1)
    assert "--candidates" not in found(run)["search_behind"].advice, "few were tried too, and were worse"
    trials(run, "search", 1, step=600, candidates=8, elites=1)
    file = run / "rollouts" / "search-600-8-1.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | {"trials": [{"seed": 0, "success": True}]}))
    assert "search_behind" in found(run), "a single trial hides nothing"


def test_a_search_among_many_proposals_by_a_critic_that_does_not_know_the_task(trained, table, tmp_path, capsys):
    toy_reach.write(table / "away", toy_reach.away(8, seed=9))

    def finetuned(name, target, *options, checkpoint=None):
        words = ["--target", table / target, "--mix", "0.5", "--num-steps", "5", "--num-demos", "5", *options]
        words += ["--checkpoint", checkpoint or trained("healthy_proposals"), "--out", tmp_path / "runs" / name]
        assert cli([str(word) for word in ["finetune", *words]]) == 0
        return tmp_path / "runs" / name, capsys.readouterr().out

    run, told = finetuned("same", "away", "--act-mode", "same")
    assert re.search(
        r"along 8 demonstrations Q climbs with a rank correlation of -0\.\d\d, along 7 old episodes of 0\.9\d: ", told
    )
    assert "the critic does not know the task, and among 32 proposals a search finds those where it errs" in told
    assert "rollout --candidates 4 --elites 1 takes the best of 4" in told
    assert read_checkpoint(run).act == read_checkpoint(trained("healthy_proposals")).act
    finding = found(run)["unknown_task"]
    assert finding.level == "warning"
    assert "before the first update, along 8 demonstrations Q climbs with a rank correlation of -0." in finding.seen
    assert "--candidates 4 --elites 1" in finding.advice
    known = json.loads((run / "train_config.json").read_text())["familiarity"]
    start = ["--checkpoint", str(run / "checkpoints" / "000000"), "--store", str(table / "away")]
    assert cli(["evaluate", *start, "--out", str(tmp_path / "evaluation.json")]) == 0
    evaluation = json.loads((tmp_path / "evaluation.json").read_text())
    assert evaluation["data"]["num_episodes"] == 3  # those that were not trained on
    assert evaluation["metrics"]["rank_correlation_averaged"] == pytest.approx(known["demonstrations"], abs=0.1)
    assert known["demonstrations"] < 0.0 < 0.9 < known["old"]

    capsys.readouterr()
    run, told = finetuned("auto", "away")
    assert (
        "does not know the task; the new checkpoints act by the best of 4 proposals (--act-mode same keeps 32)" in told
    )
    assert read_checkpoint(run).act == ActConfig(mode="search", num_candidates=4, num_elites=1)
    assert "unknown_task" not in found(run)
    assert cli(["select", "--run", str(run)]) == 0
    told = capsys.readouterr().out
    assert "the newest counts: the critic had this task from the demonstrations alone" in told
    assert "picked step 5" in told

    again, told = finetuned("again", "away", checkpoint=run)
    assert (
        "before the first update on this task, along 8 demonstrations Q climbs with a rank correlation of -0." in told
    )
    assert read_checkpoint(again).act == read_checkpoint(run).act
    assert json.loads((again / "train_config.json").read_text())["familiarity"] == known
    shutil.rmtree(again)

    run, told = finetuned("told", "away", "--act-candidates", "8")
    assert "among 8 proposals a search finds those where it errs" in told
    assert read_checkpoint(run).act == ActConfig(mode="search", num_candidates=8, num_elites=4)

    run, told = finetuned("known", "few")
    assert "along 10 demonstrations Q climbs" in told
    assert "the critic knows the task\n" in told
    assert read_checkpoint(run).act == read_checkpoint(trained("healthy_proposals")).act
    assert "unknown_task" not in found(run)

    unripe = toy_reach.train(table / "people", tmp_path / "unripe", 2, recipe="smoke-proposals")
    run, told = finetuned("unripe", "away", checkpoint=unripe)
    assert "too little to tell whether the critic knows the task\n" in told
    assert read_checkpoint(run).act == read_checkpoint(unripe).act
    shutil.rmtree(run)

    away, few = rows_of(tmp_path)  # one row for the two runs that begin alike
    assert (away["case"], few["case"]) == (f"{tmp_path.name}, go away, seed 0", f"{tmp_path.name}, reach, seed 0")
    assert away["demonstrations"] == pytest.approx(known["demonstrations"], abs=1e-3)
    assert few["lower by"] < 0.07 < away["lower by"]


def test_fine_tuning_that_has_nothing_to_choose_acts_as_its_checkpoint(trained, table, tmp_path, capsys):
    for name, options in (("healthy_proposals", ["--mix", "0"]), ("healthy", ["--mix", "0.5"])):
        start = ["--checkpoint", str(trained(name)), "--target", str(table / "few"), "--num-demos", "5", *options]
        assert cli(["finetune", *start, "--num-steps", "5", "--out", str(tmp_path / name)]) == 0
        told = capsys.readouterr().out
        assert "the new checkpoints act" not in told
        asks = name == "healthy_proposals"
        assert ("critic: no demonstration that succeeds, or no old episode, to ask it about" in told) == asks
        assert read_checkpoint(tmp_path / name).act == read_checkpoint(trained(name)).act


def test_a_policy_that_searches_by_itself_need_not_succeed_by_its_mean(rewritten):
    run = rewritten("healthy_proposals", lambda _, row: row)
    trials(run, "mean", 0)
    trials(run, "search", 15, candidates=32, elites=4)
    assert "actor_behind" not in found(run)
