"""Fitted Q evaluation and the classifier of success against what they define, in worlds that can be solved exactly."""

import numpy as np
import pytest

from ptr_fast.policy_evaluation import ActionFeatures, fitted_q, predicted, success_weights

LIMITS = (-50.0, 10.0)


def test_fitted_q_is_the_value_of_the_policy_where_features_are_a_table():
    """A random Markov chain of 5 states and 2 actions; the value is the solution of Bellman's equation."""
    rng = np.random.default_rng(0)
    num_states, num_actions, discount = 5, 2, 0.9
    successor = rng.integers(0, num_states, (num_states, num_actions))
    reward, ends = rng.uniform(-1, 1, (num_states, num_actions)), rng.random((num_states, num_actions)) < 0.2
    policy = rng.integers(0, num_actions, num_states)
    cells = [(s, a) for s in range(num_states) for a in range(num_actions)]
    step = np.zeros((10, 10))  # from one (state, action) to the next, by the policy
    for row, (s, a) in enumerate(cells):
        if not ends[s, a]:
            step[row, cells.index((successor[s, a], policy[successor[s, a]]))] = 1.0
    wanted = np.linalg.solve(np.eye(10) - discount * step, [reward[s, a] for s, a in cells])
    table = np.concatenate([np.ones((10, 1)), np.eye(10)], axis=1)  # the constant, then one feature a cell
    following = np.stack([table[cells.index((successor[s, a], policy[successor[s, a]]))] for s, a in cells])
    rewards, masks = (np.array([values[s, a] for s, a in cells]) for values in (reward, 1.0 - ends))
    weights = fitted_q(table, following, rewards, masks, discount, LIMITS, ridge=1e-12)
    assert table @ weights == pytest.approx(wanted, abs=0.011 * np.abs(wanted).max())  # a hundredth is left


def test_fitted_q_prefers_the_policy_that_earns_more_and_stays_within_returns():
    """Going right on a line pays at its end. Recorded were random walks, in an episode each."""
    rng = np.random.default_rng(1)
    place, push = rng.uniform(0, 1, (2000, 1)), rng.uniform(-1, 1, (2000, 1))
    moved = np.clip(place + 0.1 * push, 0, 1)
    ends = (moved >= 0.95)[:, 0]
    features = ActionFeatures([place], push, 64)
    values = {}
    for name, action in (("right", 0.9), ("left", -0.9)):
        following = features([moved], np.full_like(push, action))
        weights = fitted_q(features([place], push), following, np.where(ends, 10.0, -1.0), 1.0 - ends, 0.9, (-10, 10))
        start = np.full((5, 1), 0.1)
        values[name] = float(np.clip(features([start], np.full((5, 1), action)) @ weights, -10, 10).mean())
    wanted = -sum(0.9**k for k in range(9)) + 10 * 0.9**9  # nine steps of 0.09, then the one that arrives
    assert values["right"] == pytest.approx(wanted, abs=0.8)
    assert values["left"] == pytest.approx(-10.0, abs=0.5)


def test_the_classifier_is_the_minimum_of_its_loss_and_every_episode_counts_the_same():
    rng = np.random.default_rng(2)
    episode = np.repeat(np.arange(40), rng.integers(1, 30, 40))
    success = (np.arange(40) % 2 == 0)[episode]
    features = np.concatenate([np.ones((len(episode), 1)), rng.normal(size=(len(episode), 3)) + success[:, None]], 1)
    weights = success_weights(features, success, episode, ridge=1e-2)
    share = 1.0 / np.bincount(episode)[episode] / 40

    def loss(at):
        chance = 1.0 / (1.0 + np.exp(-features @ at))
        likelihood = np.where(success, np.log(chance), np.log(1.0 - chance))
        return -(share * likelihood).sum() + 0.5e-2 * (at[1:] ** 2).sum()

    for direction in np.eye(4):
        gradient = (loss(weights + 1e-5 * direction) - loss(weights - 1e-5 * direction)) / 2e-5
        assert abs(gradient) < 1e-7
    chance = predicted(features, weights)
    assert chance[success].mean() > 0.7 > 0.3 > chance[~success].mean()
    assert success_weights(features, np.ones_like(success), episode) is None
    assert success_weights(features, np.zeros_like(success), episode) is None


def test_groups_weigh_the_same_however_wide_and_constants_count_for_nothing():
    rng = np.random.default_rng(3)
    wide, action = rng.normal(size=(300, 64)) * 100.0, rng.normal(size=(300, 2)) * 0.01
    constant, none = np.full((300, 3), 7.0), np.zeros((300, 0))
    features = ActionFeatures([wide, constant, none], action, 8, seed=1)
    made = features([wide, constant, none], action)
    assert made.shape == (300, 1 + 64 + 3 + 2 + 8)
    assert (made[:, 0] == 1.0).all()
    inputs = made[:, 1:70]
    assert inputs[:, :64].var(axis=0).sum() == pytest.approx(1.0)
    assert not inputs[:, 64:67].any()
    assert inputs[:, 67:].var(axis=0).sum() == pytest.approx(1.0)
    assert np.array_equal(
        made, ActionFeatures([wide, constant, none], action, 8, seed=1)([wide, constant, none], action)
    )
