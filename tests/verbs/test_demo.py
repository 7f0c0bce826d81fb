"""The demo's stages: in order, once, again when something before them changed; and the whole of it in small."""

import json
import subprocess
import sys

import pytest

from ptr_robot.verbs.demo import Args, Stage, plan, print_table, run_stages
from ptr_robot.verbs.info import instruction_set, processor


@pytest.fixture
def out(tmp_path):
    for folder in ("logs", "done"):
        (tmp_path / folder).mkdir()
    return tmp_path


def stages(first="convert"):
    return [Stage("one", [first, "--help"]), Stage("two", ["inspect", "--help"], after=["one"])]


def ran(capsys) -> list[str]:
    return [line.split("]")[0][1:] for line in capsys.readouterr().out.splitlines() if "] $ " in line]


def test_stages_run_once_and_again_when_something_before_them_changed(out, capsys):
    run_stages(stages(), out, 2)
    assert ran(capsys) == ["one", "two"]
    run_stages(stages(), out, 2)
    assert ran(capsys) == []
    run_stages(stages("doctor"), out, 2)
    assert ran(capsys) == ["one", "two"]
    assert (out / "logs" / "two.log").read_text()


def test_a_stage_that_fails_names_its_log(out):
    with pytest.raises(RuntimeError, match=r"stage one failed with exit code 2; see .*one\.log"):
        run_stages([Stage("one", ["inspect", str(out / "nothing")])], out, 1)
    run_stages([Stage("one", ["inspect", str(out / "nothing")], accepts=(2,))], out, 1)


def test_a_run_made_with_other_options_is_not_taken_up(out):
    run = out / "run"
    run.mkdir()
    (run / "train_config.json").write_text("{}")
    with pytest.raises(ValueError, match="other options"):
        run_stages([Stage("train", ["pretrain", "smoke", "--out", str(run)])], out, 1)


def test_every_stage_waits_for_stages_before_it():
    names: list[str] = []
    for stage in plan(Args(), workers=2):
        assert set(stage.after) <= set(names), stage.name
        names.append(stage.name)
    assert len(set(names)) == len(names)


def test_the_table_names_what_its_numbers_hang_on(tmp_path, capsys):
    row = {"policy": "PTR", "mode": "search", "successes": 5, "num_trials": 20, "interval95": [0.11, 0.47]}
    (tmp_path / "ptr.json").write_text(json.dumps(row))
    print_table([tmp_path / "ptr.json"], seed=3)
    shown = capsys.readouterr().out
    assert "5/20" in shown
    assert f"one training seed (3), on {processor()}, {instruction_set()}, torch " in shown


@pytest.mark.slow
def test_the_whole_demo_in_small(tmp_path):
    options = ["--episodes", "2", "--num-demos", "2", "--scale", "0.002", "--trials", "1"]
    done = subprocess.run(
        [sys.executable, "-m", "ptr_robot", "demo", "--out", str(tmp_path / "demo"), *options],
        capture_output=True,
        text=True,
        timeout=280,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    for policy in ("BC (pre-trained)", "PTR (pre-trained)", "PTR (target only)", "BC (target only)", "random"):
        assert policy in done.stdout
    assert (tmp_path / "demo" / "report.html").stat().st_size > 10_000
