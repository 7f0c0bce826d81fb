"""The demo's plan and table, and the whole of it in small."""

import json
import subprocess
import sys

import pytest

from ptr_robot.verbs.demo import Args, plan, print_table
from ptr_robot.verbs.info import instruction_set, processor


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
