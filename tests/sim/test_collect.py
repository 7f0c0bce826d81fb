"""The collect verb: what it writes, that it adds only what is missing, and that it survives being stopped."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import warm_python

from ptr_fast.data.store import EpisodeStore
from ptr_robot.verbs.collect import Args, main, parse_kinds

REPOSITORY = Path(__file__).resolve().parents[2]
KINDS = ("expert:0.5", "failed:0.5")


def collect(path, **options):
    values = {"episodes": 2, "kinds": KINDS, "image_size": 16, "workers": 1, "kitchens": ("B",), **options}
    return main(Args(out=path, **values))


def test_shares_of_kinds():
    assert parse_kinds(["expert:0.7", "noisy:0.2", "failed:0.1"], 40) == {"expert": 28, "noisy": 8, "failed": 4}
    assert parse_kinds(["expert:0.7", "noisy:0.2", "failed:0.1"], 1) == {"expert": 1, "noisy": 0, "failed": 0}
    assert sum(parse_kinds(["expert:1", "noisy:1", "failed:1"], 10).values()) == 10


@pytest.mark.parametrize(
    ("kinds", "message"),
    [
        (["expart:1"], "did you mean 'expert'"),
        (["expert:0"], "positive share"),
        (["expert:x"], "positive share"),
        (["expert:nan"], "positive share"),
        (["expert", "expert"], "each kind once"),
        ([], "name at least one"),
    ],
)
def test_bad_shares(kinds, message):
    with pytest.raises(ValueError, match=message):
        parse_kinds(kinds, 10)


def test_collect_then_read(tmp_path, capsys):
    path = tmp_path / "store"
    assert collect(path, kitchens=("B", "E")) == 0
    store = EpisodeStore.open(path)
    store.verify()
    assert store.num_episodes == 4
    assert store.episodes.task == ["put block on plate"] * 4
    assert store.episodes.domain == ["B", "B", "E", "E"]
    assert store.episodes.kind == ["expert", "failed"] * 2
    assert store.episodes.outcome == ["success", "failure"] * 2
    assert (store.episodes.num_frames == store.episodes.num_steps + 1).all()
    assert store.meta.control_hz == 20.0
    frame = store.frame("image_0", 0)
    assert frame.shape == (16, 16, 3)
    assert frame.std() > 5.0
    last = store.episodes.first[0] + store.episodes.num_steps[0]
    assert np.isnan(store.action[last]).all()
    assert np.isfinite(store.action[last - 1]).all()

    before = store.fingerprint()
    assert collect(path, kitchens=("B", "E")) == 0
    assert EpisodeStore.open(path).fingerprint() == before, "a second run adds nothing"
    assert "4 there already" in capsys.readouterr().out
    assert collect(path, kitchens=("B",), episodes=4) == 0
    grown = EpisodeStore.open(path)
    assert grown.num_episodes == 6
    assert grown.episodes.episode_id[:4] == store.episodes.episode_id

    with pytest.raises(ValueError, match="start differs: it has 'easy', asked for 'wide'"):
        collect(path, start="wide")
    with pytest.raises(ValueError, match="cameras differs"):
        collect(path, image_size=32)


def test_same_episodes_from_two_processes_and_as_jpeg(tmp_path):
    collect(tmp_path / "one", episodes=5, kinds=("expert",))
    collect(tmp_path / "two", episodes=5, kinds=("expert",), workers=2)
    one, two = EpisodeStore.open(tmp_path / "one"), EpisodeStore.open(tmp_path / "two")
    assert one.episodes.digest == two.episodes.digest
    collect(tmp_path / "jpeg", episodes=1, kinds=("expert",), encoding="jpeg", task_per_kitchen=True)
    jpeg = EpisodeStore.open(tmp_path / "jpeg")
    assert jpeg.episodes.task == ["put block on plate [kitchen B]"]
    gap = np.abs(jpeg.frame("image_0", 3).astype(int) - one.frame("image_0", 3))
    assert 0 < gap.mean() < 8


@pytest.mark.parametrize("stop", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
def test_stopped_in_the_middle(tmp_path, stop, monkeypatch):
    """Ctrl-C and SIGTERM keep what was finished; a kill leaves a whole store; the next run completes it."""
    path = tmp_path / "store"
    command = [sys.executable, "-c", "import ptr_robot.verbs.collect as c; c.EPISODES_PER_PART = 2; from ptr_robot.cli import main; raise SystemExit(main())"]  # fmt: skip  # noqa: E501
    command += ["collect", "--out", str(path), "--episodes", "200", "--kinds", "expert", "--image-size", "16"]
    command += ["--workers", "1"]
    env = {**os.environ, "PYTHONPATH": f"{REPOSITORY / 'python'}{os.pathsep}{REPOSITORY}"}
    process = warm_python.Popen(command, env=env, cwd=tmp_path, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
    deadline = time.monotonic() + 120
    while not list(path.glob("episodes/*.arrow")) and process.poll() is None and time.monotonic() < deadline:
        time.sleep(0.02)
    process.send_signal(stop)
    _, errors = process.communicate(timeout=60)
    if stop != signal.SIGKILL:
        assert process.returncode == 128 + stop, errors
        assert b"Traceback" not in errors
    stopped = EpisodeStore.open(path)
    stopped.verify()
    assert 2 <= stopped.num_episodes < 200
    collect(path, kitchens=("A",), kinds=("expert",), episodes=stopped.num_episodes + 1)
    store = EpisodeStore.open(path)
    store.verify()
    assert store.num_episodes == stopped.num_episodes + 1
    assert len(set(store.episodes.episode_id)) == store.num_episodes


def test_bad_input_makes_no_store(tmp_path):
    for options, message in (
        ({"task": ("put block on plat",)}, "did you mean 'put block on plate'"),
        ({"kitchens": ("Z",)}, "unknown kitchen 'Z'"),
        ({"episodes": 0}, "episodes must be at least 1"),
        ({"workers": 0}, "workers must be at least 1"),
        ({"jpeg_quality": 0}, "jpeg-quality"),
        ({"kitchens": ()}, "kitchens: name at least one"),
        ({"task": ()}, "task: name at least one"),
        ({"kinds": ("pick", "expert"), "only_success": True}, "kind pick never end in success"),
        ({"observe": "state", "cameras": ("front", "wrist")}, "observe state stores no frame"),
    ):
        with pytest.raises(ValueError, match=message):
            collect(tmp_path / "store", **options)
    assert not (tmp_path / "store").exists()


def test_a_wrist_camera_beside_the_front_one(tmp_path):
    """The front camera's frames, the states and the actions are those of a store of one camera, bit for bit."""
    collect(tmp_path / "one", episodes=1, kinds=("expert",))
    collect(tmp_path / "two", episodes=1, kinds=("expert",), cameras=("front", "wrist"))
    one, two = EpisodeStore.open(tmp_path / "one"), EpisodeStore.open(tmp_path / "two")
    assert [(camera.name, camera.height, camera.width) for camera in two.meta.cameras] == [
        ("front", 16, 16),
        ("wrist", 16, 16),
    ]
    assert [camera.name for camera in one.meta.cameras] == ["image_0"]
    np.testing.assert_array_equal(one.state, two.state)
    np.testing.assert_array_equal(one.action, two.action)
    num_frames = int(two.episodes.num_frames[0])
    for record in range(num_frames):
        np.testing.assert_array_equal(one.frame("image_0", record), two.frame("front", record))
    seen = np.stack([two.frame("wrist", record) for record in range(num_frames)]).astype(int)
    assert np.abs(np.diff(seen, axis=0)).mean(axis=(1, 2, 3)).max() > 2  # it moves with the hand
    with pytest.raises(ValueError, match="cameras"):
        collect(tmp_path / "one", episodes=1, kinds=("expert",), cameras=("front", "wrist"))


@pytest.mark.parametrize(
    ("cameras", "message"),
    [(("wirst",), "did you mean 'wrist'"), ((), "one or several"), (("wrist", "wrist"), "different names")],
)
def test_bad_cameras(tmp_path, cameras, message):
    with pytest.raises(ValueError, match=message):
        collect(tmp_path / "store", cameras=cameras)
    assert not (tmp_path / "store").exists()
