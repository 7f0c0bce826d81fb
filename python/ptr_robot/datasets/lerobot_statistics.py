"""Statistics of a LeRobot data set as its version 3.0 keeps them: of every feature per episode, and of all together."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

__all__ = ["SAMPLED_FRAMES", "combined", "nested", "statistics_of"]

QUANTILES = {"q01": 0.01, "q10": 0.10, "q50": 0.50, "q90": 0.90, "q99": 0.99}
SAMPLED_FRAMES = 32
"""Frames of a camera, evenly over an episode, whose pixels its statistics are taken from."""

Statistics = Mapping[str, np.ndarray]


def statistics_of(values: np.ndarray) -> dict[str, np.ndarray]:
    """Least, largest, mean, standard deviation and quantiles per dimension, and the number of rows.

    Args:
        values: numbers ``[n]`` or ``[n, D]``; or frames uint8 ``[n, H, W, 3]``, which become numbers in 0..1 and are
            counted as frames.

    Returns:
        float64 ``[D]`` each (``[1]`` and ``[3]``), ``count`` int64 ``[1]``.
    """
    count = len(values)
    if values.ndim == 4:
        rows = values.reshape(-1, 3) / 255.0
    else:
        rows = np.asarray(values, np.float64).reshape(count, -1)
    out = {"min": rows.min(axis=0), "max": rows.max(axis=0), "mean": rows.mean(axis=0), "std": rows.std(axis=0)}
    out.update(zip(QUANTILES, np.quantile(rows, list(QUANTILES.values()), axis=0), strict=True))
    return {**out, "count": np.array([count])}


def combined(episodes: Sequence[Statistics]) -> dict[str, np.ndarray]:
    """Statistics of all episodes together, weighted by their counts.

    Means and standard deviations are exact. Quantiles are means of the episodes' quantiles, as LeRobot combines them.
    """
    weight = np.array([one["count"][0] for one in episodes], np.float64)[:, None]
    share = weight / weight.sum()
    column = {name: np.stack([one[name] for one in episodes]) for name in episodes[0]}
    mean = (share * column["mean"]).sum(axis=0)
    variance = (share * (column["std"] ** 2 + (column["mean"] - mean) ** 2)).sum(axis=0)
    out = {"min": column["min"].min(axis=0), "max": column["max"].max(axis=0), "mean": mean, "std": np.sqrt(variance)}
    out.update({name: (share * column[name]).sum(axis=0) for name in QUANTILES})
    return {**out, "count": column["count"].sum(axis=0)}


def nested(statistics: Statistics, is_picture: bool) -> dict[str, Any]:
    """As lists: per dimension, of a picture per channel as ``[3][1][1]``; counts ``[1]``."""
    out: dict[str, Any] = {}
    for name, values in statistics.items():
        rows = values.tolist()
        out[name] = [[[value]] for value in rows] if is_picture and name != "count" else rows
    return out
