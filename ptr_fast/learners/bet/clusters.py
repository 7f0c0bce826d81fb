"""Clusters of actions by Lloyd's k-means.

Shapes: N actions, K centres, A action.
"""

from __future__ import annotations

import numpy as np

__all__ = ["k_means"]

ROWS = 65_536
"""Actions whose distances are in memory at once."""


def k_means(actions_NA: np.ndarray, num_centres: int, seed: int, num_iterations: int = 50) -> np.ndarray:
    """Centres float32 ``[K, A]`` of actions, Euclidean; a function of actions and seed.

    Source: BeT, ``models/action_ae/discretizers/k_means.py``: the centres begin as random actions, and one that no
    action is nearest to becomes a random action.
    """
    rng = np.random.default_rng(seed)
    actions = np.asarray(actions_NA, np.float64)
    centres = actions[rng.choice(len(actions), num_centres, replace=len(actions) < num_centres)]
    for _ in range(num_iterations):
        counts, sums = np.zeros(num_centres), np.zeros_like(centres)
        for first in range(0, len(actions), ROWS):
            rows = actions[first : first + ROWS]
            nearest = (np.square(centres).sum(axis=1) - 2.0 * rows @ centres.T).argmin(axis=1)
            counts += np.bincount(nearest, minlength=num_centres)
            for axis in range(actions.shape[1]):
                sums[:, axis] += np.bincount(nearest, rows[:, axis], num_centres)
        alive = counts > 0
        centres[alive] = sums[alive] / counts[alive, None]
        centres[~alive] = actions[rng.integers(len(actions), size=int((~alive).sum()))]
    return centres.astype(np.float32)
