"""How far the value of success reaches, against returns summed step by step and a chain updated step by step."""

import numpy as np
import pytest

from ptr_fast.config import RewardConfig
from ptr_fast.data.rewards import label_steps, look_ahead
from ptr_fast.diagnostics import monte_carlo_returns
from ptr_fast.value_reach import describe_reach, discount_that_leaves, learned_gap, success_gap, updates_to_reach

NOT_TERMINAL = RewardConfig(positive=1.0, negative=-0.5, num_final_steps=4, positive_is_terminal=False)


@pytest.mark.parametrize("rewards", [RewardConfig(), NOT_TERMINAL])
@pytest.mark.parametrize("num_steps", [1, 3, 5, 71])
def test_the_gap_is_that_of_the_returns(rewards, num_steps):
    discount = 0.96
    values, masks = label_steps(np.array([num_steps]), rewards)
    success = monte_carlo_returns(values, masks, discount)
    failure = rewards.negative / (1 - discount)
    at_start, at_end = success_gap(num_steps, rewards, discount)
    assert at_start == pytest.approx(success[0] - failure, rel=1e-9)
    first_positive = max(num_steps - rewards.num_final_steps, 0)
    assert at_end == pytest.approx(success[first_positive] - failure, rel=1e-9)
    assert at_start / at_end == pytest.approx(discount**first_positive)


def test_numbers_for_the_published_labels():
    for num_steps, discount, left, whole in [(71, 0.96, 2.18, 35), (71, 0.98, 15.19, 60), (80, 0.96, 1.51, 35)]:
        assert success_gap(num_steps, RewardConfig(), discount) == pytest.approx((left, whole), abs=5e-3)
    assert discount_that_leaves(0.2, 71, RewardConfig()) == 0.98
    assert discount_that_leaves(0.2, 400, RewardConfig()) == 0.996


def chain(num_updates, num_steps, rewards, discount, tau):
    """Averaged values at the start of a success minus those of a failure after each update, one table entry a step."""
    values, masks, steps = look_ahead(np.array([num_steps]), rewards, discount)
    following = np.minimum(np.arange(num_steps) + steps, num_steps - 1)
    success, failure = np.zeros(num_steps), 0.0
    pays = rewards.negative * np.sum(discount ** np.arange(rewards.num_steps))
    gaps = []
    for _ in range(num_updates):
        success = success + tau * (values + discount * masks * success[following] - success)
        failure += tau * (pays + discount**rewards.num_steps * failure - failure)
        gaps.append(success[0] - failure)
    return np.array(gaps)


@pytest.mark.parametrize("n", [1, 3, 5, 50])
@pytest.mark.parametrize("rewards", [RewardConfig(), NOT_TERMINAL])
@pytest.mark.parametrize("tau", [0.05, 1.0])
def test_the_closed_form_is_the_chain(n, rewards, tau):
    rewards = RewardConfig(**{**vars(rewards), "num_steps": n})
    gaps = chain(800, 17, rewards, 0.9, tau)
    for num_updates in (1, 2, 7, 50, 333, 600):
        got = learned_gap(num_updates, 17, rewards, 0.9, tau)
        assert got == pytest.approx(gaps[num_updates - 1], rel=1e-5, abs=1e-6)
    for share in (0.5, 0.9):
        first = int(np.argmax(gaps >= share * success_gap(17, rewards, 0.9)[0])) + 1
        assert updates_to_reach(17, rewards, 0.9, tau, share) == pytest.approx(first, abs=1)


@pytest.mark.parametrize(
    ("num_steps", "discount", "n", "tau", "half", "most"),
    [
        (30, 0.96, 1, 0.005, 7400, 15300),
        (30, 0.96, 5, 0.005, 1600, 3300),
        (30, 0.96, 5, 0.02, 400, 830),
        (60, 0.96, 3, 0.005, 4700, 7500),
        (60, 0.98, 1, 0.02, 4200, 8200),
    ],
)
def test_updates_of_demonstrations(num_steps, discount, n, tau, half, most):
    """Against numbers from a chain that was updated one by one elsewhere, told with two or three figures."""
    rewards = RewardConfig(num_steps=n)
    assert updates_to_reach(num_steps, rewards, discount, tau) == pytest.approx(half, rel=0.02)
    assert updates_to_reach(num_steps, rewards, discount, tau, 0.9) == pytest.approx(most, rel=0.02)


def test_the_sentences():
    lengths = np.array([60, 71, 90])
    discount, updates = describe_reach(lengths, RewardConfig(), 0.96, 0.005, 4000)
    assert discount == (
        "the median episode that did not fail has 71 steps: at discount 0.96, 2.2 of the 35 between success and "
        "failure are left at its start (6 %), and 1 in an episode of 90 (nine in ten are no longer); discount 0.98 "
        "leaves 15 of 60"
    )
    assert updates == (
        "half of that has reached the start after about 16,000 updates (tau 0.005, rewards.num_steps 1, each state "
        "learned for itself); this run makes 4,000; rewards.num_steps 5 needs about 3,300"
    )
    bounded = RewardConfig(num_steps=5, lower_bound_returns=True)
    assert describe_reach(lengths, bounded, 0.98, 0.005)[1].endswith("into the targets from the beginning")
    assert "discount 0.98 leaves" not in describe_reach(lengths, bounded, 0.98)[0]
    assert describe_reach(np.array([], int), RewardConfig(), 0.96) == []
    (warning,) = describe_reach(lengths, RewardConfig(positive=25.0, negative=1.0), 0.96, 0.005)
    assert "a failure that goes on for ever is worth as much as a success or more" in warning


def test_bad_arguments_are_named():
    for message, call in {
        "num_steps": lambda: success_gap(0, RewardConfig(), 0.9),
        "discount": lambda: success_gap(5, RewardConfig(), 1.0),
        "tau": lambda: learned_gap(5, 5, RewardConfig(), 0.9, 0.0),
        "share": lambda: updates_to_reach(5, RewardConfig(), 0.9, 0.1, 1.0),
    }.items():
        with pytest.raises(ValueError, match=message):
            call()
