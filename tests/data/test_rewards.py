"""Labels by position against the tensors computed by the published code."""

import numpy as np
import pytest

from ptr_fast.config import RewardConfig
from ptr_fast.data.rewards import label_steps, steps_to_end
from ptr_fast.types import ActionSpec


@pytest.fixture(scope="module")
def golden(golden_dir):
    with np.load(golden_dir / "rewards.npz") as arrays:
        return dict(arrays)


def bridge_spec(golden):
    names = tuple("abcdefg")
    return ActionSpec(names=names, units=names, low=tuple(golden["action/low"]), high=tuple(golden["action/high"]))


@pytest.mark.parametrize("terminal", [True, False])
def test_labels_equal_the_reference(golden, terminal):
    scale, shift = float(golden["reward_scale"]), float(golden["reward_shift"])
    config = RewardConfig(
        num_final_steps=int(golden["num_final_reward_steps"]),
        positive=scale + shift,
        negative=shift,
        positive_is_terminal=terminal,
    )
    lengths = golden["lengths"]
    rewards, masks = label_steps(lengths, config)
    ends = np.cumsum(lengths)
    assert rewards.dtype == masks.dtype == np.float32
    for length, end in zip(lengths, ends, strict=True):
        name, part = f"term_as_rew{int(terminal)}/T{length}", slice(end - length, end)
        np.testing.assert_array_equal(rewards[part], golden[f"{name}/rewards"])
        np.testing.assert_array_equal(masks[part], golden[f"{name}/masks"])
        np.testing.assert_array_equal(steps_to_end(lengths)[part] == 0, golden[f"{name}/dones"])


def test_defaults_are_the_papers(golden):
    config = RewardConfig()
    assert config.num_final_steps == golden["num_final_reward_steps"]
    assert config.positive == golden["reward_scale"] + golden["reward_shift"]
    assert config.negative == golden["reward_shift"]


def test_actions_scale_as_the_reference(golden):
    spec = bridge_spec(golden)
    np.testing.assert_allclose(spec.scale(golden["action/raw"]), golden["action/normalised"], atol=1e-6)
    np.testing.assert_allclose(spec.unscale(golden["action/normalised"]), golden["action/unnormalised"], atol=1e-6)
    longest = max(golden["lengths"])
    for option in (0, 1):
        name = f"term_as_rew{option}/T{longest}"
        np.testing.assert_allclose(spec.scale(golden[f"{name}/raw_actions"]), golden[f"{name}/actions"], atol=1e-6)


def test_failed_episodes_have_no_positive_step_and_no_end():
    rewards, masks = label_steps(np.array([2, 4, 1]), RewardConfig(), np.array([False, True, True]))
    assert rewards.tolist() == [10, 10, -1, -1, -1, -1, -1]
    assert masks.tolist() == [0, 0, 1, 1, 1, 1, 1]


def test_steps_to_end():
    assert steps_to_end(np.array([3, 1, 2])).tolist() == [2, 1, 0, 0, 1, 0]
    assert steps_to_end(np.zeros(0, np.int64)).tolist() == []
