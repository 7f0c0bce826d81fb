"""docs/extend.md is run as it stands: its files in an empty folder, its entry points, its commands in their order."""

import os
import re
import shlex
import sys
import tomllib
from pathlib import Path

import numpy as np
import pytest
import warm_python

ROOT = Path(__file__).resolve().parents[1]
PAGE = (ROOT / "docs" / "extend.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"^```(\w+)(?: (\S+))?\n(.*?)^```$", PAGE, re.M | re.S)
FILES = {name: text for _, name, text in BLOCKS if name}
COMMANDS = [line for kind, _, text in BLOCKS if kind == "bash" for line in text.splitlines()]


def record_demonstrations(folder: Path, count: int = 8) -> None:
    """Somebody's recordings: a point goes to the middle of the table."""
    sys.path.insert(0, str(folder.parent))
    try:
        from lab_robot import PointArm
    finally:
        sys.path.remove(str(folder.parent))
    folder.mkdir()
    arm = PointArm()
    for index in range(count):
        arm.reset(index + 100)
        rows = {"front": [], "state": [], "action": []}
        for _ in range(12):
            observed = arm.get_observation()
            action = np.clip(0.3 * (0.5 - arm.place), -0.1, 0.1)
            rows["front"].append(observed["front"])
            rows["state"].append([observed["x"], observed["y"]])
            rows["action"].append(action)
            arm.send_action({"dx": action[0], "dy": action[1]})
        np.savez(folder / f"{index:03d}.npz", task="go to the middle", **rows)


@pytest.fixture(scope="module")
def lab(tmp_path_factory):
    """The folder of somebody's package, as if pip had installed it."""
    folder = tmp_path_factory.mktemp("lab")
    for name, text in FILES.items():
        (folder / name).write_text(text)
    project = tomllib.loads(FILES["pyproject.toml"])["project"]
    info = folder / f"{project['name']}-{project['version']}.dist-info"
    info.mkdir()
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {project['name']}\nVersion: {project['version']}\n")
    groups = [
        "\n".join([f"[{group}]", *(f"{name} = {value}" for name, value in entries.items())])
        for group, entries in project["entry-points"].items()
    ]
    (info / "entry_points.txt").write_text("\n".join(groups) + "\n")
    record_demonstrations(folder / "recordings")
    return folder


def test_everything_on_the_page_runs_in_its_order(lab):
    path = os.pathsep.join([str(lab), str(ROOT), str(ROOT / "python")])
    env = {**os.environ, "PYTHONPATH": path, "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}
    for command in COMMANDS:
        program, *arguments = shlex.split(command)
        program = {"python": [sys.executable], "ptr-fast": [sys.executable, "-m", "ptr_robot"]}[program]
        done = warm_python.run([*program, *arguments], cwd=lab, env=env, capture_output=True, text=True, timeout=120)
        assert done.returncode == 0, f"{command}\n{done.stdout[-3000:]}\n{done.stderr[-3000:]}"
    assert "/2 succeeded" in done.stdout
    assert (lab / "trials" / "report.html").is_file()
    assert {"000100", "000200", "000240"} <= {path.name for path in (lab / "run" / "checkpoints").iterdir()}


def test_a_learner_is_one_file_and_no_more_than_a_page_or_two():
    names = {name for name in FILES if "learner" in name}
    assert names == {"lab_learner.py"}
    num_lines = sum(bool(line.strip()) for line in FILES["lab_learner.py"].splitlines())
    assert num_lines < 110, f"{num_lines} lines for a new learner"
    for page in ("reader", "encoder", "learner", "robot"):
        assert f"lab_{page}.py" in FILES
        assert len(FILES[f"lab_{page}.py"].splitlines()) < 130
