"""The toy kitchens in LeRobot's own programs: ``lerobot-eval``, and ``lerobot-record`` with a model of an operator."""

from __future__ import annotations

import json
import sys

import numpy as np
import pytest

pytest.importorskip("lerobot", reason="LeRobot is not installed here")
pytest.importorskip("metaworld", reason="the toy kitchens need the extra 'sim' (metaworld, mujoco)")

from lerobot.envs import EnvConfig, make_env
from lerobot.envs.utils import env_to_policy_features, preprocess_observation
from lerobot.utils.import_utils import register_third_party_plugins

from ptr_robot.sim.environment import KitchenEnv

TASK = "put block on plate"


@pytest.fixture(scope="module", autouse=True)
def plugin():
    register_third_party_plugins()


def run_program(monkeypatch, module, *words):
    monkeypatch.setattr(sys, "argv", [module.__name__, *words])
    return module.main()


def test_a_kitchen_of_lerobots_is_the_kitchen(plugin):
    config = EnvConfig.get_choice_class("ptr")(kitchen="H", image_size=32, episode_length=3, cameras="front,wrist")
    features = env_to_policy_features(config)
    assert features["observation.images.wrist"].shape == (3, 32, 32)
    assert (features["observation.state"].shape, features["action"].shape) == ((4,), (4,))
    (many,) = make_env(config, n_envs=2)["ptr"].values()
    ours = KitchenEnv(TASK, "H", image_size=32, max_steps=3, cameras=("front", "wrist"))
    try:
        observed, _ = many.reset(seed=[3, 4])
        alone, _ = ours.reset(seed=4)
        assert many.call("task_description") == (TASK, TASK)
        for step in range(3):
            np.testing.assert_array_equal(observed["pixels"]["front"][1], alone["image"])
            np.testing.assert_array_equal(observed["pixels"]["wrist"][1], alone["wrist"])
            np.testing.assert_array_equal(observed["agent_pos"][1], alone["state"])
            assert set(preprocess_observation(observed)) == set(features) - {"action"}
            action = np.array([0.5, -0.5, 0.1 * step, 1.0], np.float32)
            observed, rewards, _, truncated, info = many.step(np.stack([action, action]))
            alone, reward, _, cut, _ = ours.step(action)
            assert (rewards[1], truncated[1]) == (reward, cut)
            if cut:
                assert not info["final_info"]["is_success"].any()
                break
    finally:
        many.close()
        ours.close()
    assert cut, "the last step ends the trial"


@pytest.fixture(scope="module")
def policy(tmp_path_factory):
    """An untrained policy of ours for the kitchen, as a folder of LeRobot."""
    main = pytest.importorskip("lerobot_policy_ptr.__main__", reason="lerobot_policy_ptr is not installed here")
    from ptr_fast.checkpoint import save_checkpoint
    from ptr_fast.config import ActConfig, EncoderConfig, PolicySpec, TaskTable
    from ptr_fast.learners import make_learner
    from ptr_fast.learners.bc.config import BcConfig
    from ptr_fast.types import CameraSpec
    from ptr_robot.sim.environment import STATE_SPEC, action_spec

    folder = tmp_path_factory.mktemp("policy")
    spec = PolicySpec(
        cameras=(CameraSpec(name="image_0", height=32, width=32),),
        state=STATE_SPEC,
        action=action_spec(4),
        tasks=TaskTable(names=(TASK,), num_slots=1),
        control_hz=20.0,
    )
    encoder = EncoderConfig(name="conv3", num_filters=8, embedding_dim=16)
    learner = make_learner(BcConfig(encoder=encoder, hidden_dims=(16,)), spec, seed=0)
    save_checkpoint(folder / "run", 1, learner, spec, ActConfig(mode="mean"), {"split": {"sources": []}})
    return main.to_lerobot(folder / "run", folder / "out")


def test_lerobot_eval_tries_a_policy_in_a_kitchen(policy, tmp_path, monkeypatch):
    from lerobot.scripts import lerobot_eval

    words = [f"--policy.path={policy}", "--env.type=ptr", "--env.image_size=32", "--env.episode_length=4"]
    words += ["--eval.n_episodes=2", "--eval.batch_size=2", "--eval.use_async_envs=false", f"--output_dir={tmp_path}"]
    run_program(monkeypatch, lerobot_eval, *words)
    told = json.loads((tmp_path / "eval_info.json").read_text())
    assert told["overall"]["n_episodes"] == 2
    assert 0.0 <= told["overall"]["pc_success"] <= 100.0


def test_lerobot_record_records_an_operator_at_the_simulated_arm(tmp_path, monkeypatch):
    from lerobot.datasets.lerobot_dataset import LeRobotDataset
    from lerobot.scripts import lerobot_record

    words = ["--robot.type=ptr", '--robot.options={"image_size": 32}', f"--robot.calibration_dir={tmp_path}/robot"]
    words += ["--teleop.type=ptr", f"--teleop.calibration_dir={tmp_path}/teleop", "--play_sounds=false"]
    words += ["--dataset.repo_id=me/toys", f"--dataset.root={tmp_path}/data", f"--dataset.single_task={TASK}"]
    words += ["--dataset.fps=20", "--dataset.episode_time_s=1.5", "--dataset.num_episodes=1", "--dataset.video=false"]
    words += ["--dataset.push_to_hub=false", "--dataset.no_stamp=true"]
    run_program(monkeypatch, lerobot_record, *words)
    data = LeRobotDataset("me/toys", root=tmp_path / "data")
    actions = np.stack([data[i]["action"].numpy() for i in range(len(data))])
    states = np.stack([data[i]["observation.state"].numpy() for i in range(len(data))])
    assert len(data) >= 10
    assert np.abs(actions[:, :3]).max() > 0.1
    assert np.linalg.norm(states[-1, :3] - states[0, :3]) > 0.02
