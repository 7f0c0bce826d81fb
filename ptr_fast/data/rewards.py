"""Rewards, masks and returns from the position of a step in its episode.

Source: PTR ``examples/train_utils.py`` (insert_data_real): the last ``num_final_steps`` transitions of a demonstration
are positive and, in the paper's setting, all of them terminal.

Note "Targets further ahead". With ``num_steps`` = n the Bellman target of step t looks m steps ahead instead of one::

    r_t + g r_{t+1} + ... + g^(m-1) r_{t+m-1}  +  g^m * mask_{t+m-1} * max_a min_E Q(s_{t+m}, a)

where m, at most n, ends with the first positive step or with the last step of the episode. A learner that computes
``reward + discount * mask * Q(next)`` needs no change for that: the batch's reward is the first sum, its mask is
``mask_{t+m-1} * g^(m-1)``, and its next observation lies m steps ahead. With n = 1 this is the published method.

Shapes: E episodes, N transitions of all of them, one episode after the other.
"""

from __future__ import annotations

import numpy as np

from ptr_fast.config import RewardConfig

__all__ = ["label_steps", "look_ahead", "observed_returns", "steps_to_end"]


def steps_to_end(num_steps: np.ndarray) -> np.ndarray:
    """How many transitions follow each transition of its episode.

    Args:
        num_steps: int ``[E]``, transitions per episode.

    Returns:
        int64 ``[sum(num_steps)]``, episodes one after the other; 0 at the last transition of each.
    """
    num_steps = np.asarray(num_steps, np.int64)
    return np.repeat(np.cumsum(num_steps), num_steps) - 1 - np.arange(int(num_steps.sum()))


def label_steps(
    num_steps: np.ndarray, config: RewardConfig, is_failure: np.ndarray | None = None
) -> tuple[np.ndarray, np.ndarray]:
    """Reward and mask of every transition, one step ahead.

    Args:
        num_steps: int ``[E]``, transitions per episode.
        config: reward values and which of them are terminal.
        is_failure: bool ``[E]``; failed episodes get the negative reward and mask 1 at every step. None: none failed.

    Returns:
        rewards, masks: float32 ``[sum(num_steps)]``; mask 0 where the target must not bootstrap.
    """
    left, failed = _positions(num_steps, is_failure)
    positive, terminal = (left < config.num_final_steps) & ~failed, (left == 0) & ~failed
    rewards = np.where(positive, config.positive, config.negative).astype(np.float32)
    return rewards, (~(positive if config.positive_is_terminal else terminal)).astype(np.float32)


def look_ahead(
    num_steps: np.ndarray,
    config: RewardConfig,
    discount: float,
    is_failure: np.ndarray | None = None,
    ends_blind: np.ndarray | None = None,
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Reward and mask of every transition ``config.num_steps`` ahead, and how far ahead that is.

    See the note "Targets further ahead". With ``config.num_steps`` 1 rewards and masks are those of
    :func:`label_steps`, bit for bit, whatever the discount.

    Args:
        num_steps, config, is_failure: as in :func:`label_steps`.
        discount: of the learner, in (0, 1).
        ends_blind: bool ``[E]``; the observation after the episode's last transition was not recorded. A failed episode
            is cut off there, so its targets end one observation earlier; its very last transition has no next
            observation at all and keeps m = 1 (it must not be trained on). None: all were recorded.

    Returns:
        rewards, masks: float32 ``[N]``, to be used as ``rewards + discount * masks * Q(next)``.
        steps: int64 ``[N]`` in 1..n, the m of each transition.
    """
    left, failed = _positions(num_steps, is_failure)
    blind = np.zeros(len(left), bool) if ends_blind is None else np.repeat(np.asarray(ends_blind, bool), num_steps)
    to_positive = np.maximum(left - config.num_final_steps + 1, 0) + 1
    to_cut = np.maximum(left + 1 - blind, 1)
    steps = np.minimum(np.where(failed, to_cut, to_positive), config.num_steps)
    rewards, masks = label_steps(num_steps, config, is_failure)
    if config.num_steps == 1:
        return rewards, masks, steps
    # All steps but the last of these m pay the negative reward: only the last one can be positive.
    before, power = _discounted_ones(steps.max(initial=1), discount)
    last = np.arange(len(steps)) + steps - 1
    total = config.negative * before[steps - 1] + power[steps - 1] * rewards[last]
    return total.astype(np.float32), (masks[last] * power[steps - 1]).astype(np.float32), steps


def observed_returns(
    num_steps: np.ndarray, config: RewardConfig, discount: float, is_failure: np.ndarray | None = None
) -> np.ndarray:
    """Discounted return that followed each transition, where the recording shows it to its end, else -inf.

    A return that was really had is a lower bound of what the best policy can have (in a world without chance; with
    chance it is one sample of such a bound). The return of a failed episode is no such bound: the recording was cut
    off there, and nothing says what would have followed. Its steps get -inf, so that ``max(target, return)`` leaves
    their target as it is. Episodes of unknown outcome count as successes, here as in their rewards.

    Args:
        num_steps, config, is_failure: as in :func:`label_steps`; ``config.num_steps`` has no influence.
        discount: of the learner, in (0, 1).

    Returns:
        float32 ``[N]``, never NaN.
    """
    left, failed = _positions(num_steps, is_failure)
    num_negative = np.maximum(left - config.num_final_steps + 1, 0)
    num_positive = 1 if config.positive_is_terminal else np.minimum(left + 1, config.num_final_steps)
    ones, power = _discounted_ones(left.max(initial=0) + 1, discount)
    returns = config.negative * ones[num_negative] + power[num_negative] * config.positive * ones[num_positive]
    return np.where(failed, -np.inf, returns).astype(np.float32)


def _positions(num_steps: np.ndarray, is_failure: np.ndarray | None) -> tuple[np.ndarray, np.ndarray]:
    """Of every transition: how many follow it in its episode, int64 ``[N]``, and whether that failed, bool ``[N]``."""
    num_steps = np.asarray(num_steps, np.int64)
    failed = np.zeros(len(num_steps), bool) if is_failure is None else np.asarray(is_failure, bool)
    return steps_to_end(num_steps), np.repeat(failed, num_steps)


def _discounted_ones(most: int, discount: float) -> tuple[np.ndarray, np.ndarray]:
    """For k = 0..most: ``1 + g + ... + g^(k-1)`` and ``g^k``, float64 ``[most + 1]``."""
    power = np.cumprod(np.concatenate([[1.0], np.full(int(most), discount)]))
    return np.concatenate([[0.0], np.cumsum(power[:-1])]), power
