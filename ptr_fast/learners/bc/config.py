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
        num_actions: H, actions of a chunk: the present one and those that follow it.
        num_observations: T, observations that the policy sees: the present one and those before it.
        lr: Adam learning rate.
        ema_tau: rate of the averaged actor kept for acting (it has no influence on training).
        augment: random crop and colour jitter.
        weight_decay: decoupled from the gradient (AdamW), per unit of learning rate; 0: off.
        max_grad_norm: the gradient of all weights together is scaled down to this norm where it is larger; 0: off.
    """

    encoder: EncoderConfig = EncoderConfig()
    hidden_dims: tuple[int, ...] = (256, 256, 256)
    num_actions: int = 1
    num_observations: int = 1
    lr: float = 3e-4
    ema_tau: float = 0.005
    augment: AugmentConfig = AugmentConfig()
    weight_decay: float = 0.0
    max_grad_norm: float = 0.0

    def __post_init__(self) -> None:
        super().__post_init__()
        require(0.0 < self.ema_tau <= 1.0, f"ema_tau must lie in (0, 1], got {self.ema_tau}")
        for name in ("num_actions", "num_observations"):
            require(getattr(self, name) >= 1, f"{name} must be at least 1, got {getattr(self, name)}")
        for name in ("weight_decay", "max_grad_norm"):
            require(getattr(self, name) >= 0.0, f"{name} must not be negative, got {getattr(self, name)}")
        require(len(self.hidden_dims) >= 1, "hidden_dims must name at least one layer")
        require(min(self.hidden_dims) >= 1, f"hidden_dims must be at least 1 each, got {list(self.hidden_dims)}")
