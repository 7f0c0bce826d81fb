"""A stored episode as a robot: its frames and states come in real time, whatever is sent. For dry runs and tests."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import numpy as np

from ptr_fast.data.store import EpisodeStore
from ptr_fast.runtime.safety import AxisLimits, SafetyLimits
from ptr_robot.robots.interface import Robot

__all__ = ["ReplayRobot"]


class ReplayRobot(Robot):
    """Plays an episode at its own rate and holds the last frame; keeps what is sent.

    Args:
        store: store folder. episode: number in the store. camera: of the store; empty takes all.
    """

    name = "replay"

    def __init__(self, store: Path | str, episode: int = 0, camera: str = "") -> None:
        self._store = EpisodeStore.open(Path(store))
        meta = self._store.meta
        if not 0 <= episode < self._store.num_episodes:
            raise ValueError(f"{store}: episode must lie in 0 to {self._store.num_episodes - 1}, got {episode}")
        self._cameras = (meta.camera(camera),) if camera else meta.cameras
        self._meta, self._episode, self.control_hz = meta, episode, meta.control_hz
        self.observation_features: dict[str, Any] = dict.fromkeys(meta.state.names, float)
        self.observation_features |= {one.name: (one.height, one.width, 3) for one in self._cameras}
        self.action_features: dict[str, Any] = dict.fromkeys(meta.action.names, float)
        self.units = {
            **dict(zip(meta.state.names, meta.state.units, strict=True)),
            **dict(zip(meta.action.names, meta.action.units, strict=True)),
        }
        self.is_connected = False
        self.sent: list[dict[str, float]] = []
        self._begin = 0.0

    def connect(self, calibrate: bool = True) -> None:
        self.is_connected = True
        self.reset(0)

    def reset(self, seed: int) -> None:
        """Plays from the beginning."""
        self._begin = time.monotonic()

    def get_observation(self) -> dict[str, Any]:
        """The record that is due now."""
        table = self._store.episodes
        first = int(table.first[self._episode])
        last = first + int(table.num_frames[self._episode])
        passed = int((time.monotonic() - self._begin) * self.control_hz)
        record = min(first + passed, last - 1)
        state = dict(zip(self._meta.state.names, np.asarray(self._store.state[record]).tolist(), strict=True))
        captured = self._begin + (record - first) / self.control_hz
        if first + passed > last - 1:
            captured = time.monotonic()  # the last frame stands
        return {
            **state,
            **{camera.name: self._store.frame(camera.name, record) for camera in self._cameras},
            "captured_ns": int(captured * 1e9),
        }

    def send_action(self, action: dict[str, float]) -> dict[str, float]:
        self.sent.append(dict(action))
        return action

    def stop(self) -> None:
        """Nothing moves anyway."""

    def success(self) -> None:
        """Only a person can tell."""

    def limits(self, hz: float) -> SafetyLimits:
        """The bounds of the store's actions."""
        spec = self._meta.action
        axes = [
            AxisLimits(name=n, relative=low <= 0 <= high, low=low, high=high)
            for n, low, high in zip(spec.names, spec.low, spec.high, strict=True)
        ]
        return SafetyLimits(axes=axes, state_size=self._meta.state.dim, period_s=1 / hz, ramp_s=0.0)

    def disconnect(self) -> None:
        self.is_connected = False
