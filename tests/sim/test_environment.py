"""The environment: gymnasium's own checks, determinism by seed, looks, and messages for bad input."""

import ctypes.util
import os
import subprocess
import sys

import gymnasium
import numpy as np
import pytest
import torch
import warm_python
from gymnasium.utils.env_checker import check_env

from ptr_fast.kernels.augment import yuv420
from ptr_robot.sim.environment import STATE_SPEC, make_environment
from ptr_robot.sim.kitchens import KITCHENS, find_kitchen
from ptr_robot.sim.tasks import PUT_TASKS, STOCK_TASKS, find_task


@pytest.mark.filterwarnings("ignore::UserWarning")
@pytest.mark.parametrize("task", ["put can in bowl", "open drawer"])
def test_gymnasium_env_checker(task):
    env = gymnasium.make("ptr_robot/Kitchen-v0", task=task, kitchen="D", image_size=32, render_mode="rgb_array")
    try:
        check_env(env.unwrapped)
    finally:
        env.close()


def play(env, seed, num_steps=8):
    observations = [env.reset(seed=seed)[0]]
    for action in np.random.default_rng(1).uniform(-1, 1, (num_steps, 4)):
        observations.append(env.step(action)[0])
    return np.stack([o["image"] for o in observations]), np.stack([o["state"] for o in observations])


def test_an_episode_depends_on_the_seed_alone(put_env):
    images, states = play(put_env, seed=5)
    other_images, other_states = play(put_env, seed=6)
    again_images, again_states = play(put_env, seed=5)
    np.testing.assert_array_equal(images, again_images)
    np.testing.assert_array_equal(states, again_states)
    assert (images != other_images).any()
    assert (states != other_states).any()
    fresh = make_environment("put block on plate", "B", image_size=32)
    try:
        np.testing.assert_array_equal(images, play(fresh, seed=5)[0])
    finally:
        fresh.close()


def test_stock_tasks_restart_from_the_seed_alone():
    env = make_environment("open door", "A", image_size=16)
    try:
        first, _ = play(env, seed=3)
        play(env, seed=4)
        np.testing.assert_array_equal(first, play(env, seed=3)[0])
    finally:
        env.close()


def test_the_hand_goes_where_the_action_points(put_env):
    for axis in range(3):
        for sign in (-1.0, 1.0):
            before = put_env.reset(seed=0)[0]["state"]
            action = np.zeros(4)
            action[axis] = sign
            for _ in range(2):
                after = put_env.step(action)[0]["state"]
            moved = (after - before)[:3]
            assert np.argmax(np.abs(moved)) == axis
            assert 0.02 < sign * moved[axis] < 0.09, "two decisions of 4 cm, minus the arm's lag"


def test_the_gripper_opens_and_closes(put_env):
    put_env.reset(seed=0)
    index = STATE_SPEC.names.index("gripper_opening")
    for _ in range(8):
        closed = put_env.step([0, 0, 0, 1])[0]["state"][index]
    for _ in range(8):
        opened = put_env.step([0, 0, 0, -1])[0]["state"][index]
    assert closed < 0.4
    assert opened > 0.9


def test_every_kitchen_looks_different():
    means = {}
    for name in KITCHENS:
        env = make_environment("put block on plate", name, image_size=16)
        means[name] = env.reset(seed=0)[0]["image"].astype(float)
        env.close()
    names = list(means)
    gaps = [np.abs(means[a] - means[b]).mean() for i, a in enumerate(names) for b in names[i + 1 :]]
    assert min(gaps) > 10.0, "mean difference in grey levels between the two most alike kitchens"


def test_object_and_container_are_seen():
    """Taking them away changes the picture where they were."""
    env = make_environment("put block on plate", "E", image_size=64)
    try:
        seen = env.reset(seed=0)[0]["image"].astype(int)
        env.world._place("item", np.array([-0.6, 0.1]), 0.0, 0.02)
        env.world.model.body("container").pos = [0.6, 0.1, 0.0]
        env.world.advance(np.array([0, 0, 0, -1.0]), 1)
        num_changed = (np.abs(env.picture(64).astype(int) - seen).max(axis=-1) > 30).sum()
        assert num_changed > 40, "pixels of 4096"
    finally:
        env.close()


def test_wide_starts_and_distractors():
    env = make_environment("put can in pot", "C", image_size=16, start="wide", distractors=4)
    try:
        spots = []
        for seed in range(20):
            env.reset(seed=seed)
            spots.append(env.world.item_position()[:2])
            assert not env.world.succeeded()
        assert np.ptp(spots, axis=0).min() > 0.15
        assert len({item.name for item in env.world.distractors} | {"can"}) == 5
    finally:
        env.close()


def test_time_runs_out():
    env = make_environment("put block on plate", "A", image_size=16, max_steps=3)
    try:
        env.reset(seed=0)
        ends = [env.step(np.zeros(4))[2:4] for _ in range(3)]
        assert ends == [(False, False), (False, False), (False, True)]
    finally:
        env.close()


def test_put_tasks():
    assert len(PUT_TASKS) == 41
    assert [task for task in PUT_TASKS if task.endswith("in cup")] == ["put can in cup"]
    assert find_task("  Put  block on plate ").instruction == "put block on plate"
    assert set(STOCK_TASKS).isdisjoint(PUT_TASKS)


def test_bad_input_names_the_nearest():
    with pytest.raises(ValueError, match="did you mean 'put block on plate'"):
        find_task("put blok on plate")
    with pytest.raises(ValueError, match=r"unknown kitchen 'Q'; known: \['A'"):
        find_kitchen("Q")
    with pytest.raises(ValueError, match=r"image_size must lie in 16\.\.512, got 4"):
        make_environment("put block on plate", "A", image_size=4)
    with pytest.raises(ValueError, match="start range must be one of"):
        make_environment("put block on plate", "A", start="nowhere")


@pytest.mark.parametrize("action", [np.zeros(3), np.array([0, np.nan, 0, 0])])
def test_bad_actions_are_refused(put_env, action):
    put_env.reset(seed=0)
    with pytest.raises(ValueError, match="4 finite numbers"):
        put_env.step(action)


def test_no_opengl_library(monkeypatch):
    from ptr_robot.sim import gl

    monkeypatch.delenv("MUJOCO_GL", raising=False)
    monkeypatch.setattr(gl.ctypes.util, "find_library", lambda name: None)
    with pytest.raises(RuntimeError, match="neither EGL nor OSMesa"):
        gl.choose_gl()
    monkeypatch.setattr(gl.ctypes.util, "find_library", lambda name: "lib" if name == "OSMesa" else None)
    monkeypatch.setattr(gl.importlib, "import_module", lambda name: None)
    with pytest.warns(RuntimeWarning, match="no EGL library"):
        assert gl.choose_gl() == "osmesa"


def test_no_opengl_context(put_env, monkeypatch):
    import mujoco.egl

    from ptr_robot.sim.rendering import SceneRenderer

    def refuse(*_):
        raise RuntimeError("no display")

    monkeypatch.setenv("MUJOCO_GL", "egl")
    monkeypatch.setattr(mujoco.egl, "GLContext", refuse)
    with pytest.raises(RuntimeError, match=r"no OpenGL context for rendering \(MUJOCO_GL=egl\): no display"):
        SceneRenderer(put_env.world.model, put_env.world.camera, 16, 16)


def rollout_with(**environment) -> subprocess.CompletedProcess:
    command = [sys.executable, "-m", "ptr_robot", "rollout", "--policy", "random", "--trials", "1"]
    kept = {name: value for name, value in os.environ.items() if name not in ("DISPLAY", "WAYLAND_DISPLAY")}
    return warm_python.run(command, env={**kept, **environment}, capture_output=True, text=True, timeout=120)


@pytest.mark.parametrize(
    ("chosen", "message"),
    [
        ("osmesa", "libOSMesa is not installed"),
        ("glfw", "DISPLAY environment variable is missing"),
        ("disabled", "the toy kitchens cannot draw with that"),
        ("vulkan", "the toy kitchens cannot draw with that"),
    ],
)
def test_a_back_end_that_cannot_draw_here_is_one_line(chosen, message):
    if chosen == "osmesa" and ctypes.util.find_library("OSMesa"):
        pytest.skip("OSMesa is installed: it can draw here")
    done = rollout_with(MUJOCO_GL=chosen)
    assert done.returncode == 2
    (line,) = done.stderr.splitlines()
    assert line.startswith(f"ptr-fast rollout: error: MUJOCO_GL={chosen}: ")
    assert message in line
    assert "set MUJOCO_GL=egl" in line


def test_a_platform_of_pyopengl_that_is_another_one_is_named():
    done = rollout_with(MUJOCO_GL="egl", PYOPENGL_PLATFORM="glx")
    assert done.returncode == 2
    (line,) = done.stderr.splitlines()
    assert "MUJOCO_GL=egl: PYOPENGL_PLATFORM is 'glx': unset it; " in line
    assert "{!r}" not in line


def test_an_error_of_the_drivers_is_one_line():
    done = rollout_with(MUJOCO_GL="egl", MUJOCO_EGL_DEVICE_ID="4000")
    assert done.returncode == 2
    (line,) = done.stderr.splitlines()
    assert "no OpenGL context for rendering" in line
    assert "MUJOCO_EGL_DEVICE_ID" in line


@pytest.mark.parametrize("pause_s", [0.0, 0.05])
def test_a_thread_that_still_draws_does_not_crash_the_end_of_the_process(pause_s):
    program = f"""
import threading, time, numpy as np
from ptr_robot.sim.environment import make_environment
begun = threading.Event()
def draw():
    env = make_environment("put block on plate", "A", image_size=32)
    env.reset(seed=0)
    while True:
        env.step(np.zeros(4, np.float32))
        begun.set()
        time.sleep({pause_s})
threading.Thread(target=draw, daemon=True).start()
begun.wait(60)
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=120)
    assert (done.returncode, done.stderr) == (0, "")


def test_frames_as_yuv420_planes_lose_little(put_env):
    """Drawn edges of pure colour are its worst case: 36 dB at 64 pixels, 33 at 32."""
    frames = torch.from_numpy(np.stack([put_env.reset(seed=seed)[0]["image"] for seed in range(4)]))
    lost = (yuv420.decode(yuv420.encode(frames)).double() - frames.double()).square().mean(dim=(1, 2, 3))
    assert float((10.0 * torch.log10(255.0**2 / lost)).min()) > 30.0
