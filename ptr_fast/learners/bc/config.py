"""Configuration of behaviour cloning."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from ptr_fast.learners.imitation.config import ImitationConfig

__all__ = ["BcConfig"]


@dataclass(frozen=True, kw_only=True)
class BcConfig(ImitationConfig):
    """Behaviour cloning: the mean of a Gaussian with unit variance on the scaled action (the reference's ``pixel_bc``).

    With ``num_actions`` above 1 it clones chunks of actions, and ``loss l1`` makes the mean a median, which is less
    drawn between two ways to do a task: the regression part of ACT (Zhao et al. 2023), to be played with a temporal
    ensemble (``rollout --play ensemble``).

    Attributes:
        hidden_dims: hidden layers of the policy.
        num_actions: H, actions of a chunk: the present one and those that follow it.
        loss: negative log-likelihood of a Gaussian of variance 1 (``mse``) or of a Laplace law of scale 1 (``l1``)
            about what the policy answers: half the squared error, or the absolute one, and a constant.
    """

    hidden_dims: tuple[int, ...] = (256, 256, 256)
    num_actions: int = 1
    loss: Literal["mse", "l1"] = "mse"
