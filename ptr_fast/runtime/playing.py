"""A policy's chunks of actions played one action at a time, in lock step: for simulators and loops that are not ours.

:class:`ptr_fast.runtime.control.ControlLoop` plays them in real time by the same rules (``csrc/runtime/chunk_player``).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np

from ptr_fast import native
from ptr_fast.config import PolicySpec
from ptr_fast.runtime.control import Play
from ptr_fast.runtime.observation import Carry, Observation
from ptr_fast.types import Window

__all__ = ["ChunkPolicy", "PlayConfig", "PlayedPolicy"]


class ChunkPolicy(Protocol):
    """What is played, e.g. :class:`ptr_fast.runtime.policy.Policy`."""

    @property
    def spec(self) -> PolicySpec:
        """What it sees and commands."""
        ...

    @property
    def window(self) -> Window:
        """T and H."""
        ...

    def reset(self) -> Carry:
        """The start of an episode."""
        ...

    def act(self, observation: Observation, carry: Carry, seed: int = 0) -> tuple[np.ndarray, Carry]:
        """Chunk ``[H, A]`` and the new carry."""
        ...

    def observe(self, observation: Observation, carry: Carry) -> Carry:
        """The carry after a step in which it is not asked."""
        ...


@dataclass(frozen=True, kw_only=True)
class PlayConfig:
    """How chunks are played; see :class:`ptr_fast.runtime.control.LoopConfig`."""

    play: Play = "receding"
    execute: int = 0
    ensemble_decay: float = 0.01


class PlayedPolicy:
    """One action per control period of a policy that answers with chunks.

    Args:
        policy: what is asked.
        config: how its chunks are played.
        num_periods_late: so many control periods after its observation was captured an action acts; what ``latency``
            plays is that entry of the chunk.

    Raises:
        ValueError: settings that contradict each other.
        RuntimeError: chunks of several actions, and the native module is missing.
    """

    def __init__(self, policy: ChunkPolicy, config: PlayConfig | None = None, num_periods_late: int = 0) -> None:
        self.policy, self._config, self._late = policy, config or PlayConfig(), num_periods_late
        self._player: Any = None  # none where each answer is one action
        self.reset()

    def reset(self) -> None:
        """The start of an episode."""
        self._carry, self._tick = self.policy.reset(), 0
        num_actions, config = self.policy.window.num_actions, self._config
        if num_actions > 1 or config != PlayConfig():
            make = native.require().ChunkPlayer
            self._player = make(
                config.play, config.execute, config.ensemble_decay, 1, num_actions, self.policy.spec.action.dim
            )

    def act(self, observation: Observation, seed: int = 0) -> np.ndarray | None:
        """The action float32 ``[A]`` of this control period; None where the chunk has run out.

        Args:
            observation: the newest, captured ``num_periods_late`` periods ago.
            seed: of the policy's noise, where it is asked in this period.
        """
        tick, self._tick = self._tick, self._tick + 1
        if self._player is None or self._player.asks():
            chunk, self._carry = self.policy.act(observation, self._carry, seed)
            if self._player is None:
                return chunk[0]
            self._player.asked()
            self._player.add(chunk, tick - self._late, tick)
        else:
            self._carry = self.policy.observe(observation, self._carry)
        taken = self._player.take(tick, tick)
        return None if taken is None else taken[1]
