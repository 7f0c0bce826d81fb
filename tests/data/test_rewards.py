"""Labels by position against the tensors computed by the published code; targets further ahead against plain sums."""

import numpy as np
import pytest
import torch

from ptr_fast.config import RewardConfig
from ptr_fast.data.rewards import label_steps, look_ahead, observed_returns, steps_to_end
from ptr_fast.diagnostics import monte_carlo_returns
from ptr_fast.losses import td_target
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


def plain_look_ahead(rewards, masks, positive, last_observation, discount, n):
    """One episode, step by step in float64: the sum, the mask and the number of steps ahead.

    ``last_observation``: number of the last one that a target may bootstrap from.
    """
    out = []
    for t in range(len(rewards)):
        total, m = 0.0, 0
        while True:
            total += discount**m * float(rewards[t + m])
            m += 1
            if m == n or positive[t + m - 1] or t + m >= last_observation:
                break
        out.append((total, float(masks[t + m - 1]) * discount ** (m - 1), m))
    return [np.array(column) for column in zip(*out, strict=True)]


def plain_returns(rewards, masks, discount):
    """One episode in float64; -inf where the sum runs over the end of the recording."""
    out, future = np.empty(len(rewards)), -np.inf
    for t in reversed(range(len(rewards))):
        future = out[t] = float(rewards[t]) + (discount * future if masks[t] else 0.0)
    return out


def random_episodes(seed, count=40):
    rng = np.random.default_rng(seed)
    return rng.integers(1, 23, count), rng.random(count) < 0.4, rng.random(count) < 0.5


@pytest.mark.parametrize("terminal", [True, False])
@pytest.mark.parametrize("n", [1, 2, 5, 40])
@pytest.mark.parametrize("num_final_steps", [1, 3])
def test_targets_further_ahead_equal_a_plain_sum(terminal, n, num_final_steps):
    config = RewardConfig(num_final_steps=num_final_steps, positive_is_terminal=terminal, num_steps=n)
    lengths, failed, blind = random_episodes(n)
    rewards, masks = label_steps(lengths, config, failed)
    got = look_ahead(lengths, config, 0.93, failed, blind)
    assert [column.dtype for column in got] == [np.float32, np.float32, np.int64]
    begins = np.cumsum(lengths) - lengths
    for begin, length, is_failure, is_blind in zip(begins, lengths, failed, blind, strict=True):
        part = slice(begin, begin + length)
        positive = (np.arange(length) >= length - num_final_steps) & ~is_failure
        last = length - (is_blind & is_failure)  # a success ends with mask 0: nothing is read behind it
        expected = plain_look_ahead(rewards[part], masks[part], positive, last, 0.93, n)
        for column, values in zip(got, expected, strict=True):
            np.testing.assert_allclose(column[part], values, rtol=1e-6)


def test_one_step_ahead_is_the_label_bit_for_bit():
    lengths, failed, blind = random_episodes(0)
    for config in (RewardConfig(), RewardConfig(positive=0.1, negative=-0.7, positive_is_terminal=False)):
        rewards, masks, steps = look_ahead(lengths, config, 0.96, failed, blind)
        for got, expected in zip((rewards, masks), label_steps(lengths, config, failed), strict=True):
            assert got.tobytes() == expected.tobytes()
        assert (steps == 1).all()


def test_no_target_looks_over_the_end_of_its_episode():
    """Two steps of success, three of a failure whose last frame is missing: the next observation is always its own."""
    lengths, failed, blind = np.array([2, 3]), np.array([False, True]), np.array([False, True])
    rewards, masks, steps = look_ahead(lengths, RewardConfig(num_final_steps=1, num_steps=4), 0.5, failed, blind)
    assert steps.tolist() == [2, 1, 2, 1, 1]
    assert rewards.tolist() == [-1 + 0.5 * 10, 10, -1.5, -1, -1]
    assert masks.tolist() == [0, 0, 0.5, 1, 1]


@pytest.mark.parametrize("terminal", [True, False])
@pytest.mark.parametrize("num_final_steps", [1, 3])
def test_a_return_is_a_bound_only_where_it_was_observed_to_its_end(terminal, num_final_steps):
    config = RewardConfig(num_final_steps=num_final_steps, positive_is_terminal=terminal, num_steps=5)
    lengths, failed, _ = random_episodes(7)
    rewards, masks = label_steps(lengths, config, failed)
    got = observed_returns(lengths, config, 0.93, failed)
    assert got.dtype == np.float32
    for end, length, is_failure in zip(np.cumsum(lengths), lengths, failed, strict=True):
        part = slice(end - length, end)
        np.testing.assert_allclose(got[part], plain_returns(rewards[part], masks[part], 0.93), rtol=1e-6)
        assert np.isneginf(got[part]).all() == is_failure
    known = np.isfinite(got)
    episode = np.repeat(np.arange(len(lengths)), lengths)
    from_diagnostics = monte_carlo_returns(rewards, masks, 0.93, episode=episode)
    np.testing.assert_allclose(got[known], from_diagnostics[known], rtol=1e-6)
    assert np.isnan(from_diagnostics[~known]).all()


def test_the_return_of_a_success_is_the_target_of_a_critic_that_knows_it():
    """Looking to the first positive step needs no critic where that step is terminal: reward = return."""
    lengths = np.array([9, 30])
    config = RewardConfig(num_steps=100)
    rewards, masks, _ = look_ahead(lengths, config, 0.96)
    assert (masks == 0).all()
    np.testing.assert_array_equal(rewards, observed_returns(lengths, config, 0.96))


def test_a_bound_lifts_only_the_targets_below_it():
    next_q = torch.tensor([[[0.0], [0.0], [0.0]]])
    target = td_target(
        next_q, torch.tensor([-1.0, -1.0, -1.0]), torch.ones(3), 0.5, torch.tensor([-3.0, 4.0, -torch.inf])
    )
    assert target.tolist() == [-1.0, 4.0, -1.0]


def test_no_step_ahead_is_refused():
    with pytest.raises(ValueError, match=r"rewards\.num_steps must be at least 1, got 0"):
        RewardConfig(num_steps=0)
