import json
import shutil

import numpy as np
import pytest
from valued_run import BC, make_run

from ptr_fast.checkpoint import list_checkpoints, read_checkpoint
from ptr_fast.errors import DataError
from ptr_robot.cli import main as cli
from ptr_robot.evaluation.held_out import held_out, spread
from ptr_robot.evaluation.metrics import METRICS, SCHEMA_VERSION, evaluate_checkpoint, evaluation_path, saved_evaluation
from ptr_robot.training.store_places import StorePlaces


def test_writes_all_metrics_and_bounded_curves(run, store, capsys):
    assert cli(["evaluate", "--checkpoint", str(run)]) == 0
    printed = capsys.readouterr().out
    assert "4 held-out episodes" in printed
    assert "No offline metric guarantees success" in printed
    result = json.loads((run / "evaluation" / "000006.json").read_text())
    assert result["step"] == 6
    assert set(result["metrics"]) <= set(METRICS) | {"q_min", "q_max"}
    assert all(np.isfinite(v) for k, v in result["metrics"].items())  # the failed episode makes the AUC known too
    assert result["value_range"] == pytest.approx([-25.0, 10.0])
    assert result["data"]["is_held_out"]
    assert [e["episode_id"] for e in result["episodes"]] == store.episodes.episode_id[:4]
    for episode in result["episodes"]:
        assert set(episode["curves"]) >= {"step", "q", "q_averaged", "advantage", "returns", "td_target", "rewards"}
        assert {len(curve) for curve in episode["curves"].values()} == {episode["num_steps"]}
    assert result["episodes"][2]["curves"]["returns"] == [None] * result["episodes"][2]["num_steps"]


def test_json_output_is_the_file(run, tmp_path, capsys):
    out = tmp_path / "deep" / "e.json"
    args = ["evaluate", "--checkpoint", str(run / "checkpoints" / "000002"), "--out", str(out), "--json"]
    assert cli(args) == 0
    assert json.loads(capsys.readouterr().out) == json.loads(out.read_text())
    assert json.loads(out.read_text())["step"] == 2


def test_same_inputs_same_numbers_and_key(run):
    info = read_checkpoint(run)
    data = held_out(info)
    first, second = (evaluate_checkpoint(info, data) for _ in range(2))
    first["seconds"] = second["seconds"] = 0
    assert first == second
    assert evaluate_checkpoint(info, data, seed=1)["key"] != first["key"]
    assert evaluate_checkpoint(info, held_out(info, max_episodes=2))["key"] != first["key"]


def test_training_episodes_are_named_as_such(folder, store, capsys):
    run = make_run(folder / "none-held-out", store, validation=(), steps=(2,))
    assert cli(["evaluate", "--checkpoint", str(run)]) == 0
    printed = " ".join(capsys.readouterr().out.split())
    assert "3 TRAINING episodes" in printed
    assert "these are TRAINING episodes, the numbers flatter the checkpoint" in printed
    result = saved_evaluation(evaluation_path(run / "checkpoints" / "000002"))
    assert not result["data"]["is_held_out"]
    assert "TRAINING" in result["data"]["note"]


def test_a_given_store_leaves_training_episodes_out(run, store):
    data = held_out(read_checkpoint(run), places=StorePlaces(given=store.path))
    assert data.episodes.tolist() == [0, 1, 2, 3]
    assert data.is_held_out
    assert data.note == ("3 of 7 episodes were trained on (3 by this run): they are no held-out data and are left out")


def test_a_fine_tuned_run_is_judged_on_its_target(run, store):
    info = read_checkpoint(run)
    (prior,) = info.run["split"]["sources"]
    ids = store.episodes.episode_id
    prior = prior | {"train": ids[2:4]}
    info.run["split"]["sources"] = [prior, prior | {"role": "target", "train": ids[:1], "validation": ids[5:]}]
    data = held_out(info)
    assert (data.role, data.episodes.tolist()) == ("target", [5, 6])


def test_task_and_choice(run, store):
    info = read_checkpoint(run)
    task = store.episodes.task[0]
    assert held_out(info, task=task).episodes.tolist() == [0, 3]
    with pytest.raises(ValueError, match="no episode of task 'fly'"):
        held_out(info, task="fly")


def test_a_choice_is_spread_over_tasks_and_outcomes(store):
    chosen = spread(store, np.arange(7), 4, seed=0)
    groups = {(store.episodes.task[e], store.episodes.outcome[e]) for e in chosen}
    assert len(groups) == 4  # three tasks, and the one that failed
    assert chosen.tolist() == spread(store, np.arange(7)[::-1], 4, seed=0).tolist()
    assert spread(store, np.arange(7), 0, seed=0).tolist() == list(range(7))


def test_a_cloned_policy_says_that_it_has_no_q(folder, store, capsys):
    run = make_run(folder / "bc", store, config=BC, steps=(2,))
    assert cli(["evaluate", "--checkpoint", str(run)]) == 0
    assert "there is no Q" in " ".join(capsys.readouterr().out.split())
    result = saved_evaluation(evaluation_path(list_checkpoints(run)[0]))
    assert set(result["metrics"]) == {"action_error", "log_prob", "at_bounds", "recorded_at_bounds"}
    assert result["value_range"] is None


def test_averaged_networks_are_scored_where_they_act(folder, store):
    run = make_run(folder / "search", store, steps=(2,), mode="search")
    info = read_checkpoint(run)
    result = evaluate_checkpoint(info, held_out(info))
    metrics = result["metrics"]
    rise, order = metrics["late_rise_averaged"], metrics["rank_correlation_averaged"]
    assert result["networks"] == "averaged"
    assert metrics["score"] == pytest.approx((order + rise / (2 + abs(rise)) + 2 * metrics["preference"] - 1) / 3)


def test_refusals_name_the_place(run, store, folder, capsys):
    moved = folder / "moved"
    shutil.copytree(run, moved)
    info = read_checkpoint(moved)
    info.run["split"]["sources"][0]["store"] = "gone"
    with pytest.raises(DataError, match=r"gone: not a store .* --store gone=NEW"):
        held_out(info)
    info.run["split"]["sources"][0]["store"] = str(store.path)
    info.run["split"]["sources"][0]["validation"] = ["nobody"]
    with pytest.raises(DataError, match=r"1 of 1 episodes that the record of the run names are gone: 'nobody'"):
        held_out(info)
    info.run.pop("split")
    (moved / "split.json").unlink()
    with pytest.raises(DataError, match=r"no split\.json"):
        held_out(info)
    with pytest.raises(SystemExit):
        cli(["evaluate", "--checkpoint", str(run), "--max-episodes", "-1"])
    assert "max_episodes must not be negative" in "".join(capsys.readouterr())


def test_an_old_or_broken_file_is_not_taken_for_an_evaluation(tmp_path):
    path = tmp_path / "e.json"
    assert saved_evaluation(path) is None
    path.write_text(json.dumps({"schema_version": SCHEMA_VERSION + 1}))
    assert saved_evaluation(path) is None
    path.write_text("{")
    with pytest.raises(DataError, match="not valid JSON"):
        saved_evaluation(path)
