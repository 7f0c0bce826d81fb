"""The scripts and the notebook of ``examples/`` run as they stand, with few updates, in an empty folder."""

import json
import math
import os
import sys
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest
import warm_python

from ptr_fast.runtime.safety import SafetyFilter
from ptr_robot.robots.limits_file import read_limits

ROOT = Path(__file__).resolve().parents[1]
EXAMPLES = ROOT / "examples"
SCRIPTS = [
    ("store_from_numpy.py", [], "wrote outputs/examples/store"),
    ("train_from_python.py", ["30"], "step 30 is chosen"),
    ("act_in_a_loop.py", [], "an action is dx in m, dy in m\narrived in "),
    ("values_of_an_episode.py", [], "success"),
    ("own_learner.py", ["20"], "step 20/20"),
]
"""In their order: each reads what those before it wrote."""


def run(folder: Path, *arguments: str) -> str:
    path = os.pathsep.join([str(ROOT), str(ROOT / "python"), str(EXAMPLES)])
    env = {**os.environ, "PYTHONPATH": path, "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": "", "PYTHONUTF8": "1"}
    done = warm_python.run(
        [sys.executable, *arguments], cwd=folder, env=env, capture_output=True, text=True, timeout=200
    )
    assert done.returncode == 0, f"{arguments}\n{done.stdout[-2000:]}\n{done.stderr[-3000:]}"
    return done.stdout


def test_the_scripts_run_in_their_order(tmp_path):
    for script, arguments, told in SCRIPTS:
        assert told in run(tmp_path, str(EXAMPLES / script), *arguments), script
    assert (tmp_path / "outputs/examples/huber/checkpoints/000020").is_dir()


def test_the_scripts_are_short_and_all_of_them_are_here_and_in_the_page():
    page = (EXAMPLES / "README.md").read_text(encoding="utf-8")
    files = sorted(path.name for path in EXAMPLES.glob("*.py"))
    assert files == sorted(name for name, _, _ in SCRIPTS)
    for file in EXAMPLES.iterdir():
        assert file.name == "README.md" or file.name.startswith((".", "__", "outputs")) or f"`{file.name}`" in page, (
            file
        )
    for name in files:
        assert len((EXAMPLES / name).read_text(encoding="utf-8").splitlines()) < 60, name


def cells() -> list[dict]:
    return json.loads((EXAMPLES / "walkthrough.ipynb").read_text(encoding="utf-8"))["cells"]


def test_the_notebook_runs_from_its_first_cell_to_its_last(tmp_path):
    """By nbclient where it is installed, else its code cells one after the other in one program."""
    sources = ["".join(cell["source"]) for cell in cells() if cell["cell_type"] == "code"]
    quick = [source.replace("num_steps = 1000", "num_steps = 20") for source in sources]
    assert quick != sources
    if find_spec("nbclient") and find_spec("nbformat") and find_spec("ipykernel"):
        runner = (
            "import json, sys, nbclient\n"
            "from nbformat.v4 import new_code_cell, new_notebook\n"
            "book = new_notebook(cells=[new_code_cell(source) for source in json.load(open(sys.argv[1]))])\n"
            "nbclient.NotebookClient(book, timeout=200, kernel_name='python3').execute()\n"
            "print('arrived in', [o for c in book.cells for o in c.outputs if 'arrived' in str(o)])\n"
        )
    else:
        runner = "import json, sys\nnames = {}\nfor source in json.load(open(sys.argv[1])):\n    exec(source, names)\n"
    (tmp_path / "cells.json").write_text(json.dumps(quick))
    (tmp_path / "runner.py").write_text(runner)
    assert "arrived in " in run(tmp_path, "runner.py", "cells.json")


def test_the_notebook_was_committed_without_its_outputs():
    for cell in cells():
        assert cell["cell_type"] == "markdown" or (cell["outputs"] == [] and cell["execution_count"] is None)


@pytest.mark.slow
def test_the_policy_of_the_examples_arrives(tmp_path):
    for script in ("store_from_numpy.py", "train_from_python.py"):
        run(tmp_path, str(EXAMPLES / script))
    told = run(tmp_path, str(EXAMPLES / "act_in_a_loop.py"))
    assert int(told.split("arrived in ")[1].split(" of 10")[0]) >= 8, told


JOINTS = ("shoulder_pan", "shoulder_lift", "elbow_flex", "wrist_flex", "wrist_roll", "gripper")


def test_the_example_of_limits_moves_nothing_until_somebody_has_filled_it_in(tmp_path):
    example = json.loads((EXAMPLES / "limits_so101.json").read_text())
    file = tmp_path / "limits.json"
    for axis in (None, *example["axes"]):
        if axis is not None:
            axis["max_velocity"] = 30
        file.write_text(json.dumps(example))
        wanted = "max_start_mismatch" if axis is example["axes"][-1] else "a position needs max_step or max_velocity"
        with pytest.raises(ValueError, match=wanted):
            read_limits(file)
    example["max_start_mismatch"] = 5
    file.write_text(json.dumps(example))
    names = [f"{joint}.pos" for joint in JOINTS]
    filter_ = SafetyFilter(read_limits(file).limits(names, names, 30.0))
    filter_.start(0)
    here = np.zeros(6, np.float32)
    command, _ = filter_.apply(here + 3, here, 0, 2 * 10**9)
    assert (command > 0).all()
    assert (command <= 1.001).all()  # 30 degrees a second at 30 commands a second


def test_the_joints_of_the_example_are_those_of_its_source():
    """Radians of so101_new_calib.urdf, to a tenth of a degree."""
    radians = {"shoulder_pan": 1.91986, "shoulder_lift": 1.74533, "elbow_flex": 1.69, "wrist_flex": 1.65806}
    axes = {axis["name"]: axis for axis in json.loads((EXAMPLES / "limits_so101.json").read_text())["axes"]}
    for joint, limit in {**radians, "wrist_roll": 2.79253}.items():
        axis = axes[f"{joint}.pos"]
        assert axis["high"] == -axis["low"] == pytest.approx(math.degrees(limit), abs=0.05)
    assert (axes["gripper.pos"]["low"], axes["gripper.pos"]["high"]) == (0, 100)
