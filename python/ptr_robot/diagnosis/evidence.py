"""What the checks look at: every number of a store, and a bounded sample of its frames.

States and actions are read whole (some 60 bytes a step); frames are sampled, so that memory does not grow with
pictures.
"""

from __future__ import annotations

import functools
import math
from dataclasses import dataclass
from typing import Any

import numpy as np

from ptr_fast import diagnostics
from ptr_robot.diagnosis.sample import CameraSample

__all__ = ["Evidence", "known_correlation"]

MAX_STUDIED = 2000
"""Episodes from which correlations are computed; more make them no surer."""
MOVING_SHARE = 0.5
"""A step counts as moving where action and state move at least this share of their median speed."""


@dataclass
class Evidence:
    """One store as the checks see it; derived arrays are computed once, when a check asks.

    Attributes:
        path: the store's folder, as the user gave it.
        store: the open store.
        cameras: sampled frames by camera name.
    """

    path: str
    store: Any
    cameras: dict[str, CameraSample]

    @property
    def meta(self) -> Any:
        return self.store.meta

    @property
    def episodes(self) -> Any:
        return self.store.episodes

    @property
    def seeing_cameras(self) -> list[CameraSample]:
        """Cameras that show something."""
        return [camera for camera in self.cameras.values() if len(camera.peak) and not camera.is_black]

    @property
    def live_cameras(self) -> list[CameraSample]:
        """Cameras whose picture changes."""
        return [camera for camera in self.seeing_cameras if not camera.is_constant]

    @functools.cached_property
    def lengths(self) -> np.ndarray:
        """int64 ``[E]``: transitions per episode."""
        return np.asarray(self.episodes.num_steps, np.int64)

    @functools.cached_property
    def step_episode(self) -> np.ndarray:
        """int64 ``[N]``: the episode of every transition."""
        return np.repeat(np.arange(len(self.lengths)), self.lengths)

    @functools.cached_property
    def step_start(self) -> np.ndarray:
        """int64 ``[E]``: the row of every episode's first transition in the arrays over transitions."""
        return np.concatenate([[0], np.cumsum(self.lengths)[:-1]]).astype(np.int64)

    @functools.cached_property
    def step_t(self) -> np.ndarray:
        """int64 ``[N]``: the position of every transition in its episode."""
        return np.arange(len(self.step_episode)) - self.step_start[self.step_episode]

    @functools.cached_property
    def studied(self) -> np.ndarray:
        """int64 ``[n]``: rows of the transitions of at most ``MAX_STUDIED`` episodes, spread evenly, in order."""
        count = min(len(self.lengths), MAX_STUDIED)
        chosen = np.zeros(len(self.lengths), bool)
        chosen[np.linspace(0, len(self.lengths) - 1, count).round().astype(np.int64)] = True
        return np.flatnonzero(chosen[self.step_episode])

    @functools.cached_property
    def records(self) -> np.ndarray:
        """int64 ``[N]``: the record of every transition."""
        return np.asarray(self.episodes.first, np.int64)[self.step_episode] + self.step_t

    @functools.cached_property
    def actions(self) -> np.ndarray:
        """float32 ``[N, A]``, raw units."""
        return np.asarray(self.store.action)[self.records]

    @functools.cached_property
    def states(self) -> np.ndarray:
        """float32 ``[N, S]`` before the action, raw units."""
        return np.asarray(self.store.state)[self.records]

    @functools.cached_property
    def state_deltas(self) -> np.ndarray:
        """float32 ``[N, S]``: the state's change during the step, angles wrapped; NaN where the next is not stored."""
        num_frames = np.asarray(self.episodes.num_frames, np.int64)[self.step_episode]
        known = self.step_t + 1 < num_frames
        delta = np.full(self.states.shape, np.nan, np.float32)
        delta[known] = np.asarray(self.store.state)[self.records[known] + 1] - self.states[known]
        for i, unit in enumerate(self.meta.state.units):
            turn = {"rad": 2 * np.pi, "deg": 360.0}.get(unit)
            if turn is not None:
                delta[:, i] = (delta[:, i] + turn / 2) % turn - turn / 2
        return delta

    @functools.cached_property
    def grippers(self) -> tuple[int | None, int | None]:
        """Dimensions of the gripper in action and state, by name; None where there is none."""
        return _gripper(self.meta.action.names), _gripper(self.meta.state.names)

    @functools.cached_property
    def constant_actions(self) -> np.ndarray:
        """bool ``[A]``: dimensions that never change by more than a millionth of their range."""
        span = np.asarray(self.meta.action.high) - np.asarray(self.meta.action.low)
        return np.ptp(self.actions, axis=0) <= 1e-6 * span if len(self.actions) else np.ones(len(span), bool)

    @functools.cached_property
    def pairs(self) -> list[tuple[int, int]]:
        """(action, state) dimensions that move the same thing, gripper left out: by name, else by position."""
        action, state = self.meta.action.names, self.meta.state.names
        plain_state = {_plain(name): j for j, name in enumerate(state)}
        by_name = [(i, plain_state[_plain(name)]) for i, name in enumerate(action) if _plain(name) in plain_state]
        pairs = by_name or [(i, i) for i in range(min(len(action), len(state)))]
        gripper_action, gripper_state = self.grippers
        return [
            (i, j)
            for i, j in pairs
            if i != gripper_action
            and j != gripper_state
            and not self.constant_actions[i]
            and np.nanstd(self.state_deltas[:, j]) > 0
        ]

    @functools.cached_property
    def actions_look_absolute(self) -> bool:
        """Actions follow the next state itself, not its change, in most paired dimensions."""
        votes = []
        known = np.isfinite(self.state_deltas).all(axis=1) & np.isfinite(self.actions).all(axis=1)
        for i, j in self.pairs:
            action, delta = self.actions[known, i], self.state_deltas[known, j]
            target = known_correlation(action, self.states[known, j] + delta)
            votes.append(target > 0.9 and target > abs(known_correlation(action, delta)) + 0.3)
        return len(votes) > 0 and sum(votes) > len(votes) / 2

    @functools.cached_property
    def action_speed(self) -> np.ndarray:
        """float32 ``[N]``: how hard the arm is commanded to move; 1 is typical (root mean square over the store)."""
        dims = [i for i in range(self.meta.action.dim) if i != self.grippers[0] and not self.constant_actions[i]]
        motion = np.nan_to_num(self.actions[:, dims])
        if self.actions_look_absolute:
            motion = np.diff(motion, axis=0, prepend=motion[:1]) * (self.step_t > 0)[:, None]
        return _speed(motion)

    @functools.cached_property
    def state_speed(self) -> np.ndarray:
        """float32 ``[N]``: how fast the arm moves; 1 is typical; NaN where the next state is not stored."""
        dims = [j for j in range(self.meta.state.dim) if j != self.grippers[1]]
        return _speed(self.state_deltas[:, dims])

    @functools.cached_property
    def moving(self) -> np.ndarray:
        """bool ``[N]``: the arm is commanded to move, and its state moves (where the state tells)."""
        moving = self.action_speed > MOVING_SHARE * _median_of_positive(self.action_speed)
        if np.nanmax(self.state_speed, initial=0.0) > 0:
            moving &= np.nan_to_num(self.state_speed) > MOVING_SHARE * _median_of_positive(self.state_speed)
        return moving

    def step_rows(self, episode: np.ndarray, t: np.ndarray) -> np.ndarray:
        """int64: rows of transitions (episode, t) in the arrays over transitions; -1 where there is no such step."""
        inside = t < self.lengths[episode]
        return np.where(inside, self.step_start[episode] + t, -1)


def known_correlation(x: np.ndarray, y: np.ndarray) -> float:
    """:func:`ptr_fast.diagnostics.correlation`; 0 where it says nothing."""
    value = diagnostics.correlation(x, y)
    return 0.0 if math.isnan(value) else value


def _speed(motion: np.ndarray) -> np.ndarray:
    """Root mean square over dimensions, each in units of its own root mean square over the store."""
    if motion.shape[1] == 0 or len(motion) == 0:
        return np.zeros(len(motion), np.float32)
    power = np.nanmean(motion.astype(np.float64) ** 2, axis=0) if np.isfinite(motion).any() else np.zeros(1)
    alive = power > 1e-16
    if not alive.any():
        return np.zeros(len(motion), np.float32)
    return np.sqrt((motion[:, alive] ** 2 / power[alive]).mean(axis=1)).astype(np.float32)


def _median_of_positive(values: np.ndarray) -> float:
    positive = values[np.isfinite(values) & (values > 1e-9)]
    return float(np.median(positive)) if len(positive) else 0.0


def _gripper(names: tuple[str, ...]) -> int | None:
    found = [i for i, name in enumerate(names) if "grip" in name.lower()]
    return found[0] if found else None


def _plain(name: str) -> str:
    """The thing a dimension moves: ``dx``, ``delta_x``, ``hand_x`` and ``x`` are all ``x``."""
    words = [
        w for w in name.lower().replace("-", "_").split("_") if w not in ("delta", "hand", "eef", "ee", "pos", "d")
    ]
    plain = "_".join(words)
    return plain[1:] if plain in ("dx", "dy", "dz", "droll", "dpitch", "dyaw") else plain
