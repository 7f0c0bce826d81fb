"""docs/your_data.md is run as it stands, on the small files of tests/datasets/files."""

import lzma
import re
import shlex
from pathlib import Path

import numpy as np
import pytest

from ptr_fast.data.store import EpisodeStore
from ptr_robot import cli

ROOT = Path(__file__).resolve().parents[1]
PAGE = (ROOT / "docs" / "your_data.md").read_text(encoding="utf-8")
FILES = ROOT / "tests" / "datasets" / "files"
COMMANDS = [
    line for block in re.findall(r"^```bash\n(.*?)^```$", PAGE, re.M | re.S) for line in block.splitlines() if line
]


def test_every_command_of_the_page(tmp_path, monkeypatch, capsys):
    for package in ("av", "h5py", "zarr"):
        pytest.importorskip(package, reason=f"the page's commands need {package}")
    monkeypatch.chdir(tmp_path)
    for file in FILES.iterdir():
        (tmp_path / file.name).symlink_to(file)
    packed = FILES / "robomimic_lift.hdf5.xz"
    (tmp_path / packed.stem).write_bytes(lzma.decompress(packed.read_bytes()))
    assert len(COMMANDS) > 10
    for command in COMMANDS:
        assert cli.main(shlex.split(command)[1:]) == 0, (command, capsys.readouterr().err)
    stores = {path.name: EpisodeStore.open(path) for path in tmp_path.iterdir() if (path / "meta.json").is_file()}
    assert stores["lift"].episodes.outcome == ["success", "failure", "success"]
    assert (stores["good"].num_episodes, stores["others"].num_episodes, stores["both"].num_episodes) == (2, 2, 5)
    assert stores["labelled"].episodes.outcome == ["success"] * 3
    assert [camera.name for camera in stores["labelled"].meta.cameras] == ["top", "wrist"]
    one, other = stores["from_lerobot"], stores["round_trip"]
    np.testing.assert_array_equal(one.action, other.action)
    assert one.episodes.digest == other.episodes.digest
    assert all(np.array_equal(a, b) for a, b in zip(one.episodes.rewards, other.episodes.rewards, strict=True))


def test_the_formats_of_the_page_are_those_that_are_read():
    from typing import get_args

    from ptr_robot.datasets.options import Format

    for word in ("LeRobot v3.0", "RLDS", "robomimic", "Minari", "zarr", ".npz", "raw Bridge", "out.npy"):
        assert word in PAGE
    assert len(get_args(Format)) - 1 == 8
