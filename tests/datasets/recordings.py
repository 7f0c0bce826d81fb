"""Three short episodes made of arithmetic, the same in every environment: what the files beside this hold.

The scripts that write those files with the real packages of other formats take them from here, and so do the tests that
compare what was read.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

HZ = 10
STATE_NAMES, ACTION_NAMES = ("x", "y", "z"), ("dx", "dy", "grip")
SIZES = {"front": (64, 80), "wrist": (64, 64)}
TASKS = ("put the lid on the pot", "open the drawer", "put the lid on the pot")
SUCCEEDS = (True, False, True)


@dataclass(frozen=True)
class Recording:
    """``frames`` and ``states`` have one entry more than ``actions``."""

    task: str
    states: np.ndarray
    actions: np.ndarray
    frames: dict[str, np.ndarray]
    rewards: np.ndarray
    succeeds: bool


def recordings() -> list[Recording]:
    out = []
    for index, (task, succeeds) in enumerate(zip(TASKS, SUCCEEDS, strict=True)):
        steps = 4 + index
        t = np.arange(steps + 1, dtype=np.float32)[:, None]
        states = np.concatenate([t, 0.25 * t - index, 100.0 + t * index], axis=1).astype(np.float32)
        grip = np.where(t[:-1] > 1, 1.0, -1.0)
        actions = np.concatenate([0.125 * t[:-1], 0.5 - t[:-1], grip], axis=1).astype(np.float32)
        rewards = np.zeros(steps, np.float32)
        rewards[-1] = 0.5 + index if succeeds else 0.0
        frames = {name: _frames(steps + 1, *size, index) for name, size in SIZES.items()}
        out.append(Recording(task, states, actions, frames, rewards, succeeds))
    return out


def _frames(count: int, height: int, width: int, index: int) -> np.ndarray:
    """uint8 ``[count, height, width, 3]``: slopes that move, gentle enough for a video."""
    t, y, x = np.mgrid[:count, :height, :width]
    channels = (20 + 2 * x + 10 * t, 60 + 2 * y + 20 * index, 30 + x + y + 8 * t)
    return np.stack(channels, axis=-1).astype(np.uint8)
