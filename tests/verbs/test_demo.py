"""The demo's plan and table, and the whole of it in small."""

import json
import subprocess
import sys

import pytest

from ptr_robot.verbs.demo import METHODS, Args, plan, print_table, result
from ptr_robot.verbs.info import instruction_set, processor


def test_every_stage_waits_for_stages_before_it():
    names: list[str] = []
    for stage in plan(Args(), workers=2):
        assert set(stage.after) <= set(names), stage.name
        names.append(stage.name)
    assert len(set(names)) == len(names)


def test_the_table_has_every_method_before_and_after_and_names_what_its_numbers_hang_on(tmp_path, capsys):
    args = Args(num_demos=10, trials=40, seed=3)
    for i, name in enumerate([*(f"{m}-{when}" for m in METHODS for when in ("before", "after")), "random"]):
        trials = [{"success": k < i, "num_steps": 20 + k} for k in range(40)]
        row = {"mode": "search", "successes": i, "num_trials": 40, "interval95": [0.11, 0.47], "trials": trials}
        (tmp_path / f"{name}.json").write_text(json.dumps(row))
    print_table(result(args, tmp_path, seconds=600))
    shown = capsys.readouterr().out
    for method, before, after, steps in (("ours", 0, 1, 20), ("clone", 2, 3, 21), ("bc", 4, 5, 22)):
        (line,) = [line for line in shown.splitlines() if METHODS[method].label in line]
        cells = [cell.strip() for cell in line.split("│")[1:-1]]
        assert cells == [
            METHODS[method].label,
            "search",
            f"{before}/40 (11%-47%)",
            f"{after}/40 (11%-47%)",
            str(steps),
        ]
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
    for method in METHODS.values():
        assert method.label in done.stdout
    assert (tmp_path / "demo" / "report.html").stat().st_size > 10_000
