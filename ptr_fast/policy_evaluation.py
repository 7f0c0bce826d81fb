"""What a policy would earn, estimated from recorded steps alone: fitted Q evaluation, and a classifier of success.

Both are linear in fixed random features of (observation, action), so that a fit is a few solutions of one linear
system: bounded in time, and the same on every machine up to rounding. Pure functions of arrays, float64, no clocks.

Note "Action features". An observation comes as groups of columns (embedding of the frames, state, task). Every group,
the action too, is standardised and divided by the square root of its width, so that a wide embedding does not drown a
narrow action. On these inputs stand M rectified random projections, beside the inputs themselves and a constant.

Shapes: N steps, D columns of an observation, A action, M features.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

__all__ = ["ActionFeatures", "fitted_q", "predicted", "success_weights"]

RIDGE = 1e-4
"""Weight of the squared weights, beside the mean squared error, of features whose mean square is about 1."""


class ActionFeatures:
    """Features of observations and actions (note "Action features").

    Args:
        groups: columns of the observations that the features are made for, ``[N, D_i]`` each; a group may be empty.
        actions: ``[N, A]``, scaled.
        num_features: random projections.
        seed: of the projections.
    """

    def __init__(
        self, groups: Sequence[np.ndarray], actions: np.ndarray, num_features: int = 512, seed: int = 0
    ) -> None:
        self._scales = [_scale(group) for group in (*groups, actions)]
        inputs = self._inputs(groups, actions)
        generator = np.random.default_rng(seed)
        self._weight = generator.normal(size=(inputs.shape[1], num_features))
        self._bias = generator.normal(size=num_features)

    def __call__(self, groups: Sequence[np.ndarray], actions: np.ndarray) -> np.ndarray:
        """``[N, M]``, the first of them the constant 1."""
        inputs = self._inputs(groups, actions)
        return np.concatenate(
            [np.ones((len(inputs), 1)), inputs, np.maximum(inputs @ self._weight + self._bias, 0.0)], axis=1
        )

    def _inputs(self, groups: Sequence[np.ndarray], actions: np.ndarray) -> np.ndarray:
        parts = zip((*groups, actions), self._scales, strict=True)
        return np.concatenate([(np.asarray(part, np.float64) - mean) * factor for part, (mean, factor) in parts], 1)


def _scale(values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Mean, and what the rest is multiplied by; a column that does not change counts for nothing."""
    values = np.asarray(values, np.float64)
    mean, spread = values.mean(axis=0), values.std(axis=0)
    varies = spread > 1e-6
    factor = np.where(varies, 1.0, 0.0) / np.where(varies, spread, 1.0) / math.sqrt(max(1, int(varies.sum())))
    return mean, factor


def fitted_q(
    features: np.ndarray,
    next_features: np.ndarray,
    rewards: np.ndarray,
    masks: np.ndarray,
    discount: float,
    limits: tuple[float, float],
    ridge: float = RIDGE,
) -> np.ndarray:
    """Weights ``[M]`` of the Q function of a policy: fitted Q evaluation.

    Every iteration regresses ``r + discount * mask * Q(s', policy(s'))`` with the Q of the iteration before; there are
    as many as it takes for the discount to leave a hundredth. Targets are kept within the returns that are possible.

    Args:
        features: ``[N, M]`` of the recorded steps and actions; the first one is a constant.
        next_features: ``[N, M]`` of the next observations with the policy's actions there.
        rewards, masks: ``[N]``.
        discount: in (0, 1).
        limits: smallest and largest return that is possible (:func:`ptr_fast.diagnostics.value_range`).
        ridge: see :data:`RIDGE`.

    Source: Le, Voloshin, Yue 2019, "Batch policy learning under constraints", algorithm 3, with ridge regression.
    """
    if not 0.0 < discount < 1.0:
        raise ValueError(f"discount must lie in (0, 1), got {discount}")
    num_steps, num_features = features.shape
    regress = np.linalg.solve(features.T @ features / num_steps + _penalty(num_features, ridge), features.T / num_steps)
    weights = np.zeros(num_features)
    for _ in range(math.ceil(math.log(0.01) / math.log(discount))):
        target = rewards + discount * masks * np.clip(next_features @ weights, *limits)
        weights = regress @ np.clip(target, *limits)
    return weights


def _penalty(num_features: int, ridge: float) -> np.ndarray:
    """None of the constant: where the data say nothing, the mean of what was regressed is predicted."""
    penalty = ridge * np.eye(num_features)
    penalty[0, 0] = 0.0
    return penalty


def success_weights(
    features: np.ndarray, is_success: np.ndarray, episode: np.ndarray, ridge: float = RIDGE
) -> np.ndarray | None:
    """Weights ``[M]`` of logistic regression: how likely an episode in which this was done here succeeds.

    Every episode counts the same, however long it is. None: all episodes ended alike, so nothing can be learned.

    Args:
        features: ``[N, M]``; the first one is a constant.
        is_success: bool ``[N]``, of the step's episode.
        episode: int ``[N]``.
    """
    if is_success.all() or not is_success.any():
        return None
    _, number, counts = np.unique(episode, return_inverse=True, return_counts=True)
    share = 1.0 / counts[number] / len(counts)
    sign, penalty, weights = np.where(is_success, 1.0, -1.0), _penalty(features.shape[1], ridge), 0.0 * features[0]

    def loss(at: np.ndarray) -> float:
        return float(share @ np.logaddexp(0.0, -sign * (features @ at)) + 0.5 * at @ penalty @ at)

    for _ in range(50):  # Newton's method with steps that are halved until the loss falls; the loss is convex
        chance = predicted(features, weights)
        gradient = features.T @ (share * (chance - is_success)) + penalty @ weights
        curvature = (features * (share * chance * (1.0 - chance))[:, None]).T @ features
        step, before = np.linalg.solve(curvature + penalty, gradient), loss(weights)
        while loss(weights - step) > before and np.abs(features @ step).max() > 1e-9:
            step = 0.5 * step
        weights = weights - step
        if np.abs(features @ step).max() < 1e-6:
            break
    return weights


def predicted(features: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Chance of success ``[N]`` in [0, 1], by the weights of :func:`success_weights`."""
    return 0.5 * (1.0 + np.tanh(0.5 * (features @ weights)))
