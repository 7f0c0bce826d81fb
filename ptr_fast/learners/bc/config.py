"""Configuration of behaviour cloning."""

from __future__ import annotations

from dataclasses import dataclass

from ptr_fast.config import AugmentConfig, EncoderConfig, LearnerConfig
from ptr_fast.errors import require

__all__ = ["BcConfig"]


@dataclass(frozen=True, kw_only=True)
class BcConfig(LearnerConfig):
    """Behaviour cloning: the mean of a Gaussian with unit variance on the scaled action (the reference's ``pixel_bc``).

    Attributes:
        encoder: image encoder of the actor.
        hidden_dims: hidden layers of the policy.
        lr: Adam learning rate.
        ema_tau: rate of the averaged actor kept for acting (it has no influence on training).
        augment: random crop and colour jitter.
    """

    encoder: EncoderConfig = EncoderConfig()
    hidden_dims: tuple[int, ...] = (256, 256, 256)
    lr: float = 3e-4
    ema_tau: float = 0.005
    augment: AugmentConfig = AugmentConfig()

    def __post_init__(self) -> None:
        super().__post_init__()
        require(0.0 < self.ema_tau <= 1.0, f"ema_tau must lie in (0, 1], got {self.ema_tau}")
        require(len(self.hidden_dims) >= 1, "hidden_dims must name at least one layer")
