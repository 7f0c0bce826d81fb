"""What a policy is shown, and what it keeps of the past."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

__all__ = ["Carry", "Observation", "past_of"]


@dataclass(frozen=True)
class Observation:
    """One observation of a robot.

    Attributes:
        images: camera of the checkpoint -> uint8 ``[H, W, 3]`` RGB of any size; resized as the training frames were.
        state: float32 ``[S]``, in the units of the checkpoint's state.
        task: a name in the checkpoint's task table.
    """

    images: Mapping[str, np.ndarray]
    state: np.ndarray
    task: str


Carry = tuple[Observation, ...]
"""What an acting policy keeps of an episode: its last T - 1 observations, the oldest first; ``()`` at its start."""


def past_of(observation: Observation, carry: Carry, num_observations: int) -> Carry:
    """The last T observations, the oldest first; before there are T, the first one stands for the older ones."""
    known = (*carry, observation)[-num_observations:]
    return (known[0],) * (num_observations - len(known)) + known
