"""How far the value of success reaches back into an episode: at a discount at all, and after how many updates.

All of it follows from the rewards, the discount, the length of the episode and the rate of the averaged critic; nothing
is measured. Pure functions, no clocks, no files.

Note "What the discount leaves". An episode of T steps pays the negative reward r- for j = T - num_final_steps steps and
then r+ (and, where only the last step is terminal, r+ for p = num_final_steps steps; else p = 1). A failure pays r- for
ever. With discount g and S(k) = 1 + g + ... + g^(k-1) their returns at the first step differ by::

    r- S(j) + g^j r+ S(p)  -  r- / (1 - g)   =   g^j (r+ S(p) - r- / (1 - g))

The bracket is the difference at the first positive step, so a share of g^j is left at the start. The published labels
(-1, +10, three final steps, all terminal) and 71 steps: j = 68; at discount 0.96 the bracket is 10 + 25 = 35 and 2.2
are left; at 0.98 it is 60 and 15.2 are left.

Note "How fast it gets there". In an idealised chain (a table instead of a net, an online critic that fits its target at
once, values that start at 0) an update of the averaged critic, Q <- (1 - tau) Q + tau (r + g Q'), makes its value after
u updates the mean over B of the sum of the first B rewards, where B is binomial(u, tau). With n-step targets B counts
targets, n steps each. So the value looks about tau n steps further with every update, and the success is seen from the
start once B reaches the number of targets on the way, ceil((j + 1) / n). The failure's value falls with B as well. A
net that generalises over states can be faster than the table, one that learns slowly is slower.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np

from ptr_fast.config import RewardConfig

__all__ = [
    "describe_reach",
    "discount_that_leaves",
    "learned_gap",
    "success_gap",
    "updates_to_reach",
]

FAINT_SHARE = 0.1
"""Share of the gap left at the start below which a critic can hardly tell the two apart there."""
CLEAR_SHARE = 0.2
"""Share that the advised discount leaves."""


def success_gap(num_steps: int, rewards: RewardConfig, discount: float) -> tuple[float, float]:
    """Return of a success minus that of a failure: at the first step of an episode, and at its first positive step.

    See the note "What the discount leaves".

    Args:
        num_steps: T, steps of the episode, at least 1.
        rewards: labels; ``num_steps`` and ``lower_bound_returns`` have no influence, they change no return.
        discount: in (0, 1).
    """
    _check(num_steps, discount)
    num_positive = 1 if rewards.positive_is_terminal else min(rewards.num_final_steps, num_steps)
    at_the_end = rewards.positive * _ones(num_positive, discount) - rewards.negative / (1.0 - discount)
    return discount ** _num_negative(num_steps, rewards) * at_the_end, at_the_end


def discount_that_leaves(share: float, num_steps: int, rewards: RewardConfig) -> float:
    """Smallest discount, in steps of 0.01 (0.001 above 0.99, and so on), that leaves this share at the start."""
    if not 0.0 < share < 1.0:
        raise ValueError(f"share must lie in (0, 1), got {share}")
    _check(num_steps, 0.5)
    needed = share ** (1.0 / max(1, _num_negative(num_steps, rewards)))
    for digits in range(2, 16):
        rounded = math.ceil(needed * 10**digits - 1e-9) / 10**digits
        if rounded < 1.0:
            return rounded
    raise ValueError(f"an episode of {num_steps} steps is too long for any discount to leave a share of {share}")


def learned_gap(num_updates: int, num_steps: int, rewards: RewardConfig, discount: float, tau: float) -> float:
    """The gap at the first step that the averaged critic has learned after so many updates of the idealised chain.

    See the note "How fast it gets there". Not modelled: ``lower_bound_returns``.

    Args:
        num_updates: at least 0.
        num_steps, rewards, discount: as in :func:`success_gap`; ``rewards.num_steps`` is n.
        tau: rate of the averaged critic, in (0, 1].
    """
    _check(num_steps, discount)
    if not 0.0 < tau <= 1.0:
        raise ValueError(f"tau must lie in (0, 1], got {tau}")
    n, num_negative = rewards.num_steps, _num_negative(num_steps, rewards)
    num_positive = 1 if rewards.positive_is_terminal else min(rewards.num_final_steps, num_steps)
    chance = _binomial(num_updates, tau)
    seen = np.arange(len(chance))  # B: targets that the value looks through
    # The target that holds the first positive step ends with it; each further one adds one positive step.
    num_paid = np.clip(seen - math.ceil((num_negative + 1) / n) + 1, 0, num_positive)
    success = rewards.negative * _ones(num_negative, discount)
    success = success + discount**num_negative * rewards.positive * _ones(num_paid, discount)
    failure = rewards.negative * _ones(n * seen, discount)
    return float(np.sum(chance * np.where(num_paid > 0, success - failure, 0.0)))


def updates_to_reach(num_steps: int, rewards: RewardConfig, discount: float, tau: float, share: float = 0.5) -> int:
    """Updates after which a share of the final gap has reached the first step, in the idealised chain.

    Args:
        num_steps, rewards, discount, tau: as in :func:`learned_gap`.
        share: of :func:`success_gap`, in (0, 1).
    """
    if not 0.0 < share < 1.0:
        raise ValueError(f"share must lie in (0, 1), got {share}")
    wanted = share * success_gap(num_steps, rewards, discount)[0]

    def is_there(num_updates: int) -> bool:
        return learned_gap(num_updates, num_steps, rewards, discount, tau) >= wanted

    return _first(is_there)


def describe_reach(
    lengths: np.ndarray, rewards: RewardConfig, discount: float, tau: float | None = None, num_updates: int = 0
) -> list[str]:
    """Sentences about episodes of these lengths; none where there is no episode.

    Args:
        lengths: int ``[E]``, steps of the episodes that did not fail.
        rewards, discount: as in :func:`success_gap`.
        tau: rate of the averaged critic; None leaves out after how many updates the value is there.
        num_updates: of the run, to compare with; 0 leaves that out.
    """
    if len(lengths) == 0:
        return []
    median, long = (int(np.quantile(lengths, q, method="inverted_cdf")) for q in (0.5, 0.9))
    left, whole = success_gap(median, rewards, discount)
    if whole <= 1e-9 * (rewards.positive - rewards.negative):
        return [
            f"at discount {discount:g} a failure that goes on for ever is worth as much as a success or more: take a "
            f"rewards.negative below {rewards.negative:g}, or a lower discount"
        ]
    text = (
        f"the median episode that did not fail has {median} steps: at discount {discount:g}, {left:.2g} of the "
        f"{whole:.3g} between success and failure are left at its start ({100 * left / whole:.0f} %)"
    )
    if long > median:
        text += (
            f", and {success_gap(long, rewards, discount)[0]:.2g} in an episode of {long} (nine in ten are no longer)"
        )
    advised = discount_that_leaves(CLEAR_SHARE, median, rewards)
    other_left, other_whole = success_gap(median, rewards, advised)
    if left / whole < CLEAR_SHARE and advised > discount and other_left > left:
        text += f"; discount {advised:g} leaves {other_left:.2g} of {other_whole:.3g}"
    sentences = [text]
    if tau is not None:
        sentences.append(_describe_updates(median, rewards, discount, tau, num_updates))
    return sentences


def _describe_updates(num_steps: int, rewards: RewardConfig, discount: float, tau: float, num_updates: int) -> str:
    """After how many updates half of the gap is at the start, and what would be faster."""
    needed = updates_to_reach(num_steps, rewards, discount, tau)
    text = (
        f"half of that has reached the start after about {_rounded(needed)} updates (tau {tau:g}, rewards.num_steps "
        f"{rewards.num_steps}, each state learned for itself)"
    )
    if num_updates:
        text += f"; this run makes {num_updates:,}"
    if rewards.lower_bound_returns:
        return text + "; rewards.lower_bound_returns puts the returns of successes into the targets from the beginning"
    if rewards.num_steps < 5:
        further = updates_to_reach(num_steps, replace(rewards, num_steps=5), discount, tau)
        text += f"; rewards.num_steps 5 needs about {_rounded(further)}"
    return text


def _rounded(count: int) -> str:
    """Two figures: 13,599 is 14,000."""
    unit = 10 ** max(0, len(str(count)) - 2)
    return f"{round(count / unit) * unit:,}"


def _first(holds: Callable[[int], bool]) -> int:
    """The smallest number from 1 on for which a condition holds that holds for all larger ones."""
    high = 1
    while not holds(high):
        high *= 2
    low = high // 2
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if holds(middle) else (middle, high)
    return high


def _binomial(num_trials: int, chance: float) -> np.ndarray:
    """Probabilities of 0, 1, ... successes, float64; cut off where the rest is below 1e-20."""
    if chance == 1.0:
        return np.eye(1, num_trials + 1, num_trials)[0]
    spread = math.sqrt(num_trials * chance * (1.0 - chance))
    most = min(num_trials, math.ceil(num_trials * chance + 12.0 * spread + 50.0))
    k = np.arange(1, most + 1)
    steps = np.log((num_trials - k + 1) / k) + math.log(chance) - math.log1p(-chance)
    return np.exp(num_trials * math.log1p(-chance) + np.concatenate([[0.0], np.cumsum(steps)]))


def _num_negative(num_steps: int, rewards: RewardConfig) -> int:
    return max(num_steps - rewards.num_final_steps, 0)


def _ones(count: Any, discount: float) -> Any:
    """``1 + g + ... + g^(count - 1)``."""
    return (1.0 - discount**count) / (1.0 - discount)


def _check(num_steps: int, discount: float) -> None:
    if num_steps < 1:
        raise ValueError(f"num_steps must be at least 1, got {num_steps}")
    if not 0.0 < discount < 1.0:
        raise ValueError(f"discount must lie in (0, 1), got {discount}")
