"""A robot of ours in the real LeRobot: found as a plugin, asked and commanded, by LeRobot's own features."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pytest

pytest.importorskip("lerobot", reason="LeRobot is not installed here")

import draccus
from lerobot.robots import RobotConfig, make_robot_from_config
from lerobot.utils.import_utils import register_third_party_plugins

from ptr_fast.runtime.safety import SafetyLimits
from ptr_robot.robots.interface import Robot

SIZE = (6, 8, 3)


class Arm(Robot):
    """Remembers what it was told."""

    name = "arm"

    def __init__(self, offset: float = 0.0) -> None:
        self.observation_features = {"x": float, "grip": float, "front": SIZE}
        self.action_features = {"dx": float, "grip": float}
        self.is_connected, self.told, self.offset = False, [], offset

    def connect(self, calibrate: bool = True) -> None:
        self.is_connected = True

    def reset(self, seed: int) -> None:
        self.told.append(("reset", seed))

    def get_observation(self) -> dict:
        frame = np.full(SIZE, 7, np.uint8)
        return {"x": 1.0 + self.offset, "grip": np.float32(2.0), "front": frame, "captured_ns": 5}

    def send_action(self, action: dict) -> dict:
        self.told.append(action)
        return {**action, "dx": min(action["dx"], 0.5)}

    def stop(self) -> None:
        self.told.append("stop")

    def success(self) -> None:
        return None

    def limits(self, hz: float) -> SafetyLimits:
        raise ValueError("it has none")

    def disconnect(self) -> None:
        self.is_connected = False


@pytest.fixture(autouse=True)
def plugin(monkeypatch, tmp_path):
    import lerobot_robot_ptr.ptr as plugin

    register_third_party_plugins()
    monkeypatch.setattr(plugin, "make_robot", lambda name, **options: Arm(**options))
    return tmp_path


def test_lerobot_makes_and_drives_one_of_ours(plugin):
    config = RobotConfig.get_choice_class("ptr")(options={"offset": 3}, seed=4, calibration_dir=plugin)
    robot = make_robot_from_config(config)
    assert robot.robot_type == "ptr"
    assert list(robot.cameras) == ["front"]
    with robot:
        assert robot.is_connected
        observed = robot.get_observation()
        assert set(observed) == set(robot.observation_features) == {"x.pos", "grip.pos", "front"}
        assert (observed["x.pos"], observed["grip.pos"], observed["front"].shape) == (4.0, 2.0, SIZE)
        assert robot.send_action({"dx.pos": 0.7, "grip.pos": 1}) == {"dx.pos": 0.5, "grip.pos": 1.0}
    assert robot._robot.told == [("reset", 4), {"dx": 0.7, "grip": 1.0}, "stop"]
    assert not robot.is_connected


def test_its_features_are_those_that_lerobot_records(plugin):
    from lerobot.utils.feature_utils import hw_to_dataset_features

    robot = make_robot_from_config(RobotConfig.get_choice_class("ptr")(calibration_dir=plugin))
    observation = hw_to_dataset_features(robot.observation_features, "observation", use_video=False)
    action = hw_to_dataset_features(robot.action_features, "action", use_video=False)
    assert observation["observation.state"]["names"] == ["x.pos", "grip.pos"]
    assert observation["observation.images.front"]["shape"] == SIZE
    assert action["action"]["names"] == ["dx.pos", "grip.pos"]


@dataclass
class Program:
    """As a program of LeRobot declares its robot."""

    robot: RobotConfig


def test_options_come_from_the_command_line(plugin):
    words = ["--robot.type=ptr", '--robot.options={"offset": 2}', f"--robot.calibration_dir={plugin}"]
    config = draccus.parse(Program, args=words).robot
    assert config.options == {"offset": 2}
    assert make_robot_from_config(config)._robot.offset == 2
