"""The WidowX client against a stand-in that speaks the service's protocol over a real socket."""

from __future__ import annotations

import os
import pickle
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path

import numpy as np
import pytest
import simplejpeg

from ptr_fast.config import PolicySpec, TaskTable
from ptr_fast.runtime.safety import SafetyFilter
from ptr_fast.types import CameraSpec
from ptr_robot.robots import make_robot
from ptr_robot.robots.interface import check_fits

zmq = pytest.importorskip("zmq")
lz4_frame = pytest.importorskip("lz4.frame")

import toy_robot  # noqa: E402
from widowx_stand_in import HEIGHT, WIDTH, StandIn  # noqa: E402

STILL = dict.fromkeys(("x", "y", "z", "roll", "pitch", "yaw"), 0.0) | {"gripper": 1.0}


@pytest.fixture
def service():
    stand_in = StandIn().start()
    yield stand_in
    stand_in.close()


def widowx(port: int, **options):
    return make_robot("widowx", port=port, image_height=HEIGHT, image_width=WIDTH, **{"timeout_s": 2.0, **options})


@pytest.fixture
def robot(service):
    robot = widowx(service.port)
    robot.connect()
    yield robot
    robot.disconnect()


def test_it_observes_steps_and_resets(service, robot):
    before = time.monotonic_ns()
    observed = robot.get_observation()
    assert set(observed) == set(robot.observation_features) | {"captured_ns"}
    assert observed["image_0"].shape == (HEIGHT, WIDTH, 3)
    assert observed["image_0"].dtype == np.uint8
    assert observed["x"] == 0.3
    assert before <= observed["captured_ns"] <= time.monotonic_ns()
    assert (service.resets, [step.tolist() for step in service.steps]) == (1, [[0, 0, 0, 0, 0, 0, 1]])
    sent = robot.send_action({**STILL, "x": 0.02, "z": 5.0, "gripper": -3.0})
    assert sent == {**STILL, "x": 0.02, "z": 0.05, "gripper": 0.0}
    np.testing.assert_array_equal(service.steps[-1], [0.02, 0, 0.05, 0, 0, 0, 0])
    observed = robot.get_observation()
    assert observed["x"] == pytest.approx(0.32)
    assert observed["z"] == pytest.approx(0.18)  # the service's own box
    robot.reset(7)
    assert service.resets == 2
    assert robot.get_observation()["x"] == 0.3
    assert robot.success() is None


def test_red_is_red(service, robot):
    """Whatever colours the service's encoder was told it got."""
    frame = robot.get_observation()["image_0"].astype(int)
    left, right = frame[: HEIGHT // 2, : WIDTH // 2 - 8], frame[: HEIGHT // 2, WIDTH // 2 + 8 :]
    assert np.abs(left - (200, 0, 0)).max() <= 3
    assert np.abs(right - (0, 0, 200)).max() <= 3


def test_it_asks_for_small_frames_of_the_services_own_and_for_the_cameras_size(service, robot):
    assert service.image_size == 256
    assert service.env_params["camera_topics"] == [
        {"name": "/blue/image_raw", "width": WIDTH, "height": HEIGHT, "flip": False}
    ]


@pytest.mark.parametrize("initialize", [True, False])
def test_no_step_comes_before_a_reset(service, initialize):
    """A service that was set up and not reset fails at a step, answers nobody, and sets itself up anew."""
    robot = widowx(service.port)
    service.act("init", {"env_params": {**robot._env_params, "wait_time": 1}, "image_size": 256})
    with pytest.raises(AttributeError):
        service.act("step_action", {"action": np.zeros(7), "blocking": False})
    robot = widowx(service.port, initialize=initialize)
    for connected in (1, 2):
        robot.connect()
        robot.send_action({**STILL, "x": 0.01})
        assert service.resets >= connected
        assert robot.get_observation()["x"] == pytest.approx(0.31)
    robot.disconnect()
    assert service.restarts == 0


def test_the_first_step_may_take_as_long_as_a_start(service):
    robot = widowx(service.port, timeout_s=0.3)
    act = service.act

    def compiles(key, payload):
        time.sleep(0.6 * (key == "step_action" and not service.steps))
        return act(key, payload)

    service.act = compiles
    robot.connect()
    robot.send_action(STILL)
    robot.disconnect()


def test_the_service_gets_the_workspace_that_the_filter_checks(service, robot):
    limits = robot.limits(5.0)
    low, high = service.env_params["override_workspace_boundaries"]
    for axis, wanted_low, wanted_high in zip(limits.axes[:3], low, high, strict=False):
        assert (axis.box_low, axis.box_high) == (wanted_low, wanted_high)
    filter_ = SafetyFilter(limits)
    filter_.start(0)
    state = np.float32([0.44, 0.0, 0.1, 0, 0, 0, 1.0])
    command, _ = filter_.apply(np.float32([0.05, 0, 0, 0, 0, 0, 0.5]), state, 0, 10**10)
    assert 0.44 + command[0] <= 0.45 + 1e-6
    assert command[6] == 0.5
    with pytest.raises(ValueError, match=r"a step takes 0.2 s, so 10 Hz is too fast"):
        robot.limits(10.0)


def test_it_fits_a_bridge_checkpoint(robot):
    meta = toy_robot.toy_meta(("image_0",))
    units = tuple(robot.units[name] for name in meta.state.names)
    state, action = (type(s)(**{**vars(s), "units": units}) for s in (meta.state, meta.action))
    camera = CameraSpec(name="image_0", height=HEIGHT, width=WIDTH)
    tasks = TaskTable(names=("put carrot on plate",), num_slots=1)
    spec = PolicySpec(cameras=(camera,), state=state, action=action, tasks=tasks, control_hz=5.0)
    check_fits(robot, spec)
    with pytest.raises(ValueError, match="action does not fit"):
        check_fits(make_robot("widowx", action_dim=5), spec)


def test_five_dimensions_and_several_cameras():
    service = StandIn(num_cameras=2).start()
    robot = widowx(service.port, action_dim=5, camera="front")
    try:
        robot.connect()
        assert service.env_params["action_mode"] == "3trans1rot"
        assert robot.get_observation()["front"].shape == (HEIGHT, WIDTH, 3)
        robot.send_action({"x": 0.0, "y": 0.01, "z": 0.0, "yaw": 0.1, "gripper": 1.0})
        np.testing.assert_array_equal(service.steps[-1], [0, 0.01, 0, 0.1, 1])
        SafetyFilter(robot.limits(5.0))
    finally:
        robot.disconnect()
        service.close()


def test_after_a_stop_nothing_is_sent_until_a_reset(service, robot):
    robot.stop()
    num_steps = len(service.steps)
    with pytest.raises(RuntimeError, match="it was stopped; reset it first"):
        robot.send_action(STILL)
    assert len(service.steps) == num_steps
    robot.reset(0)
    robot.send_action(STILL)
    assert len(service.steps) == num_steps + 1


def test_a_frozen_camera_grows_old(service, robot):
    robot.get_observation()
    service.frozen = True
    first = robot.get_observation()["captured_ns"]
    time.sleep(0.05)
    assert robot.get_observation()["captured_ns"] == robot.get_observation()["captured_ns"] <= first
    service.frozen = False
    assert robot.get_observation()["captured_ns"] > first


def test_numbers_that_are_none(service, robot):
    num_steps = len(service.steps)
    with pytest.raises(ValueError, match="expected finite actions"):
        robot.send_action({**STILL, "x": float("nan")})
    assert len(service.steps) == num_steps


def test_it_refuses_what_the_service_refuses(service, robot):
    service.status = 2
    with pytest.raises(RuntimeError, match=r"widowx at localhost:\d+: step_action: it could not carry that out"):
        robot.send_action(STILL)


def test_a_late_answer_is_not_taken_for_the_next_one(service):
    robot = widowx(service.port, timeout_s=0.3)
    robot.connect()
    service.delay_s = 0.6
    began = time.monotonic()
    with pytest.raises(RuntimeError, match=r"no answer within 0.3 s"):
        robot.send_action({**STILL, "x": 0.01})
    assert time.monotonic() - began < 0.55
    service.delay_s = 0.0
    time.sleep(0.5)
    assert robot.get_observation()["x"] == pytest.approx(0.31)
    robot.send_action(STILL)
    robot.disconnect()


def test_disconnect_ends_a_request_under_way(service, robot):
    service.delay_s = 1.5
    failed = []

    def observe():
        try:
            robot.get_observation()
        except RuntimeError as error:
            failed.append(str(error))

    thread = threading.Thread(target=observe)
    thread.start()
    time.sleep(0.2)
    began = time.monotonic()
    robot.disconnect()
    robot.disconnect()
    thread.join(5)
    assert time.monotonic() - began < 0.5
    assert "disconnected" in failed[0]
    with pytest.raises(RuntimeError, match="not connected"):
        robot.get_observation()


class Evil:
    def __reduce__(self):
        return os.mkdir, (Evil.path,)


def test_a_pickle_that_would_run_something_is_refused(service, robot, tmp_path):
    Evil.path = str(tmp_path / "ran")
    service.raw = lz4_frame.compress(pickle.dumps({"state": Evil()}))
    for call in (robot.get_observation, lambda: robot.send_action(STILL)):
        with pytest.raises(RuntimeError, match=r"refused pickle: it names posix.mkdir"):
            call()
    assert not (tmp_path / "ran").exists()


def jpeg(height: int, width: int) -> bytes:
    return simplejpeg.encode_jpeg(np.zeros((height, width, 3), np.uint8))


def observation(frame) -> bytes:
    return lz4_frame.compress(pickle.dumps({"state": np.zeros(7), "full_image": frame}))


@pytest.mark.parametrize(
    ("raw", "message"),
    [
        (b"", "not LZ4|no end"),
        (b"\x00" * 100, "not LZ4"),
        (lz4_frame.compress(b"\x00" * 100), "pickle"),
        (lz4_frame.compress(bytes(65 << 20)), "no end within"),
        (lz4_frame.compress(pickle.dumps({"state": 1})), "not an observation"),
        (lz4_frame.compress(pickle.dumps([1])), "not an observation"),
        (
            lz4_frame.compress(pickle.dumps({"state": np.full(7, np.nan), "full_image": 0})),
            "state: expected 7 finite numbers",
        ),
        (observation(jpeg(9, 9)), "camera: expected frames of 48 x 64 pixels, got 9 x 9; see image_height"),
        (observation(jpeg(HEIGHT, WIDTH)[:200]), "camera: not a whole JPEG file of 200 bytes"),
        (observation(b"\xff\xd8 no picture"), "camera: not a whole JPEG file of 13 bytes"),
        (observation(b""), "camera: not a whole JPEG file of 0 bytes"),
        (observation(np.zeros((HEIGHT, WIDTH, 3), np.uint8)), "camera: expected a JPEG file, got ndarray"),
    ],
)
def test_garbage_is_one_clear_error(service, robot, raw, message):
    service.raw = raw
    with pytest.raises(RuntimeError, match=message):
        robot.get_observation()
    service.raw = None
    robot.get_observation()


def test_another_service_or_none(service):
    service.raw = lz4_frame.compress(pickle.dumps({"success": True, "payload": "42"}))
    with pytest.raises(RuntimeError, match="not a WidowX environment service"):
        widowx(service.port).connect()
    service.raw, service.testing = None, True
    with pytest.raises(RuntimeError, match="init: it is not initialised"):
        widowx(service.port).connect()
    with pytest.raises(RuntimeError, match="reset: it is not initialised"):
        widowx(service.port, initialize=False).connect()
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        with pytest.raises(RuntimeError, match=r"no answer within 0.2 s"):
            widowx(free.getsockname()[1], timeout_s=0.2).connect()


@pytest.mark.parametrize(
    ("options", "message"),
    [({"action_dim": 6}, "5 or 7"), ({"port": 0}, "port"), ({"timeout_s": 0.0}, "timeout_s: expected a positive")],
)
def test_options_out_of_range(options, message):
    with pytest.raises(ValueError, match=message):
        make_robot("widowx", **options)


def test_a_service_that_is_killed_and_comes_back():
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [sys.executable, str(Path(__file__).with_name("widowx_stand_in.py")), str(port)]
    robot = widowx(port, timeout_s=20.0)
    first = subprocess.Popen(command)
    try:
        robot.connect()
        robot._timeout_s = 0.5
        first.kill()
        first.wait()
        began = time.monotonic()
        with pytest.raises(RuntimeError, match="no answer within"):
            robot.send_action(STILL)
        assert time.monotonic() - began < 2.0
        second = subprocess.Popen(command)
        try:
            robot._timeout_s = 20.0
            with pytest.raises(RuntimeError, match="it is not initialised: it sends made-up observations"):
                robot.get_observation()  # it came back without its arm
            robot.connect()
            robot.send_action(STILL)
        finally:
            second.kill()
            second.wait()
    finally:
        robot.disconnect()
        first.kill()
        first.wait()
