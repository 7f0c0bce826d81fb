"""A run folder means one checkpoint, whoever is given it: what select picked, else the newest that did not diverge."""

import json
import shutil
from types import SimpleNamespace

import pytest
from kitchen_policy import save_policy
from valued_run import make_run, make_store

from ptr_fast.checkpoint import read_checkpoint
from ptr_fast.errors import DataError
from ptr_fast.run_folder import choose_checkpoint, list_checkpoints, weights_of
from ptr_fast.runtime.policy import Policy
from ptr_robot.cli import main as cli
from ptr_robot.training.loop import _prune
from ptr_robot.verbs import serve

SEEN = "the newest of 3 checkpoints"


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    folder = tmp_path_factory.mktemp("runs")
    return make_run(folder / "made", make_store(folder / "store"))


@pytest.fixture
def run(made, tmp_path):
    """Three checkpoints (2, 4, 6) that nobody looked at."""
    return shutil.copytree(made, tmp_path / "run", symlinks=True)


@pytest.fixture(scope="module")
def kitchen_run_made(tmp_path_factory):
    run = tmp_path_factory.mktemp("kitchen") / "run"
    for step in (2, 4, 6):
        save_policy(run, step, {}, seed=step)
    return run


@pytest.fixture
def kitchen_run(kitchen_run_made, tmp_path):
    return shutil.copytree(kitchen_run_made, tmp_path / "kitchen", symlinks=True)


def selected(run, step, excluded=(), seen=(2, 4, 6)):
    ranking = [
        {
            "step": s,
            "value": None,
            "metrics": {},
            "excluded": "diverged: Q outside" if s in excluded else None,
            "weights": weights_of(run / "checkpoints" / f"{s:06d}"),
        }
        for s in seen
    ]
    data = {"store": "store", "num_episodes": 1, "num_steps": 9, "is_held_out": True, "note": ""}
    about = {"metric": "score", "networks": "online", "data": data}
    (run / "selection.json").write_text(json.dumps({"selected": step, "ranking": ranking, **about}))
    return run


def evaluated(run, step, diverged):
    (run / "evaluation").mkdir(exist_ok=True)
    (run / "evaluation" / f"{step:06d}.json").write_text(json.dumps({"step": step, "diverged": diverged}))


def reported(run, *rows):
    (run / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))


def told(path):
    choice = choose_checkpoint(path)
    return choice.step, choice.why, choice.unfit


def test_what_select_picked_is_meant_by_all_and_training_goes_on(run):
    assert told(selected(run, 2)) == (2, "picked by ptr-fast select", "")
    selected(run, 2, seen=(2, 4))
    assert told(run)[1] == "picked by ptr-fast select, which did not see the 1 newer"
    assert read_checkpoint(run).step == Policy.load(run).info.step == 2


def test_unselected_it_is_the_newest_that_the_divergence_check_passes(run):
    assert told(run) == (6, f"{SEEN}; nothing here says whether it diverged", "")
    reported(run, {"step": 3, "q/data": -2.0}, {"step": 5, "q/data": -40.0})
    step, why, unfit = told(run)
    assert (step, unfit) == (4, "")
    diverged = "mean Q of recorded actions -40 is outside [-25, 10] by more than 8.75"
    assert f"(step 6 diverged (training reported at step 5: {diverged}))" in why
    assert why.endswith("what training reported at step 3 passes the divergence check")
    reported(run, {"step": 3, "q/data": -2.0}, {"step": 5, "q/data": -2.0, "actor/loss": float("nan")})
    assert told(run)[0] == 4
    evaluated(run, 6, None)  # a closer look than training's
    assert told(run) == (6, f"{SEEN}; its evaluation passes the divergence check", "")
    evaluated(run, 6, "Q outside")
    evaluated(run, 4, "Q outside")
    assert told(run)[0] == 2


def test_the_only_ones_there_are_diverged(run):
    for step in (2, 4, 6):
        evaluated(run, step, "Q is not finite")
    assert told(run) == (6, SEEN, "diverged (Q is not finite)")
    shutil.rmtree(run / "evaluation")
    assert told(selected(run, None, excluded=(2, 4, 6)))[2].startswith("was excluded by ptr-fast select (diverged")
    selected(run, None, excluded=(2, 4), seen=(2, 4))  # trained on since
    assert told(run)[::2] == (6, "")


def test_a_named_one_is_named_and_last_is_not(run):
    selected(run, 2, excluded=(6,))
    for path in (run / "checkpoints" / "000006", run / "checkpoints" / "000006" / "pretrained_model"):
        choice = choose_checkpoint(path)
        assert (choice.step, choice.is_named) == (6, True)
        assert "excluded by ptr-fast select" in choice.unfit
    (run / "checkpoints" / "last").unlink(missing_ok=True)
    (run / "checkpoints" / "last").symlink_to("000006")
    assert not choose_checkpoint(run / "checkpoints" / "last").is_named
    shutil.copytree(run / "checkpoints" / "000006", run / "diverged" / "000007")
    assert choose_checkpoint(run / "diverged" / "000007").unfit == "was saved by the divergence alarm"


@pytest.mark.parametrize(
    ("selection", "message"),
    [
        ("{", "selection.json: not a selection"),
        ("[1]", "selection.json: not a selection"),
        ('{"selected": 7}', "the selected checkpoint 7 is not in the run; run ptr-fast select again"),
        ('{"selected": 4, "ranking": [{"step": 4, "excluded": null, "weights": "x"}]}', "step 4 has other weights now"),
    ],
)
def test_a_selection_that_is_broken_or_of_another_checkpoint_is_an_error(run, selection, message):
    (run / "selection.json").write_text(selection)
    with pytest.raises(DataError, match=message):
        choose_checkpoint(run)
    named = run / "checkpoints" / "000002"
    assert choose_checkpoint(named).step == read_checkpoint(named).step == 2


def test_verbs_on_a_run_take_the_picked_one_and_say_so(run, made, tmp_path, capfd):
    pytest.importorskip("onnx")
    import onnx

    selected(run, 2, excluded=(6,))
    line = f"{run} is step 2: picked by ptr-fast select"
    assert cli(["act", "--checkpoint", str(run), "--every", "10", "--json"]) == 0
    assert line in capfd.readouterr().err
    assert cli(["evaluate", "--checkpoint", str(run), "--json"]) == 0
    printed = capfd.readouterr()
    assert line in printed.err
    assert json.loads(printed.out)["step"] == 2
    out = tmp_path / "policy.onnx"
    assert cli(["export", "--checkpoint", str(run), "--out", str(out), "--num-frames", "2"]) == 0
    assert line in capfd.readouterr().err
    assert {p.key: p.value for p in onnx.load(out).metadata_props}["ptr_fast.step"] == "2"
    assert cli(["report", "--run", str(run)]) == 0
    assert "step 2: picked by ptr-fast select" in (run / "report.html").read_text()
    assert serve.metadata_of(Policy.load(run))["step"] == 2


def test_training_on_keeps_the_picked_one(run):
    selected(run, 2)
    _prune(SimpleNamespace(out=run, loop=SimpleNamespace(keep_last=1, keep_best=0)), lambda *_: [])
    assert [path.name for path in list_checkpoints(run)] == ["000002", "000006"]
    (run / "selection.json").write_text("{")
    _prune(SimpleNamespace(out=run, loop=SimpleNamespace(keep_last=1, keep_best=0)), lambda *_: [])
    assert [path.name for path in list_checkpoints(run)] == ["000002", "000006"], "nobody knows which one is picked"


def test_a_fine_tune_begins_at_the_picked_one(run, tmp_path, capfd):
    selected(run, 4, excluded=(6,))
    store, out = json.loads((run / "split.json").read_text())["sources"][0]["store"], tmp_path / "fine"
    command = ["finetune", "--checkpoint", str(run), "--target", store, "--task", "turn lever", "--num-demos", "1"]
    command += ["--mix", "0", "--num-steps", "1", "--batch-size", "2", "--keep-best", "0", "--out", str(out)]
    assert cli(command) == 0, capfd.readouterr().err
    assert "is step 4: picked by ptr-fast select" in capfd.readouterr().out
    record = json.loads((out / "train_config.json").read_text())
    assert (record["parent"]["step"], record["parent"]["checkpoint"]) == (4, str(run / "checkpoints" / "000004"))


def test_nothing_that_diverged_is_served(run):
    selected(run, None, excluded=(2, 4, 6))
    with pytest.raises(DataError, match=r"no checkpoint here is fit to move an arm.*name it by its step: .*000006"):
        serve.main(serve.Args(checkpoint=run, port=0))


def test_a_rollout_in_a_kitchen_takes_the_picked_one_by_either_name(kitchen_run, capfd):
    common = ["rollout", "--trials", "1", "--max-steps", "2", "--workers", "1"]
    for option, step in (("--run", 2), ("--checkpoint", 4)):
        selected(kitchen_run, step, excluded=(6,))
        assert cli([*common, option, str(kitchen_run)]) == 0
        assert f"is step {step}: picked by ptr-fast select" in capfd.readouterr().err
    results = [json.loads(file.read_text()) for file in sorted((kitchen_run / "rollouts").glob("*.json"))]
    assert [result["step"] for result in results] == [2, 4]
    assert cli(["report", "--run", str(kitchen_run)]) == 0
    page = (kitchen_run / "report.html").read_text()
    assert "kitchen, step 2" in page
    assert "kitchen, step 4" in page


def on_an_arm(run, out, *more):
    options = ["--trials", "1", "--max-steps", "2", "--engine", "eager", "--robot-options", "image_size=32"]
    return cli(["rollout", "--robot", "simulated", "--checkpoint", str(run), "--out", str(out), *options, *more])


def test_an_arm_is_moved_by_the_picked_one_and_the_page_says_which(kitchen_run, tmp_path, capfd):
    selected(kitchen_run, 2, excluded=(6,))
    named = kitchen_run / "checkpoints" / "000004"
    assert on_an_arm(kitchen_run, tmp_path / "out", "--against", str(named)) == 0, capfd.readouterr().err
    plan = json.loads((tmp_path / "out" / "plan.json").read_text())
    assert [policy["step"] for policy in plan["about"]["policies"]] == [2, 4]
    assert [p["step"] for p in json.loads((tmp_path / "out" / "result.json").read_text())["policies"].values()] == [
        2,
        4,
    ]
    page = (tmp_path / "out" / "report.html").read_text()
    assert "<td>kitchen</td><td>2</td>" in page
    assert "<td>kitchen/000004</td><td>4</td>" in page


def test_an_arm_is_not_moved_by_what_diverged_unless_it_is_named(kitchen_run, tmp_path, capfd):
    selected(kitchen_run, None, excluded=(2, 4, 6))
    (kitchen_run / "checkpoints" / "last").unlink(missing_ok=True)
    (kitchen_run / "checkpoints" / "last").symlink_to("000006")
    good = kitchen_run / "checkpoints" / "000002"
    for paths in ((kitchen_run,), (kitchen_run / "checkpoints" / "last",), (good, "--against", str(kitchen_run))):
        assert on_an_arm(paths[0], tmp_path / "out", *paths[1:]) == 2
        refused = capfd.readouterr().err
        assert "no checkpoint here is fit to move an arm: step 6" in refused
        assert "name it by its step" in refused
    assert not (tmp_path / "out").exists()
    assert on_an_arm(kitchen_run / "checkpoints" / "000006", tmp_path / "out") == 0
    assert "000006 is step 6: named, but it was excluded by ptr-fast select" in capfd.readouterr().err
