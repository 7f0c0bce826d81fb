"""Wrote ``files/robomimic_lift.hdf5.xz`` with the writers of robosuite and robomimic: ``python THIS FOLDER``.

Run it in an environment with robosuite 1.4.1, mujoco 2.3.7 and robomimic 0.3.0 (``MUJOCO_GL=egl`` or ``osmesa``,
``PYNPUT_BACKEND=dummy`` without a screen). That robomimic also imports mujoco_py, for the name of one exception, and
egl_probe, for the number of a GPU; modules with these names alone are enough. Demonstrations of the task Lift go
the way that robomimic's documentation describes for recordings of people:

1. robosuite's ``DataCollectionWrapper`` records the simulator; a script moves the arm in place of a person.
2. robosuite's ``collect_human_demonstrations`` gathers what succeeded into ``demo.hdf5``.
3. robomimic's ``convert_robosuite`` adds what robomimic needs, and its masks.
4. robomimic's ``dataset_states_to_obs`` plays three of them and writes observations, rewards and ends.
"""

import json
import lzma
import os
import runpy
import sys
from pathlib import Path

import numpy as np
import robosuite
from robosuite.controllers import load_controller_config
from robosuite.scripts.collect_human_demonstrations import gather_demonstrations_as_hdf5
from robosuite.wrappers import DataCollectionWrapper

MAX_STEPS, STEPS_AFTER_SUCCESS = 120, 5
OPEN, CLOSED = -1.0, 1.0
GAIN, REACH, HEIGHT = 12.0, 0.012, 0.08
"""Commands per metre of distance; how near is there, m; how high the hand waits above the cube, m."""


def command(obs: dict, phase: int, rng: np.random.Generator) -> tuple[np.ndarray, int]:
    """The next command (three displacements, three rotations, gripper) and phase of a script that lifts the cube."""
    above = obs["cube_pos"] + [0.0, 0.0, HEIGHT]
    goal = (above, obs["cube_pos"], obs["cube_pos"], above)[min(phase, 3)]
    away = goal - obs["robot0_eef_pos"]
    action = np.zeros(7)
    action[:3] = np.clip(GAIN * away + rng.normal(0.0, 0.05, 3), -1.0, 1.0)
    action[6] = OPEN if phase < 2 else CLOSED
    if phase < 2:
        return action, phase + (np.linalg.norm(away) < REACH)
    if phase < 3:
        held = abs(obs["robot0_gripper_qvel"]).max() < 0.01
        action[:3] = 0.0
        return action, phase + bool(held and obs["robot0_gripper_qpos"][0] < 0.035)
    action[:3] = [0.0, 0.0, 0.6]
    return action, phase


def record(folder: Path, count: int) -> dict:
    """Records ``count`` attempts below ``folder``; returns what the environment was made of."""
    config = {
        "env_name": "Lift",
        "robots": "Panda",
        "controller_configs": load_controller_config(default_controller="OSC_POSE"),
    }
    env = robosuite.make(
        **config,
        has_renderer=False,
        has_offscreen_renderer=False,
        use_camera_obs=False,
        ignore_done=True,
        reward_shaping=False,
        control_freq=20,
    )
    env = DataCollectionWrapper(env, str(folder))
    rng = np.random.default_rng(0)
    np.random.seed(0)  # robosuite places the cube by numpy's global generator
    for _ in range(count):
        obs, phase, after = env.reset(), 0, 0
        for _ in range(MAX_STEPS):
            action, phase = command(obs, phase, rng)
            obs, *_ = env.step(action)
            after += env._check_success()
            if after > STEPS_AFTER_SUCCESS:
                break
    env.close()
    return {**config, "control_freq": 20}


def run(module: str, *words: str) -> None:
    """Runs a program of robomimic as ``python -m`` does."""
    sys.argv = [module, *words]
    runpy.run_module(module, run_name="__main__")


def main(folder: Path) -> None:
    """Writes ``demo.hdf5``, ``image.hdf5`` and ``robomimic_lift.hdf5.xz``, which is the last one packed."""
    os.makedirs(folder / "recorded")
    info = record(folder / "recorded", 4)
    gather_demonstrations_as_hdf5(str(folder / "recorded"), str(folder), json.dumps(info))
    run("robomimic.scripts.conversion.convert_robosuite", "--dataset", str(folder / "demo.hdf5"))
    camera = ("--camera_names", "agentview", "--camera_height", "24", "--camera_width", "24")
    options = ("--output_name", "image.hdf5", "--done_mode", "2", "--n", "3", *camera)
    run("robomimic.scripts.dataset_states_to_obs", "--dataset", str(folder / "demo.hdf5"), *options)
    packed = lzma.compress((folder / "image.hdf5").read_bytes(), preset=9 | lzma.PRESET_EXTREME)
    (folder / "robomimic_lift.hdf5.xz").write_bytes(packed)


if __name__ == "__main__":
    main(Path(sys.argv[1]).resolve())
