"""Configuration of flow behaviour cloning."""

from __future__ import annotations

from dataclasses import dataclass

from ptr_fast.learners.imitation.config import ImitationConfig

__all__ = ["FlowBcConfig"]


@dataclass(frozen=True, kw_only=True)
class FlowBcConfig(ImitationConfig):
    """Behaviour cloning of chunks of actions by flow matching: it keeps all ways in which a task was done.

    Attributes:
        hidden_dims: hidden layers of the velocity.
        num_actions: H, actions of a chunk: the present one and those that follow it.
        num_flow_samples: K, noises and times for every chunk in an update. They share what the encoder makes of the
            images, so several are nearly free; published are 1 and far more updates.
        num_flow_steps: Euler steps from noise to a chunk, when it acts.
    """

    hidden_dims: tuple[int, ...] = (256, 256, 256)
    num_actions: int = 4
    num_flow_samples: int = 1
    num_flow_steps: int = 10
