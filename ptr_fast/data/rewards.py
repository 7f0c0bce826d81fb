"""Rewards and masks from the position of a step in its episode.

Source: PTR ``examples/train_utils.py`` (insert_data_real): the last ``num_final_steps`` transitions of a demonstration
are positive and, in the paper's setting, all of them terminal.
"""

from __future__ import annotations

import numpy as np

from ptr_fast.config import RewardConfig

__all__ = ["label_steps", "steps_to_end"]


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
    """Reward and mask of every transition.

    Args:
        num_steps: int ``[E]``, transitions per episode.
        config: reward values and which of them are terminal.
        is_failure: bool ``[E]``; failed episodes get the negative reward and mask 1 at every step. None: none failed.

    Returns:
        rewards, masks: float32 ``[sum(num_steps)]``; mask 0 where the target must not bootstrap.
    """
    num_steps = np.asarray(num_steps, np.int64)
    left = steps_to_end(num_steps)
    positive, terminal = left < config.num_final_steps, left == 0
    if is_failure is not None:
        succeeded = ~np.repeat(np.asarray(is_failure, bool), num_steps)
        positive, terminal = positive & succeeded, terminal & succeeded
    rewards = np.where(positive, config.positive, config.negative).astype(np.float32)
    return rewards, (~(positive if config.positive_is_terminal else terminal)).astype(np.float32)
