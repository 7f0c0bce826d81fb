"""A tiny grid from data to rows: killed in the middle, gone on with, and with a stage that fails."""

import io
import json
import re
import shutil
import signal
import subprocess
import sys
import time
from contextlib import nullcontext, redirect_stderr, redirect_stdout
from pathlib import Path

import pytest
import warm_python

from ptr_fast.errors import DataError
from ptr_robot import cli
from ptr_robot.comparison.rows import read_rows, read_trials
from ptr_robot.stages.ledger import Ledger
from ptr_robot.stages.stage import Stage
from ptr_robot.verbs import compare
from ptr_robot.verbs.rollout import Args as RolloutArgs
from ptr_robot.verbs.rollout import rollout

GRID = """
scale: smoke
methods: [bc]
trials: 2
num_demos: 1
checkpoints: 2
films: 0
updates: {pretrain: 2, finetune: 2}
data:
  tiny:
    prior: [--kitchens, A, --episodes, 2, --kinds, "expert:1", --image-size, 32, --max-steps, 25]
    target: [--kitchens, H, --episodes, 2, --kinds, "expert:1", --image-size, 32, --max-steps, 25]
    kitchen: H
    max_steps: 2
"""

HERE = Path(__file__).parent


class Here:
    """A place for stages without processes of their own, which take seconds to begin; they end where they start."""

    slots = 1

    def has_room(self, stage):
        return True

    def together(self):
        return nullcontext()

    def start(self, stage, verb, log, lock):
        with open(log, "a") as out, redirect_stdout(out), redirect_stderr(out):
            code = cli.main(verb)
        lock.close()
        return Ended(code)


class Ended:
    def __init__(self, code):
        self.code = code

    def poll(self):
        return self.code

    def ask_to_stop(self):
        pass

    def wait(self, seconds):
        pass


def compared(grid, out, monkeypatch):
    monkeypatch.setattr(compare, "_place", lambda args, out, workers: Here())
    told = io.StringIO()
    with redirect_stdout(told):
        code = compare.main(compare.Args(grid=str(grid), out=out, workers=1))
    return code, told.getvalue()


@pytest.fixture(scope="module")
def grid(tmp_path_factory):
    path = tmp_path_factory.mktemp("grid") / "tiny.yaml"
    path.write_text(GRID)
    return path


@pytest.fixture(scope="module")
def killed(grid):
    """The grid's folder after a start that was killed while it trained."""
    out = grid.parent / "out"
    program = (
        f"import sys; sys.path[:0] = {[str(HERE), str(HERE.parent)]}\n"
        "import test_compare as t\n"
        "t.compare._place = lambda args, out, workers: t.Here()\n"
        f"t.compare.main(t.compare.Args(grid={str(grid)!r}, out=t.compare.Path({str(out)!r}), workers=1))"
    )
    process = warm_python.Popen([sys.executable, "-c", program], stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
    deadline = time.monotonic() + 120
    while not list((out / "runs").glob("*/checkpoints/000001")):
        assert time.monotonic() < deadline, "no checkpoint within two minutes"
        assert process.poll() is None, process.stderr.read().decode()
        time.sleep(0.002)
    process.send_signal(signal.SIGKILL)
    process.wait()
    process.stderr.close()
    return out


@pytest.fixture(scope="module")
def done(grid, killed):
    with pytest.MonkeyPatch.context() as monkeypatch:
        return killed, *compared(grid, killed, monkeypatch)


def test_a_killed_grid_goes_on(grid, done):
    out, code, told = done
    assert code == 0, told
    assert "done already" in told
    rows = read_rows(out / "rows.jsonl")
    assert [(row["phase"], row["checkpoint"]) for row in rows] == [
        ("before", "last"),
        ("after", "selected"),
        ("after", "last"),
        ("after", "oracle"),
    ]
    for row in rows:
        assert (row["method"], row["mode"], row["num_trials"]) == ("bc", "mean", 2)
        assert row["environment"]["versions"]["torch"]
        assert row["environment"]["cpu"]
        assert len(row["training_seconds"]) == (1 if row["phase"] == "before" else 2)
        assert (row.get("mix"), row.get("lr_scale")) == ((None, None) if row["phase"] == "before" else (0.5, 0.3))
    assert [row["step"] for row in rows[:3]] == [0, 2, 2]


def test_what_is_done_is_not_done_again(grid, done, monkeypatch):
    out = done[0]
    before = (out / "rows.jsonl").read_bytes()
    (out / "rows.jsonl").write_text('{"damaged')
    code, told = compared(grid, out, monkeypatch)
    assert code == 0
    assert "] $ " not in told
    assert (out / "rows.jsonl").read_bytes() == before


def test_a_damaged_result_of_trials_is_named(grid, done, monkeypatch):
    out = done[0]
    (file, *_) = sorted((out / "trials").glob("*.json"))
    whole = file.read_bytes()
    file.write_bytes(whole[:100])
    with pytest.raises(DataError, match=rf"{file}: not valid JSON .*; remove it, and the trials run again"):
        compared(grid, out, monkeypatch)
    file.unlink()
    compared(grid, out, monkeypatch)  # what the rows need and is gone is made again
    assert json.loads(file.read_bytes())["successes"] == json.loads(whole)["successes"]


def test_runs_and_trials_that_are_gone_are_made_again(grid, done, monkeypatch):
    out = done[0]
    rows = (out / "rows.jsonl").read_bytes()
    shutil.rmtree(out / "runs")
    shutil.rmtree(out / "trials")
    code, told = compared(grid, out, monkeypatch)
    assert code == 0, told
    assert "rows are not written" not in told
    again = read_rows(out / "rows.jsonl")
    assert [row["outcomes"] for row in again] == [json.loads(line)["outcomes"] for line in rows.splitlines()]


def test_a_repeat_that_was_stopped_is_not_taken_for_finished(done):
    ledger = Ledger(done[0])
    stage = Stage("tiny", ["collect"], makes=done[0], key="k")
    ledger.begin(stage)
    ledger.finish(stage, 0, 1.0)
    assert ledger.finished(stage)
    ledger.begin(stage)
    assert ledger.finished(stage) is None


def test_what_was_picked_by_another_rule_or_saw_other_episodes_is_not_mixed_in(grid, done, monkeypatch):
    out = done[0]
    before = (out / "rows.jsonl").read_bytes()
    (run,) = out.glob("runs/tiny-bc-0-finetune*")
    for name, old, new, message in (
        ("selection.json", '"metric": null', '"metric": "action_error"', "picked by action_error, expected the newest"),
        ("train_config.json", '"prior"', '"target"', "trained on other target episodes than .*has changed between"),
    ):
        whole = (run / name).read_text()
        assert old in whole, name
        (run / name).write_text(whole.replace(old, new))
        with pytest.raises(DataError, match=rf"{re.escape(str(run))}.*: {message}"):
            compared(grid, out, monkeypatch)
        (run / name).write_text(whole)
    compared(grid, out, monkeypatch)
    assert (out / "rows.jsonl").read_bytes() == before


def test_a_checkpoint_where_a_training_was_stopped_is_passed_over(grid, done, monkeypatch):
    """Nobody tried it: of the tried ones the best ranked counts."""
    out = done[0]
    (run,) = out.glob("runs/tiny-bc-0-finetune*")
    whole = (run / "selection.json").read_text()
    selection = json.loads(whole)
    last, *earlier = selection["ranking"]
    stopped = {**last, "step": 7, "checkpoint": "000007", "weights": None}
    unfit = {**last, "excluded": "diverged: as this test has it"}
    new = {**selection, "selected": 7, "ranking": [stopped, *earlier, unfit]}
    (run / "selection.json").write_text(json.dumps(new))
    compared(grid, out, monkeypatch)
    rows = [row for row in read_rows(out / "rows.jsonl") if (row["method"], row["phase"]) == ("bc", "after")]
    assert {row["step"] for row in rows if row["checkpoint"] == "selected"} == {earlier[0]["step"]}
    (run / "selection.json").write_text(whole)
    compared(grid, out, monkeypatch)


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"successes": 1}, "rollout.successes: expected 0, as its trials are, got 1"),
        ({"successes": "0"}, "rollout.successes: expected int, got '0'"),
        ({"plan": {}}, "rollout.plan: missing key 'start'"),
        ({"trials": [1, 2]}, r"rollout.trials\[0\]: expected an object, got 1"),
        ({"trials": [], "num_trials": 0}, "expected 2 trials, got 0"),
        ({"mean_steps": None}, "rollout.mean_steps: expected float, got None"),
        ({"reached": "1"}, "rollout.reached: expected int, got '1'"),
    ],
)
def test_a_result_of_trials_that_is_none_is_named(done, tmp_path, changed, message):
    whole = json.loads(min((done[0] / "trials").glob("*.json")).read_bytes())
    (tmp_path / "trials.json").write_text(json.dumps(whole | changed))
    with pytest.raises(DataError, match=rf"trials\.json: .*{message}"):
        read_trials(tmp_path / "trials.json", 2)


def test_another_grid_in_the_folder_leaves_nothing_of_the_old_one(grid, done, monkeypatch):
    other = grid.parent / "other.yaml"
    other.write_text(GRID.replace("  tiny:", "  other:").replace("--kitchens, A", "--kitchens, Q"))
    out = grid.parent / "copy"
    shutil.copytree(done[0], out)
    assert (out / "page" / "tiny.html").exists()
    assert compared(other, out, monkeypatch)[0] == 1
    assert read_rows(out / "rows.jsonl") == []
    assert [file.name for file in (out / "page").iterdir()] == ["index.html"]
    assert "other-prior failed" in (out / "page" / "index.html").read_text()


def test_a_stage_that_fails_leaves_the_others(grid, done, monkeypatch):
    out, path = done[0], grid.parent / "failing.yaml"
    path.write_text(GRID.replace("[bc]", "[bc, bc-target]") + "options: {bc-target: [--data.cameras, wrist]}\n")
    code, told = compared(path, out, monkeypatch)
    assert code == 1
    assert "stage tiny-bc-target-0-target failed with exit code 2" in told
    assert "wrist" in told  # the last lines of its log
    assert {row["method"] for row in read_rows(out / "rows.jsonl")} == {"bc"}


def test_a_damaged_selection_does_not_stop_the_others(grid, done, monkeypatch):
    out, path = done[0], grid.parent / "more.yaml"
    path.write_text(GRID.replace("trials: 2", "trials: 1"))
    (selection,) = out.glob("runs/tiny-bc-0-finetune*/selection.json")
    whole = selection.read_bytes()
    selection.write_text('{"sel')
    told = io.StringIO()
    monkeypatch.setattr(compare, "_place", lambda args, out, workers: Here())
    with pytest.raises(DataError, match=re.escape(str(selection))), redirect_stdout(told):
        compare.main(compare.Args(grid=str(path), out=out, workers=1))
    assert "(8/8 stages)" in told.getvalue()
    assert told.getvalue().count(f"rows are not written: {selection}") == 1
    selection.write_bytes(whole)
    assert compared(path, out, monkeypatch)[0] == 0


def test_ctrl_c_says_how_far_it_came(grid, done, monkeypatch):
    def stop(*args):
        raise KeyboardInterrupt

    monkeypatch.setattr(Here, "start", stop)
    monkeypatch.setattr(compare, "_place", lambda args, out, workers: Here())
    told, out = io.StringIO(), grid.parent / "stopped"
    shutil.copytree(done[0], out)
    with pytest.raises(KeyboardInterrupt), redirect_stdout(told):
        compare.main(compare.Args(grid=str(grid), out=out, seeds=(5,), workers=1))
    assert told.getvalue().splitlines()[-1] == f"2 of 8 stages are done; the same command goes on; logs: {out / 'logs'}"


def test_a_page_without_a_success_names_no_winner(done):
    page = (done[0] / "page" / "index.html").read_text()
    assert "succeeded most often" not in page
    assert "no trial succeeded" in page
    assert "<b>0/2</b>" not in page
    assert "1 training seed<" in page


def test_a_damaged_line_of_rows_is_named(done, tmp_path):
    first, *rest = (done[0] / "rows.jsonl").read_text().splitlines()
    for line, what in (
        (first[:-9], "line 2"),
        ("3", "line 2"),
        (first.replace('"seed"', '"sead"'), "missing key 'seed'"),
    ):
        (tmp_path / "rows.jsonl").write_text("\n".join([first, line, *rest]))
        with pytest.raises(DataError, match=what):
            read_rows(tmp_path / "rows.jsonl")


def test_the_dry_run_tells_how_many_stages_there_are(grid, capsys):
    assert compare.main(compare.Args(grid=str(grid), out=grid.parent / "new", dry=True, workers=2)) == 0
    told = capsys.readouterr().out
    assert "ptr-fast finetune --checkpoint" in told
    assert "8 of 8 stages to do, about" in told
    assert not (grid.parent / "new").exists()


@pytest.mark.parametrize(("task", "reached"), [("open door", None), ("put block on plate", 0)])
def test_trials_of_a_task_without_an_object_are_read(tmp_path, task, reached):
    out = tmp_path / "trials.json"
    rollout(RolloutArgs(policy="random", task=task, trials=1, workers=1, max_steps=2, out=out))
    assert read_trials(out, 1)["reached"] == reached
