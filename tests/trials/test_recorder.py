"""Episodes recorded while a policy acts, and training on them."""

from __future__ import annotations

import os
import resource
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import simplejpeg
import toy_robot
import warm_python

from ptr_fast.checkpoint import list_checkpoints, read_checkpoint
from ptr_fast.config import PolicySpec, TaskTable
from ptr_fast.data.store import EpisodeStore
from ptr_fast.errors import DataError
from ptr_fast.resize import resize
from ptr_robot.cli import main
from ptr_robot.trials.recorder import Recorder

LARGE = 96
SIZES = {"image_0": (LARGE, LARGE)}
LOOP = ["--num-steps", "2", "--batch-size", "4", "--log-every", "1", "--checkpoint-every", "2", "--keep-best", "0"]


def make_spec() -> PolicySpec:
    meta = toy_robot.toy_meta(("image_0",))
    tasks = TaskTable(names=toy_robot.TASKS, num_slots=4)
    return PolicySpec(
        cameras=meta.cameras[:1], state=meta.state, action=meta.action, tasks=tasks, control_hz=meta.control_hz
    )


def act_out(recorder: Recorder, episode: toy_robot.ToyEpisode, task: str = "", **ending) -> bool:
    recorder.begin_episode(episode.episode_id, task or episode.task)
    for frame, state, action in zip(episode.images["image_0"], episode.states, episode.actions, strict=False):
        recorder.add({"image_0": resize(frame, LARGE, LARGE)}, state, action)
    return recorder.end_episode(**ending)


@pytest.fixture
def episodes():
    return toy_robot.toy_episodes(4, seed=3, cameras=("image_0",))


def test_what_was_recorded_goes_out_to_lerobot_and_comes_back(tmp_path, episodes):
    with Recorder(tmp_path / "store", make_spec(), SIZES, source="run/7") as recorder:
        for episode, outcome in zip(episodes, ("success", "failure", "success"), strict=False):
            assert act_out(recorder, episode, outcome=outcome)
    assert main(["export-dataset", "--store", str(tmp_path / "store"), "--out", str(tmp_path / "out")]) == 0
    assert main(["convert", "--source", str(tmp_path / "out"), "--out", str(tmp_path / "again")]) == 0
    one, other = EpisodeStore.open(tmp_path / "store"), EpisodeStore.open(tmp_path / "again")
    for name in ("episode_id", "task", "outcome", "kind", "source", "digest"):
        assert getattr(one.episodes, name) == getattr(other.episodes, name)
    np.testing.assert_array_equal(one.state, other.state)
    assert one.meta.action.units == other.meta.action.units


def test_what_was_recorded_is_in_the_store(tmp_path, episodes):
    path = tmp_path / "store"
    with Recorder(path, make_spec(), SIZES, source="run/7") as recorder:
        assert act_out(recorder, episodes[0], outcome="success")
        assert EpisodeStore.open(path).num_episodes == 1  # committed while the recorder goes on
        assert not act_out(recorder, episodes[1], keep=False)
        assert act_out(recorder, episodes[2], outcome="failure")
        recorder.begin_episode("empty", "none")
        assert not recorder.end_episode()
    store = EpisodeStore.open(path)
    assert list(store.episodes.outcome) == ["success", "failure"]
    assert list(store.episodes.num_steps) == [len(episodes[0].actions), len(episodes[2].actions)]
    camera = store.meta.cameras[0]
    assert (camera.height, camera.source_height, camera.encoding, camera.resize) == (48, LARGE, "jpeg", "lanczos")
    np.testing.assert_array_equal(store.state[0], episodes[0].states[0])
    np.testing.assert_array_equal(store.action[1], episodes[0].actions[1])
    seen = resize(resize(episodes[0].images["image_0"][1], LARGE, LARGE), 48, 48)
    expected = simplejpeg.decode_jpeg(simplejpeg.encode_jpeg(np.ascontiguousarray(seen), 95))
    assert np.abs(store.frame("image_0", 1).astype(int) - expected).max() <= 8
    with Recorder(path, make_spec(), SIZES) as recorder:  # another day
        assert episodes[0].episode_id in recorder
        with pytest.raises(ValueError, match="has an episode 'toy_3_000' already"):
            recorder.begin_episode(episodes[0].episode_id, "lift")
        assert act_out(recorder, episodes[1])
    assert EpisodeStore.open(path).num_episodes == 3


def test_it_can_be_trained_on(tmp_path, episodes):
    data, run, recorded, tuned = (tmp_path / name for name in ("data", "run", "recorded", "tuned"))
    toy_robot.write_store(data, toy_robot.toy_episodes(6, cameras=("image_0",)))
    assert main(["pretrain", "smoke", "--data.stores", str(data), "--out", str(run), *LOOP]) == 0
    info = read_checkpoint(list_checkpoints(run)[-1])
    with Recorder(recorded, info.spec, SIZES, source=str(run)) as recorder:
        for episode in episodes:
            assert act_out(recorder, episode, task="open drawer", outcome="success")
    arguments = ["--checkpoint", str(run), "--target", str(recorded), "--num-demos", "3", "--mix", "0.5"]
    assert main(["finetune", *arguments, "--out", str(tuned), *LOOP]) == 0
    assert "open drawer" in read_checkpoint(list_checkpoints(tuned)[-1]).spec.tasks.names


def test_steps_that_do_not_fit(tmp_path, episodes):
    good = ({"image_0": np.zeros((LARGE, LARGE, 3), np.uint8)}, np.zeros(7), np.zeros(7))
    with Recorder(tmp_path / "store", make_spec(), SIZES) as recorder:
        with pytest.raises(ValueError, match="no episode is running"):
            recorder.add(*good)
        recorder.begin_episode("e", "lift")
        with pytest.raises(ValueError, match="episode 'e' is still running"):
            recorder.begin_episode("f", "lift")
        with pytest.raises(
            ValueError, match=r"step 0: frame of image_0: expected uint8 \[96, 96, 3\], got uint8 \[48, 48, 3\]"
        ):
            recorder.add({"image_0": np.zeros((48, 48, 3), np.uint8)}, *good[1:])
        with pytest.raises(ValueError, match=r"action: expected \[7\], got \[6\]"):
            recorder.add(*good[:2], np.zeros(6))
        with pytest.raises(DataError, match=r"step 0: action: expected finite numbers"):
            recorder.add(*good[:2], np.full(7, np.nan))
        recorder.add(*good)
        assert recorder.num_steps == 1
        with pytest.raises(DataError, match="outcome"):
            recorder.end_episode(outcome="triumph")
    with pytest.raises(
        ValueError, match=r"cameras differs: cameras\[0\]\.source_height: the store has 96, the new .* 64"
    ):
        Recorder(tmp_path / "store", make_spec(), {"image_0": (64, 64)})


PROGRAM = """
import sys, numpy as np
sys.path[:0] = {paths!r}
from test_recorder import Recorder, make_spec, act_out, toy_robot, LARGE, SIZES
episodes = toy_robot.toy_episodes(40, seed=3, cameras=("image_0",))
recorder = Recorder({store!r}, make_spec(), SIZES)
act_out(recorder, episodes[0], outcome="success")
{then}
"""


def run_program(store: Path, then: str, **options) -> subprocess.CompletedProcess:
    here = Path(__file__).parent
    text = PROGRAM.format(paths=[str(here), str(here.parent)], store=str(store), then=then)
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    start = subprocess.run if options else warm_python.run
    return start([sys.executable, "-c", text], env=environment, capture_output=True, text=True, timeout=120, **options)


def test_a_process_that_is_killed_loses_the_running_episode_alone(tmp_path, episodes):
    then = "recorder.begin_episode('lost', 'lift')\n"
    then += "recorder.add({'image_0': np.zeros((LARGE, LARGE, 3), np.uint8)}, np.zeros(7), np.zeros(7))\n"
    then += "import os, signal; os.kill(os.getpid(), signal.SIGKILL)"
    done = run_program(tmp_path / "store", then)
    assert done.returncode == -signal.SIGKILL, done.stderr
    assert list(EpisodeStore.open(tmp_path / "store").episodes.episode_id) == [episodes[0].episode_id]
    with Recorder(tmp_path / "store", make_spec(), SIZES) as recorder:
        assert act_out(recorder, episodes[1])
    assert EpisodeStore.open(tmp_path / "store").num_episodes == 2


def test_a_full_disk_is_one_error_and_what_was_recorded_stays(tmp_path, episodes):
    # A file size limit stands for a full disk: a long episode does not fit, a short one does.
    then = "noise = np.random.default_rng(0)\nrecorder.begin_episode('long', 'lift')\n"
    then += "for _ in range(150): recorder.add({'image_0': noise.integers(0, 255, (LARGE, LARGE, 3), np.uint8)}, "
    then += "np.zeros(7), np.zeros(7))\n"
    then += "try: recorder.end_episode()\nexcept OSError as error: print(type(error).__name__, error)"
    limit = 256 << 10
    done = run_program(
        tmp_path / "store", then, preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))
    )
    assert done.returncode == 0, done.stderr
    assert str(tmp_path / "store") in done.stdout
    assert "cannot record" in done.stdout
    assert list(EpisodeStore.open(tmp_path / "store").episodes.episode_id) == [episodes[0].episode_id]
