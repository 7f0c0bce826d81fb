"""Configuration of autoregressive behaviour cloning."""

from __future__ import annotations

from dataclasses import dataclass

from ptr_fast.learners.imitation.config import ImitationConfig

__all__ = ["AutoregressiveBcConfig"]


@dataclass(frozen=True, kw_only=True)
class AutoregressiveBcConfig(ImitationConfig):
    """Behaviour cloning of bins, axis by axis, each axis with those before it in view.

    Attributes:
        hidden_dims: hidden layers of every axis.
        num_bins: of every axis, equal ones from -1 to 1.
    """

    hidden_dims: tuple[int, ...] = (256, 256, 256)
    num_bins: int = 100
