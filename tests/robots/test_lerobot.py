"""LeRobot's robots here, through a package of the same shape; ours there; and limits files."""

from __future__ import annotations

import inspect
import json
import sys
import threading
import time
from pathlib import Path

import numpy as np
import pytest

from ptr_fast.config import PolicySpec, TaskTable
from ptr_fast.runtime.control import LoopConfig
from ptr_fast.runtime.safety import SafetyFilter
from ptr_fast.types import ActionSpec, CameraSpec, StateSpec
from ptr_robot.robots import CLASSES, make_robot
from ptr_robot.robots.limits_file import FORMAT, read_limits, write_limits
from ptr_robot.robots.replay import ReplayRobot
from ptr_robot.robots.simulated import SimulatedRobot
from ptr_robot.robots.widowx import WidowXRobot
from ptr_robot.trials.run import _connected, robot_options
from ptr_robot.trials.session import Operator, run_session

PACKAGE = {
    "draccus.py": """
import contextlib, json, sys
class DecodingError(Exception):
    pass
@contextlib.contextmanager
def config_type(kind):
    assert kind == "json"
    yield
def parse(config_class, config_path=None, args=None):
    given = json.load(open(config_path)) if config_path else {}
    for text in args:
        key, value = text.removeprefix("--").split("=", 1)
        if key not in ("port", "id", "use_degrees", "max_relative_target", "broken"):
            print(f"usage: ptr-fast [-h]\\nptr-fast: error: unrecognized arguments: {text}", file=sys.stderr)
            raise SystemExit(2)
        given[key] = json.loads(value)
    if not isinstance(given.get("use_degrees", True), bool):
        raise DecodingError("`use_degrees`: Couldn't parse\\n  'False' into a bool")
    try:
        return config_class(**given)
    except TypeError as error:
        raise DecodingError("Couldn't instantiate class ToyConfig") from error
""",
    "lerobot/__init__.py": "",
    "lerobot/robots/__init__.py": """
class RobotConfig:
    known = {}
    @classmethod
    def get_known_choices(cls):
        return cls.known
def make_robot_from_config(config):
    return config.robot(config)
""",
    "lerobot/robots/broken_arm.py": "import a_library_that_is_not_there",
    "lerobot/robots/toy_follower.py": """
import time
import numpy as np
from lerobot.robots import RobotConfig
JOINTS = ("shoulder.pos", "gripper.pos")
class BusError(Exception):
    pass
class ToyFollower:
    name, observation_takes_s, films, num_frames = "toy_follower", 0.0, False, 0
    def __init__(self, config):
        self.config, self.is_connected, self.sent = config, False, []
        self.at = dict.fromkeys(JOINTS, 0.0)
        self.busy = 0
        self.fail("make")
    def fail(self, method):
        if method == self.config.broken:
            raise BusError(f"{method}: no status\\npacket")
    @property
    def observation_features(self):
        return {**dict.fromkeys(JOINTS, float), "base.vel": float, "front": (4, 6, 3)}
    @property
    def action_features(self):
        return {**dict.fromkeys(JOINTS, float), "base.vel": float}
    def connect(self, calibrate=True):
        self.fail("connect")
        self.is_connected = True
    def get_observation(self):
        self.fail("get_observation")
        self.busy += 1
        assert self.busy == 1, "two threads on the bus"
        self.num_frames += self.films
        frame = np.full((4, 6, 3), (len(self.sent) + self.num_frames) % 256, np.uint8)
        time.sleep(self.observation_takes_s)
        self.busy -= 1
        return {**self.at, "base.vel": np.float32(0), "front": frame, "extra": 1}
    def send_action(self, action):
        self.fail("send_action")
        self.busy += 1
        assert self.busy == 1, "two threads on the bus"
        sent = {**action, "shoulder.pos": min(action["shoulder.pos"], 50.0)}
        self.sent.append(sent)
        self.at = {name: sent[name] for name in JOINTS}
        self.busy -= 1
        return sent
    def disconnect(self):
        self.fail("disconnect")
        assert self.is_connected
        self.is_connected = False
class ToyConfig:
    robot = ToyFollower
    def __init__(self, port, id=None, use_degrees=True, max_relative_target=None, broken=""):
        self.port, self.id, self.broken = port, id, broken
        self.use_degrees, self.max_relative_target = use_degrees, max_relative_target
RobotConfig.known["toy_follower"] = ToyConfig
""",
}


@pytest.fixture
def lerobot(tmp_path, monkeypatch):
    for name, text in PACKAGE.items():
        file = tmp_path / "site" / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)
    monkeypatch.syspath_prepend(str(tmp_path / "site"))
    yield
    for name in [n for n in sys.modules if n.split(".")[0] in ("lerobot", "draccus")]:
        del sys.modules[name]


def position(name: str, **changes) -> dict:
    axis = {"name": name, "unit": "deg", "relative": False, "state": name, "low": -90, "high": 90, "max_step": 4}
    return {**axis, **changes}


def content(**changes) -> dict:
    base = {"name": "base.vel", "unit": "m/s", "relative": True, "low": -0.2, "high": 0.2}
    axes = [base, position("gripper.pos", unit="%", low=0, high=100), position("shoulder.pos", box_high=45)]
    return {"format": FORMAT, "about": "toy", "axes": axes, "max_start_mismatch": 10, **changes}


@pytest.fixture
def limits(tmp_path):
    file = tmp_path / "limits.json"
    file.write_text(json.dumps(content()))
    return file


@pytest.fixture
def robot(lerobot, limits):
    robot = make_robot("lerobot:toy_follower", limits=limits, port="/dev/ttyACM0")
    robot.connect()
    yield robot
    robot.disconnect()


def test_a_lerobot_robot_is_a_robot_here(robot):
    assert robot.name == "lerobot:toy_follower"
    assert robot.observation_features == {
        "shoulder.pos": float,
        "gripper.pos": float,
        "base.vel": float,
        "front": (4, 6, 3),
    }
    before = time.monotonic_ns()
    observed = robot.get_observation()
    assert set(observed) == {*robot.observation_features, "captured_ns", "captured_ns.front"}
    assert isinstance(observed["base.vel"], float)
    assert before <= observed["captured_ns"] <= time.monotonic_ns()
    assert robot.get_observation()["captured_ns"] == observed["captured_ns"]  # the same frame again
    sent = robot.send_action({"shoulder.pos": 70.0, "gripper.pos": 1.0, "base.vel": 0.1})
    assert sent == {"shoulder.pos": 50.0, "gripper.pos": 1.0, "base.vel": 0.1}
    assert robot.get_observation()["captured_ns"] > observed["captured_ns"]
    robot.stop()
    assert robot._robot.sent[-1] == {"shoulder.pos": 50.0, "gripper.pos": 1.0, "base.vel": 0.0}
    with pytest.raises(RuntimeError, match="it was stopped; reset it first"):
        robot.send_action(sent)
    robot.reset(0)
    robot.send_action(sent)
    robot.disconnect()
    robot.disconnect()
    assert not robot.is_connected


def test_its_limits_are_in_the_order_of_its_actions(robot):
    limits = robot.limits(20.0)
    assert [axis.name for axis in limits.axes] == ["shoulder.pos", "gripper.pos", "base.vel"]
    assert [axis.position for axis in limits.axes] == [0, 1, -1]
    assert robot.units["gripper.pos"] == "%"
    filter_ = SafetyFilter(limits)
    filter_.start(0)
    command, _ = filter_.apply(np.float32([8, 5, 1]), np.float32([0, 0, 0]), 0, 10**10)
    np.testing.assert_allclose(command, [4, 4, 0.2], rtol=1e-6)


def test_its_bus_serves_one_thread_at_a_time(robot):
    failed = []

    def observe():
        try:
            for _ in range(200):
                robot.get_observation()
        except AssertionError as error:
            failed.append(error)

    thread = threading.Thread(target=observe)
    thread.start()
    for _ in range(200):
        robot.send_action({"shoulder.pos": 1.0, "gripper.pos": 1.0, "base.vel": 0.0})
    thread.join()
    assert not failed


def test_settings_from_a_file(lerobot, limits, tmp_path):
    (tmp_path / "arm.json").write_text('{"port": "/dev/a", "id": "left"}')
    made = make_robot("lerobot:toy_follower", limits=limits, config=tmp_path / "arm.json", port="/dev/b")
    assert (made._robot.config.port, made._robot.config.id) == ("/dev/b", "left")
    with pytest.raises(ValueError, match=r"cannot read .*nowhere.json"):
        make_robot("lerobot:toy_follower", limits=limits, config=tmp_path / "nowhere.json")


def test_settings_are_json(lerobot):
    options = robot_options(("port=5", "use-degrees=false", 'max_relative_target={"gripper": 5}', "id=left arm"))
    config = make_robot("lerobot:toy_follower", **options)._robot.config
    assert (config.port, config.use_degrees) == (5, False)
    assert (config.max_relative_target, config.id) == ({"gripper": 5}, "left arm")
    made = make_robot("lerobot:toy_follower", port=Path("/dev/a"), use_degrees=True, max_relative_target=None)
    assert (made._robot.config.port, made._robot.config.use_degrees) == ("/dev/a", True)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("port=a", "colour=red"), r'settings --port="a" --colour="red": unrecognized arguments: --colour="red"'),
        (("port=a", "use_degrees=False"), r"DecodingError: `use_degrees`: Couldn't parse 'False' into a bool; .* JSON"),
        ((), r"Couldn't instantiate class ToyConfig \(TypeError: .*missing 1 required positional argument: 'port'"),
    ],
)
def test_settings_that_lerobot_does_not_take_are_one_line(lerobot, capfd, options, message):
    with pytest.raises(ValueError, match=message) as refused:
        make_robot("lerobot:toy_follower", **robot_options(options))
    assert "\n" not in str(refused.value)
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize("method", ["make", "connect", "get_observation", "send_action", "disconnect"])
def test_whatever_lerobot_raises_is_one_line_that_says_where(lerobot, method):
    action = {"shoulder.pos": 1.0, "gripper.pos": 1.0, "base.vel": 0.0}

    def use() -> None:
        robot = make_robot("lerobot:toy_follower", port="a", broken=method)
        robot.connect()
        robot.get_observation()
        robot.send_action(action)
        robot.disconnect()

    with pytest.raises(RuntimeError, match=rf"lerobot:toy_follower: .*BusError: {method}: no status packet$"):
        use()


def test_an_arm_that_does_not_disconnect_does_not_hide_why_it_failed(lerobot):
    def use(error: Exception | None) -> None:
        with _connected(make_robot("lerobot:toy_follower", port="a", broken="disconnect")):
            if error is not None:
                raise error

    with pytest.raises(ValueError, match="the first error"):
        use(ValueError("the first error"))
    with pytest.raises(RuntimeError, match="BusError: disconnect"):
        use(None)


def test_a_plugin_that_cannot_be_imported_is_named(lerobot, tmp_path):
    (tmp_path / "site" / "lerobot_robot_toy.py").write_text("raise OSError('no udev rule')")
    with pytest.raises(ValueError, match=r"toy_follower'\]; not imported: .*broken_arm: ModuleNotFound.*no udev rule"):
        make_robot("lerobot:toy")


def run(robot, num_steps: int):
    """The control loop at 20 Hz with a policy that always wants to move."""
    names, units = ("shoulder.pos", "gripper.pos", "base.vel"), ("deg", "%", "m/s")
    spec = PolicySpec(
        cameras=(CameraSpec(name="front", height=4, width=6),),
        state=StateSpec(names=names, units=units),
        action=ActionSpec(names=names, units=units, low=(-90.0,) * 3, high=(90.0,) * 3),
        tasks=TaskTable(names=("lift",), num_slots=1),
        control_hz=20.0,
    )

    def policy(images, state):
        return np.float32([state[0, 0] + 1, state[0, 1] + 1, 0.1])

    robot._robot.films = True
    with Operator() as operator:
        return run_session(robot, policy, spec, robot.limits(20.0), LoopConfig(hz=20.0, num_steps=num_steps), operator)


def test_an_observation_that_takes_long_is_stale_and_no_period_is_missed(robot):
    assert run(robot, 10).outcome.num_held == 0
    robot.reset(0)
    robot._robot.observation_takes_s, num_sent = 0.3, len(robot._robot.sent)
    result = run(robot, 20)
    assert result.interventions["held_stale"] == 20
    assert result.outcome.num_missed <= 1, "the loop does not wait for the bus"
    assert {tuple(sent.values()) for sent in robot._robot.sent[num_sent:]} <= {(*robot._robot.at.values(), 0.0)}


def test_a_command_waits_for_a_long_observation_and_the_same_one_does_not(robot):
    told = {"shoulder.pos": 70.0, "gripper.pos": 1.0, "base.vel": 0.0}
    sent = robot.send_action(told)
    robot._robot.observation_takes_s, took = 0.3, []
    observing = threading.Thread(target=robot.get_observation)
    observing.start()
    time.sleep(0.05)
    for action in (told, {**told, "gripper.pos": 2.0}):
        begin = time.monotonic()
        assert robot.send_action(action) == {**sent, "gripper.pos": action["gripper.pos"]}
        took.append(time.monotonic() - begin)
    observing.join()
    assert took[0] < 0.1 < took[1]


def test_the_default_age_of_a_stale_observation_goes_by_the_rate(limits):
    states = ["shoulder.pos", "gripper.pos", "base.vel"]
    for hz, hold_after_s in ((50.0, 0.25), (20.0, 0.25), (5.0, 0.4), (0.5, 2.0)):
        assert read_limits(limits).limits(states, states, hz).hold_after_s == hold_after_s


def test_without_limits_it_is_refused(lerobot):
    robot = make_robot("lerobot:toy_follower", port="a")
    with pytest.raises(ValueError, match="no safety limits are known for this robot; write a limits file"):
        robot.limits(20.0)


def test_an_unknown_type_and_no_lerobot(lerobot, monkeypatch):
    with pytest.raises(ValueError, match=r"LeRobot has no such robot; it has \['toy_follower'\]"):
        make_robot("lerobot:t1000")
    monkeypatch.setitem(sys.modules, "lerobot", None)
    monkeypatch.setitem(sys.modules, "draccus", None)
    with pytest.raises(RuntimeError, match=r"LeRobot is not installed .*; pip install lerobot"):
        make_robot("lerobot:toy_follower")


def test_limits_that_are_written_are_read_again(tmp_path):
    robot = make_robot("widowx")
    states = [name for name, kind in robot.observation_features.items() if kind is float]
    file = tmp_path / "widowx.json"
    text = robot.limits(5.0)
    first = type(text)(**{**vars(text), "axes": [type(a)(**{**vars(a), "max_velocity": 9.0}) for a in text.axes]})
    first = type(text)(**{**vars(first), "max_start_mismatch": 1.0})
    write_limits(file, first, robot.units, states, "a copy")
    assert read_limits(file).limits(list(robot.action_features), states, 5.0) == first


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"format": "2"}, "format: expected 'ptr-fast limits 1', got '2'"),
        ({"ramp": 1}, "ramp"),
        ({"axes": []}, "axes: expected one or more"),
        ({"axes": [position("a"), position("a")]}, "distinct names"),
        ({"axes": [position("a", max_step=None)]}, "axis 'a': a position needs max_step or max_velocity"),
        ({"axes": [position("a", low=90)]}, "expected low < high"),
        ({"axes": [position("a", max_step=float("nan"))]}, "expected finite numbers"),
        ({"axes": [position("a", state=None, box_low=0)]}, "a box needs the state"),
        ({"axes": [{"name": "a"}]}, "unit"),
        ({"max_start_mismatch": None}, "max_start_mismatch: needed"),
    ],
)
def test_unsafe_or_damaged_limits(tmp_path, changes, message):
    file = tmp_path / "limits.json"
    file.write_text(json.dumps(content(**changes)))
    with pytest.raises(ValueError, match=f"limits.json.*{message}"):
        read_limits(file)


def test_limits_files_that_are_none(tmp_path):
    with pytest.raises(ValueError, match="cannot read the limits: No such file"):
        read_limits(tmp_path / "nowhere.json")
    (tmp_path / "bad.json").write_text("{")
    with pytest.raises(ValueError, match="not a limits file"):
        read_limits(tmp_path / "bad.json")
    (tmp_path / "good.json").write_text(json.dumps(content()))
    with pytest.raises(ValueError, match=r"no axis for \['elbow'\], no action for \['base.vel', "):
        read_limits(tmp_path / "good.json").limits(["elbow"], [], 5.0)
    with pytest.raises(ValueError, match=r"the robot has no state 'gripper.pos'"):
        read_limits(tmp_path / "good.json").limits(["shoulder.pos", "gripper.pos", "base.vel"], ["shoulder.pos"], 5.0)


# What LeRobot's abstract class asks of a robot: methods with their parameters, and attributes.
METHODS = {
    "connect": ["self", "calibrate"],
    "calibrate": ["self"],
    "configure": ["self"],
    "get_observation": ["self"],
    "send_action": ["self", "action"],
    "disconnect": ["self"],
}


@pytest.mark.parametrize("kind", [SimulatedRobot, ReplayRobot, WidowXRobot])
def test_ours_have_lerobots_shape(kind):
    assert kind.__name__ in {name for _, name in CLASSES.values()}
    for name, parameters in METHODS.items():
        signature = inspect.signature(getattr(kind, name))
        assert list(signature.parameters) == parameters, name
    assert inspect.signature(kind.connect).parameters["calibrate"].default is True
    assert isinstance(kind.name, str)
    assert isinstance(inspect.getattr_static(kind, "is_calibrated"), property)


def test_one_of_ours_in_code_written_for_lerobot():
    with SimulatedRobot(image_size=32) as robot:
        assert robot.is_connected
        assert robot.is_calibrated
        observed = robot.get_observation()
        for name, kind in robot.observation_features.items():
            assert observed[name].shape == kind if isinstance(kind, tuple) else isinstance(observed[name], kind)
        sent = robot.send_action(dict.fromkeys(robot.action_features, 0.0))
        assert set(sent) == set(robot.action_features)
    assert not robot.is_connected
