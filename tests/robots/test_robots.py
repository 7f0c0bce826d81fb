"""Robots of our own: the kitchen in real time with its faults, and a stored episode."""

from __future__ import annotations

import subprocess
import sys
import time

import numpy as np
import pytest
import toy_robot

from ptr_fast.config import PolicySpec, TaskTable
from ptr_fast.data.store import EpisodeStore
from ptr_fast.runtime.safety import SafetyFilter
from ptr_fast.types import CameraSpec
from ptr_robot.robots import make_robot
from ptr_robot.robots.interface import camera_names, check_fits, match_cameras
from ptr_robot.sim.environment import STATE_SPEC, action_spec

STILL = {"dx": 0.0, "dy": 0.0, "dz": 0.0, "gripper": -1.0}


@pytest.fixture(scope="module")
def kitchen():
    robot = make_robot("simulated", image_size=32, latency_ms=20.0)
    robot.connect()
    yield robot
    robot.disconnect()


def spec(**changes) -> PolicySpec:
    defaults = {
        "cameras": (CameraSpec(name="image_0", height=32, width=32),),
        "state": STATE_SPEC,
        "action": action_spec(4),
        "tasks": TaskTable(names=("put block on plate",), num_slots=2),
        "control_hz": 20.0,
    }
    return PolicySpec(**{**defaults, **changes})


def hand(robot) -> np.ndarray:
    observed = robot.get_observation()
    return np.array([observed[name] for name in STATE_SPEC.names[:3]])


def test_it_delivers_several_cameras_of_one_moment():
    robot = make_robot("simulated", image_size=32, cameras="front,wrist")
    assert match_cameras(robot.name, camera_names(robot), ["wrist", "front"]) == {"wrist": "wrist", "front": "front"}
    robot.connect()
    try:
        robot.reset(3)
        observed = robot.get_observation()
        assert observed["front"].shape == observed["wrist"].shape == (32, 32, 3)
        assert np.abs(observed["front"].astype(int) - observed["wrist"]).mean() > 5
    finally:
        robot.disconnect()
    with pytest.raises(ValueError, match="did you mean 'wrist'"):
        make_robot("simulated", cameras="wirst")


def test_it_moves_while_it_is_told_to_and_stands_still_after(kitchen):
    kitchen.reset(3)
    before = hand(kitchen)
    for _ in range(10):
        assert kitchen.send_action({**STILL, "dx": 0.5, "dz": 5.0})["dz"] == 1.0
        time.sleep(0.05)
    time.sleep(0.3)
    after = hand(kitchen)
    assert after[0] - before[0] > 0.05
    time.sleep(0.3)
    assert np.abs(hand(kitchen) - after).max() < 0.01


def test_a_reset_is_drawn_from_its_seed(kitchen):
    frames = []
    for seed in (5, 6, 5):
        kitchen.reset(seed)
        observed = kitchen.get_observation()
        frames.append(observed["image_0"])
        assert observed["image_0"].shape == (32, 32, 3)
        assert abs(time.monotonic_ns() - observed["captured_ns"]) < 5e9
    np.testing.assert_array_equal(frames[0], frames[2])
    assert (frames[0] != frames[1]).any()
    assert kitchen.success() is False


@pytest.mark.parametrize("latency_ms", [0, 20, 137])
def test_a_frame_is_as_old_as_its_latency_when_it_comes_and_the_state_is_new(kitchen, latency_ms):
    kitchen._latency_s = latency_ms * 1e-3
    kitchen.reset(1)
    seen, first_ages, state_ages = kitchen.get_observation()["captured_ns"], [], []
    deadline = time.monotonic() + 0.9
    while time.monotonic() < deadline:
        observed, now = kitchen.get_observation(), time.monotonic_ns()
        state_ages.append(now - observed["state_captured_ns"])
        if observed["captured_ns"] != seen:
            seen = observed["captured_ns"]
            first_ages.append(now - seen)
        time.sleep(0.001)
    kitchen._latency_s = 0.02
    assert min(first_ages) >= latency_ms * 1e6
    assert np.median(first_ages) < (latency_ms + 10) * 1e6, "it does not wait for the next period"
    assert np.median(state_ages) < 60e6


def test_states_may_be_late_too():
    robot = make_robot("simulated", image_size=16, state_latency_ms=250)
    with robot:
        time.sleep(0.6)
        observed = robot.get_observation()
        assert 250e6 <= time.monotonic_ns() - observed["state_captured_ns"] < 400e6
        assert time.monotonic_ns() - observed["captured_ns"] < 150e6, "the camera is not"


def test_an_operator_at_the_arm_moves_it_and_begins_anew_after_a_reset(kitchen):
    kitchen.reset(1)
    start, told = hand(kitchen), []
    for _ in range(30):
        told.append(kitchen.operated("good", 5))
        kitchen.send_action(told[-1])
        time.sleep(0.05)
    assert np.linalg.norm(hand(kitchen) - start) > 0.02
    kitchen.reset(1)
    assert kitchen.operated("good", 5) == told[0]
    with pytest.raises(ValueError, match=r"skill: expected one of \['good', 'average', 'poor'\], got 'bad'"):
        kitchen.operated("bad", 0)


def test_a_camera_that_freezes(kitchen):
    kitchen._freeze_after_s = 0.2
    kitchen.reset(1)
    time.sleep(0.5)
    first = kitchen.get_observation()["captured_ns"]
    time.sleep(0.3)
    assert kitchen.get_observation()["captured_ns"] == first
    kitchen._freeze_after_s = 0.0


def test_its_limits_are_ones_that_a_filter_takes(kitchen):
    filter_ = SafetyFilter(kitchen.limits(20.0))
    filter_.start(0)
    state = np.float32([0.49, 0.6, 0.2, 1.0])
    command, _ = filter_.apply(np.float32([1, 0, 0, -1]), state, 0, 10**9)
    assert 0.49 + 0.04 * command[0] <= 0.5 + 1e-6


def test_an_unknown_task_is_told_by_connect():
    robot = make_robot("simulated", task="juggle")
    with pytest.raises(RuntimeError, match="unknown task 'juggle'"):
        robot.connect()
    robot.disconnect()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"hz": 30}, "divisor"),
        ({"drop_share": 1.0}, r"drop_share"),
        ({"latency_ms": -1}, "negative"),
        ({"state_latency_ms": -1}, "negative"),
    ],
)
def test_options_out_of_range(options, message):
    with pytest.raises(ValueError, match=message):
        make_robot("simulated", **options)


def test_unknown_robots_are_refused():
    with pytest.raises(ValueError, match="robot: expected one of simulated, replay, widowx, lerobot:TYPE"):
        make_robot("terminator")


def test_a_checkpoint_that_does_not_fit_is_refused_with_the_difference(kitchen):
    check_fits(kitchen, spec())
    with pytest.raises(ValueError, match=r"it acts at 20 Hz, the checkpoint was trained at 5 Hz"):
        check_fits(kitchen, spec(control_hz=5.0))
    with pytest.raises(ValueError, match="action 'dx' is in '4 cm', the checkpoint's is in '8 cm'"):
        check_fits(kitchen, spec(action=action_spec(8)))
    meta = toy_robot.toy_meta(("image_0",))
    with pytest.raises(ValueError, match="state does not fit the checkpoint: it needs"):
        check_fits(kitchen, spec(state=meta.state))


def test_replay(tmp_path):
    path = toy_robot.write_store(tmp_path / "store", toy_robot.toy_episodes(2))
    store = EpisodeStore.open(path)
    robot = make_robot("replay", store=path, episode=1, camera="image_1")
    robot.connect()
    observed = robot.get_observation()
    first = int(store.episodes.first[1])
    np.testing.assert_array_equal(observed["image_1"], store.frame("image_1", first))
    assert observed[store.meta.state.names[0]] == pytest.approx(float(store.state[first][0]))
    robot._begin -= 1e6
    last = first + int(store.episodes.num_frames[1]) - 1
    np.testing.assert_array_equal(robot.get_observation()["image_1"], store.frame("image_1", last))
    assert robot.success() is None
    SafetyFilter(robot.limits(store.meta.control_hz))
    robot.send_action({"x": 1.0})
    assert robot.sent == [{"x": 1.0}]
    with pytest.raises(ValueError, match="episode must lie in 0 to 1, got 2"):
        make_robot("replay", store=path, episode=2)


def test_triton_can_be_imported_after_something_was_drawn():
    pytest.importorskip("triton")
    program = """
from ptr_robot.sim.gl import choose_gl
choose_gl()
import mujoco
model = mujoco.MjModel.from_xml_string("<mujoco><worldbody><geom size='1'/></worldbody></mujoco>")
renderer = mujoco.Renderer(model, 8, 8)
renderer.update_scene(mujoco.MjData(model))
renderer.render()
import triton  # by torch, say, when an optimiser is made
print("done")
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=120)
    assert done.stdout == "done\n", f"{done.returncode}: {done.stderr}"


@pytest.mark.parametrize(("end", "code"), [("", 0), ("raise SystemExit(3)", 3)])
def test_a_kitchen_that_was_not_disconnected_ends_with_its_process(end, code):
    program = f"""
from ptr_robot.robots import make_robot
robot = make_robot("simulated", image_size=32)
robot.connect()
robot.get_observation()
{end}
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=120)
    assert (done.returncode, done.stderr) == (code, "")


def test_cameras_meet_by_name_or_by_the_map():
    assert match_cameras("arm", ["front", "wrist"], ["wrist", "front"]) == {"wrist": "wrist", "front": "front"}
    assert match_cameras("arm", ["front", "wrist", "top"], ["wrist"]) == {"wrist": "wrist"}
    assert match_cameras("arm", ["camera"], ["image_0"]) == {"image_0": "camera"}, "the only one is the only one"
    cameras = match_cameras("arm", ["cam0", "wrist"], ["image_0", "wrist"], ["cam0=image_0"])
    assert cameras == {"image_0": "cam0", "wrist": "wrist"}
    assert match_cameras("arm", ["left", "right"], ["image_0"], ["right=image_0"]) == {"image_0": "right"}


@pytest.mark.parametrize(
    ("wanted", "pairs", "message"),
    [
        (["front", "wrist"], [], r"arm: no camera 'wrist': the checkpoint sees \['front', 'wrist'\], arm has \["),
        (["image_0"], [], r"no camera 'image_0': .* name them with --camera-map ROBOT=CHECKPOINT"),
        (["image_0"], ["side=image_0"], r"camera-map: expected ROBOT=CHECKPOINT, each once, got 'side=image_0': the"),
        (["image_0"], ["front=wrist"], r"got 'front=wrist': the checkpoint sees \['image_0'\], arm has \['front"),
        (["image_0"], ["front"], r"got 'front'"),
        (["image_0"], ["front=image_0", "top=image_0"], r"got 'top=image_0'"),
        (["front", "wrist"], ["front=front", "front=wrist"], r"got 'front=wrist'"),
        (["front", "wrist"], ["front=wrist"], r"one camera, 'front', would be 'front' and 'wrist': the"),
    ],
)
def test_a_missing_camera_is_one_error_that_lists_both_sides(wanted, pairs, message):
    with pytest.raises(ValueError, match=message) as refused:
        match_cameras("arm", ["front", "top"], wanted, pairs)
    assert "\n" not in str(refused.value)
