"""What a critic says about recorded episodes: pure functions of arrays, no clocks, no files.

PTR chooses a checkpoint by eye: demonstrations are expert data, so under a good critic Q(s_t, a_t) climbs along a
demonstration (Kumar et al. 2022, section 5). Here the eye is replaced by numbers, and every number is defined once.
None of them guarantees success on a robot.

Shapes: T steps of one episode, E critics, K sampled actions, A action dimensions.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field, fields

import numpy as np

from ptr_fast.config import RewardConfig

__all__ = [
    "EpisodeValues",
    "area_under_curve",
    "correlation",
    "divergence",
    "early_rise",
    "late_rise",
    "misestimation",
    "monte_carlo_returns",
    "rank_correlation",
    "ranks",
    "selection_score",
    "summarize",
    "telling_moments",
    "value_range",
    "widened",
    "wilson_interval",
]

AT_BOUNDS = 0.98
"""Scaled actions beyond this lie at their bounds, which are -1 and 1."""
RANGE_SLACK = 0.25
"""How far Q may leave the range of possible returns before a checkpoint is not chosen, in widths of that range."""
ALARM_SLACK = 0.5
"""The same before a training is stopped: what looks lost for a moment may come back."""
MAX_SHARE_OUTSIDE = 0.05
"""Share of steps outside the widened range above which a critic counts as diverged."""
MAX_BIAS = 0.25
"""How far the mean of Q - return may lie from zero before a critic is doubted, in widths of the range of returns."""
MAX_BIAS_OF_A_PREFERRED_POLICY = 0.1
"""The same where the critic values the policy's own actions above the recorded ones: two signs of one error."""
MIN_PREFERENCE_FOR_POLICY = 0.01
"""By how much they must be valued above to count as a sign, in widths of the range of returns."""


@dataclass(frozen=True, kw_only=True)
class EpisodeValues:
    """What one checkpoint says about one episode; float32 ``[T]`` unless said otherwise.

    ``q`` to ``td_target`` are empty for a policy without a critic (behaviour cloning).

    Attributes:
        outcome: ``"success"``, ``"failure"`` or ``"unknown"`` (demonstrations as a rule).
        rewards, masks: as in training.
        returns: discounted return from the recorded rewards; NaN where the recording was cut off (see
            :func:`monte_carlo_returns`).
        q, q_averaged: minimum over the critics of Q(s_t, a_t), online and averaged (target) networks.
        value: V(s_t) = minimum over the critics of Q(s_t, mean action).
        advantage: Q(s_t, a_t) - V(s_t), by the networks that act.
        q_policy, q_random: the same minimum for sampled policy actions and uniform actions, mean over K.
        preference: share of the uniform actions whose Q is below that of the recorded action, in [0, 1], by the
            networks that act.
        td_target: r + discount * mask * max_K min_E Q_target(s', a'), the learner's own rule.
        bellman_error: mean over the critics of (Q - td_target)^2.
        at_bounds, recorded_at_bounds: share of the dimensions in which the mean action, and the recorded one, lies at
            its bounds (beyond ``AT_BOUNDS`` in scaled units).
        action_error: squared error of the mean action, mean over A, in scaled units (the range is 2 wide).
        log_prob: log density of the recorded action, scaled action space, nats; empty where the policy has none.
    """

    outcome: str
    rewards: np.ndarray
    masks: np.ndarray
    returns: np.ndarray
    action_error: np.ndarray
    log_prob: np.ndarray
    q: np.ndarray
    q_averaged: np.ndarray
    value: np.ndarray
    advantage: np.ndarray
    q_policy: np.ndarray
    q_random: np.ndarray
    preference: np.ndarray
    td_target: np.ndarray
    bellman_error: np.ndarray
    at_bounds: np.ndarray = field(default_factory=lambda: np.empty(0, np.float32))
    recorded_at_bounds: np.ndarray = field(default_factory=lambda: np.empty(0, np.float32))

    def __post_init__(self) -> None:
        num_steps = len(self.rewards)
        for each in fields(self):
            array = getattr(self, each.name)
            if each.name != "outcome" and (np.ndim(array) != 1 or len(array) not in (0, num_steps)):
                raise ValueError(f"{each.name}: expected {num_steps} values or none, got shape {np.shape(array)}")


def monte_carlo_returns(
    rewards: np.ndarray,
    masks: np.ndarray,
    discount: float,
    *,
    episode: np.ndarray | None = None,
    tail: float = math.nan,
) -> np.ndarray:
    """Discounted return from every step on: G_t = r_t + discount * mask_t * G_{t+1}.

    Args:
        rewards, masks: ``[N]``; a mask of 0 ends the sum after its own reward.
        discount: in (0, 1).
        episode: int ``[N]``, constant within an episode; nothing flows across a change. None: one episode.
        tail: the return after the last recorded step of an episode that was cut off (its last mask is 1). That is not
            known, so by default all steps that lead there get NaN instead of a value that depends on where
            the recording happened to stop.

    Returns:
        float64 ``[N]``.
    """
    rewards, masks = np.asarray(rewards, np.float64), np.asarray(masks, np.float64)
    if rewards.ndim != 1 or rewards.shape != masks.shape:
        raise ValueError(f"rewards and masks must be [N] of one length, got {rewards.shape} and {masks.shape}")
    episode = np.zeros(len(rewards), np.int64) if episode is None else np.asarray(episode)
    if episode.shape != rewards.shape:
        raise ValueError(f"episode must be as long as rewards ({len(rewards)}), got {episode.shape}")
    returns = np.empty_like(rewards)
    for t in range(len(rewards) - 1, -1, -1):
        is_last = t + 1 == len(rewards) or episode[t + 1] != episode[t]
        future = tail if is_last else returns[t + 1]
        # Not 0 * future: a NaN after a terminal step must not reach back over it.
        returns[t] = rewards[t] if masks[t] == 0.0 else rewards[t] + discount * masks[t] * future
    return returns


def value_range(rewards: RewardConfig, discount: float) -> tuple[float, float]:
    """Smallest and largest return any policy can have under these rewards."""
    forever = rewards.negative / (1.0 - discount)
    num_paid = 1 if rewards.positive_is_terminal else rewards.num_final_steps
    paid = [rewards.positive * sum(discount**i for i in range(n)) for n in range(1, num_paid + 1)]
    return min(forever, *paid), max(forever, *paid)


def ranks(values: np.ndarray) -> np.ndarray:
    """Ranks from 1; equal values share the mean of their ranks. float64 ``[N]``."""
    values = np.asarray(values, np.float64)
    _, inverse, counts = np.unique(values, return_inverse=True, return_counts=True)
    upper = np.cumsum(counts)
    return (upper - (counts - 1) / 2.0)[inverse]


def correlation(x: np.ndarray, y: np.ndarray) -> float:
    """Pearson correlation; NaN for fewer than two points, a constant, or any value that is not finite."""
    x, y = np.asarray(x, np.float64), np.asarray(y, np.float64)
    if x.shape != y.shape:
        raise ValueError(f"x and y must have one shape, got {x.shape} and {y.shape}")
    if x.size < 2 or not (np.isfinite(x).all() and np.isfinite(y).all()) or np.ptp(x) == 0.0 or np.ptp(y) == 0.0:
        return math.nan
    x, y = x - x.mean(), y - y.mean()
    return float(np.sum(x * y) / math.sqrt(np.sum(x * x) * np.sum(y * y)))


def rank_correlation(x: np.ndarray, y: np.ndarray) -> float:
    """Spearman's rank correlation with ties at their mean rank; NaN as in :func:`correlation`."""
    if not (np.isfinite(x).all() and np.isfinite(y).all()):
        return math.nan
    return correlation(ranks(x), ranks(y))


def late_rise(values: np.ndarray, share: float = 0.1) -> float:
    """Last tenth against the rest: difference of the means over the pooled standard deviation.

    A critic that learns from a reward at the end is often flat for most of an episode and climbs only in its last
    steps; this asks for that climb without asking for monotony.

    Args:
        values: ``[T]``.
        share: share of the steps that count as the end (rounded up).

    Returns:
        The difference in standard deviations; 0 for a constant; NaN for fewer than three steps or any non-finite value.
        Both parts constant but different (no spread to measure by): infinite, with the sign of the difference.
    """
    values = np.asarray(values, np.float64)
    num_last = math.ceil(share * len(values) - 1e-9)
    last, rest = values[len(values) - num_last :], values[: len(values) - num_last]
    if len(values) < 3 or len(rest) == 0 or not np.isfinite(values).all():
        return math.nan
    spread = math.sqrt((np.sum((last - last.mean()) ** 2) + np.sum((rest - rest.mean()) ** 2)) / (len(values) - 2))
    difference = float(last.mean() - rest.mean())
    if spread == 0.0:
        return math.copysign(math.inf, difference) if difference else 0.0
    return difference / spread


def early_rise(values: np.ndarray, returns: np.ndarray, share: float = 0.1) -> tuple[float, float]:
    """By how much values and returns rise over the first half of an episode: first tenth to the one in its middle.

    Returns rise there by what the discount leaves of the end. A critic whose values do not is one that the end's value
    has not reached yet.

    Args:
        values, returns: ``[T]``.
        share: share of the steps that are averaged at either place (rounded up).

    Returns:
        Both differences; NaN for fewer than eight steps or any value there that is not finite.
    """
    values, returns = np.asarray(values, np.float64), np.asarray(returns, np.float64)
    if values.shape != returns.shape:
        raise ValueError(f"values and returns must have one shape, got {values.shape} and {returns.shape}")
    count, middle = math.ceil(share * len(values) - 1e-9), len(values) // 2
    if len(values) < 8:
        return math.nan, math.nan
    rises = [float(x[middle - count + 1 : middle + 1].mean() - x[:count].mean()) for x in (values, returns)]
    return (rises[0], rises[1]) if np.isfinite(rises).all() else (math.nan, math.nan)


def area_under_curve(positive: np.ndarray | Sequence[float], negative: np.ndarray | Sequence[float]) -> float:
    """Chance that a random positive scores above a random negative, ties counting half; NaN if either is empty."""
    positive, negative = np.asarray(positive, np.float64), np.asarray(negative, np.float64)
    if len(positive) == 0 or len(negative) == 0 or not np.isfinite(np.concatenate([positive, negative])).all():
        return math.nan
    rank_sum = ranks(np.concatenate([positive, negative]))[: len(positive)].sum()
    return float((rank_sum - len(positive) * (len(positive) + 1) / 2.0) / (len(positive) * len(negative)))


def wilson_interval(successes: int, num_trials: int, z: float = 1.959964) -> tuple[float, float]:
    """Wilson score interval of a success rate (95 % by default), a pair in [0, 1]; (0, 1) without trials.

    Source: Wilson 1927; keeps its coverage for the few trials that a robot allows.
    """
    if not 0 <= successes <= num_trials:
        raise ValueError(f"successes must lie in 0..{num_trials}, got {successes}")
    if num_trials == 0:
        return 0.0, 1.0
    rate, square = successes / num_trials, z * z / num_trials
    centre = (rate + square / 2.0) / (1.0 + square)
    half = z / (1.0 + square) * math.sqrt(rate * (1.0 - rate) / num_trials + square / (4.0 * num_trials))
    return max(0.0, centre - half), min(1.0, centre + half)


def summarize(episodes: Sequence[EpisodeValues], limits: tuple[float, float] | None = None) -> dict[str, float]:
    """All metrics of one checkpoint over its evaluation episodes; NaN where the data cannot tell.

    ``late_rise`` and ``rank_correlation`` are means over the episodes that did not fail (only those should rise);
    everything else is a mean over steps, unless its name says otherwise.

    Args:
        episodes: at least one.
        limits: :func:`value_range`; None for a policy without a critic, which then has only ``action_error`` and
            ``log_prob``.
    """
    if not episodes:
        raise ValueError("episodes must hold at least one episode")
    joined = {
        f.name: np.concatenate([np.asarray(getattr(e, f.name), np.float64) for e in episodes])
        for f in fields(EpisodeValues)
        if f.name != "outcome"
    }
    metrics = {name: _mean(joined[name]) for name in ("action_error", "log_prob", "at_bounds", "recorded_at_bounds")}
    if limits is None:
        return metrics
    good = [e for e in episodes if e.outcome != "failure"]
    for name in ("q", "q_averaged"):
        curves = [getattr(e, name) for e in good]
        suffix = name.removeprefix("q")
        metrics["late_rise" + suffix] = _mean([late_rise(c) for c in curves])
        metrics["rank_correlation" + suffix] = _mean([rank_correlation(c, np.arange(len(c))) for c in curves])
        metrics["share_outside" + suffix] = _share_outside(joined[name], limits)
    q, known = joined["q"], np.isfinite(joined["returns"])
    metrics |= {
        "bellman_error": _mean(joined["bellman_error"]),
        "advantage": _mean(joined["advantage"]),
        "q_data": _mean(q),
        "q_min": float(np.min(q)),
        "q_max": float(np.max(q)),
        "policy_gap": _mean(q - joined["q_policy"]),
        "random_gap": _mean(q - joined["q_random"]),
        "preference": _mean(joined["preference"]),
        "return_correlation": correlation(q[known], joined["returns"][known]),
        "return_bias": _mean((q - joined["returns"])[known]),
        "early_rise": _early_share(good),
        "separation_auc": area_under_curve(
            [_mean(e.q) for e in good], [_mean(e.q) for e in episodes if e.outcome == "failure"]
        ),
    }
    return metrics


def selection_score(metrics: dict[str, float], averaged: bool = False) -> float:
    """How well a critic understands demonstrations, in [-1, 1]: ``ptr-fast select`` ranks checkpoints by it.

        score = 1/3 * rank_correlation + 1/3 * late_rise / (2 + |late_rise|) + 1/3 * (2 * preference - 1)

    The first third asks whether Q climbs over the whole demonstration, the second whether its end stands out (two
    standard deviations give half of it; the form keeps one extreme episode from deciding). Both can be had from
    the frames alone, and a young critic has them before it looks at actions; so the last third asks whether the
    recorded actions beat random ones. NaN if any of them is NaN.

    Args:
        metrics: from :func:`summarize`.
        averaged: score the averaged critics (a checkpoint that acts with averaged networks) instead of the online ones.
    """
    suffix = "_averaged" if averaged else ""
    rise, order = metrics["late_rise" + suffix], metrics["rank_correlation" + suffix]
    bounded = math.copysign(1.0, rise) if math.isinf(rise) else rise / (2.0 + abs(rise))
    return (order + bounded + 2.0 * metrics["preference"] - 1.0) / 3.0


def divergence(metrics: dict[str, float], limits: tuple[float, float], averaged: bool = False) -> str | None:
    """Why a critic must not be chosen, or None.

    Returns are bounded by the rewards (:func:`value_range`); a critic that is far outside says nothing, however nicely
    it rises. Far: more than 5 % of the steps beyond the range widened by a quarter of its width on both sides.
    """
    share = metrics["share_outside" + ("_averaged" if averaged else "")]
    if math.isnan(share):
        return "Q is not finite"
    if share > MAX_SHARE_OUTSIDE:
        low, high = widened(limits)
        return f"Q outside [{low:.4g}, {high:.4g}] at {100 * share:.0f} % of the steps"
    return None


def misestimation(metrics: dict[str, float], limits: tuple[float, float]) -> str | None:
    """Why a critic that has not diverged is to be doubted, or None: its values are far from the recorded returns.

    A critic may rise along demonstrations and prefer recorded actions to random ones while all its values are too high
    (nothing holds down the actions that it errs about) or too low (the targets sink); :func:`selection_score` does not
    see either. On data of a bad policy a better one does earn more than was recorded: then this is no fault.

    Args:
        metrics: from :func:`summarize`.
        limits: :func:`value_range`.
    """
    low, high = limits
    bias, gap = metrics["return_bias"], metrics["policy_gap"]
    prefers_policy = gap < -MIN_PREFERENCE_FOR_POLICY * (high - low)
    above = f"the policy's own actions are valued {-gap:.3g} above the recorded ones" if prefers_policy else ""
    if math.isnan(bias):
        return f"{above}, and no return is known to compare Q with" if above else None
    share = bias / (high - low)
    if not (abs(share) > MAX_BIAS or (above and share > MAX_BIAS_OF_A_PREFERRED_POLICY)):
        return None
    side, kind = ("above", "overestimated") if bias > 0 else ("below", "underestimated")
    words = f"Q is {kind}: on average {abs(bias):.3g} {side} the recorded returns, {abs(share):.0%} of their range"
    return f"{words} [{low:.4g}, {high:.4g}]" + (f", and {above}" if above else "")


def telling_moments(q: np.ndarray, advantage: np.ndarray, num_moments: int = 3) -> list[tuple[int, str]]:
    """Steps worth a look: the largest rise of Q over one step, the largest and the smallest advantage.

    Returns:
        ``[(step, reason)]`` by step, at most ``num_moments``, a twentieth of the episode apart.
    """
    q, advantage = np.asarray(q, np.float64), np.asarray(advantage, np.float64)
    wanted: list[tuple[int, str]] = []
    if len(q) > 1 and np.isfinite(q).all():
        wanted.append((int(np.argmax(np.diff(q))) + 1, "largest rise of Q"))
    if len(advantage) and np.isfinite(advantage).all():
        wanted.append((int(np.argmax(advantage)), "largest advantage"))
        wanted.append((int(np.argmin(advantage)), "smallest advantage"))
    gap = max(1, len(q) // 20)
    chosen: list[tuple[int, str]] = []
    for step, reason in wanted:
        if len(chosen) < num_moments and all(abs(step - other) >= gap for other, _ in chosen):
            chosen.append((step, reason))
    return sorted(chosen)


def _early_share(episodes: Sequence[EpisodeValues]) -> float:
    """How much of the early rise of the returns Q has, over all episodes; NaN where their returns do not rise."""
    rises = np.array([early_rise(e.q, e.returns) for e in episodes], np.float64).reshape(-1, 2)
    of_q, of_returns = rises[np.isfinite(rises).all(axis=1)].sum(axis=0)
    return float(of_q / of_returns) if of_returns > 1e-6 else math.nan


def _mean(values: np.ndarray | Sequence[float]) -> float:
    values = np.asarray(values, np.float64)
    return float(values.mean()) if values.size else math.nan


def widened(limits: tuple[float, float], slack: float = RANGE_SLACK) -> tuple[float, float]:
    """The range (low, high) with ``slack`` of its width added on both sides."""
    low, high = limits
    margin = slack * (high - low)
    return low - margin, high + margin


def _share_outside(q: np.ndarray, limits: tuple[float, float]) -> float:
    low, high = widened(limits)
    return float(np.mean((q < low) | (q > high))) if np.isfinite(q).all() else math.nan
