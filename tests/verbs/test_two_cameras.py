"""Two cameras and chunks of eight actions, from collect to rollout: behaviour cloning in a toy kitchen."""

import json

import pytest

from ptr_fast.checkpoint import list_checkpoints, read_checkpoint
from ptr_fast.data.store import EpisodeStore
from ptr_robot.cli import main as cli

TASK = "put block on plate"
pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    folder = tmp_path_factory.mktemp("two cameras")
    store, out = folder / "store", folder / "run"
    collect = ["collect", "--out", store, "--cameras", "front", "wrist", "--episodes", "12", "--kinds", "expert"]
    assert cli([*map(str, collect), "--image-size", "32"]) == 0
    assert [camera.name for camera in EpisodeStore.open(store).meta.cameras] == ["front", "wrist"]
    train = ["pretrain", "sim-bc", "--data.stores", store, "--data.cameras", "front", "wrist", "--out", out]
    train += ["--learner.num-actions", "8", "--num-steps", "300", "--batch-size", "16", "--checkpoint-every", "150"]
    assert cli([*map(str, train)]) == 0
    return out


def test_the_checkpoint_knows_cameras_and_chunk_and_is_selected(run):
    info = read_checkpoint(list_checkpoints(run)[-1])
    assert [camera.name for camera in info.spec.cameras] == ["front", "wrist"]
    assert info.config.num_actions == 8
    assert cli(["select", "--run", str(run)]) == 0
    assert json.loads((run / "selection.json").read_text())["selected"] in (150, 300)
    assert cli(["act", "--checkpoint", str(run)]) == 0


@pytest.mark.parametrize(
    "how",
    [["--play", "receding", "--execute", "4"], ["--play", "ensemble"], ["--play", "latency", "--frame-delay", "1"]],
)
def test_it_is_tried_in_the_kitchen_however_its_chunks_are_played(run, how, tmp_path):
    out = tmp_path / "result.json"
    arguments = ["rollout", "--run", run, "--task", TASK, "--trials", "2", "--workers", "1", "--out", out, *how]
    assert cli([*map(str, arguments), "--video", "none"]) == 0
    result = json.loads(out.read_text())
    assert result["plan"]["cameras"] == ["front", "wrist"]
    assert result["num_trials"] == 2
    assert result["plan"]["play"] == how[1]


def test_it_moves_an_arm_with_two_cameras_in_real_time(run, tmp_path):
    options = ["cameras=front,wrist", "image_size=32"]
    arguments = ["rollout", "--robot", "simulated", "--robot-options", *options, "--run", run, "--task", TASK]
    arguments += [
        "--trials",
        "1",
        "--max-steps",
        "20",
        "--play",
        "latency",
        "--video",
        "none",
        "--out",
        tmp_path / "out",
    ]
    assert cli([*map(str, arguments)]) == 0
    assert (tmp_path / "out" / "report.html").is_file()
