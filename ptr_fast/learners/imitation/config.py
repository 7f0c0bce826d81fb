"""What the configurations of all learners that imitate have."""

from __future__ import annotations

from dataclasses import dataclass, fields

from ptr_fast.config import AugmentConfig, EncoderConfig, LearnerConfig
from ptr_fast.errors import require

__all__ = ["ImitationConfig"]


@dataclass(frozen=True, kw_only=True)
class ImitationConfig(LearnerConfig):
    """One actor with an average, one optimiser.

    Attributes:
        encoder: image encoder of the actor.
        num_observations: T, observations that the policy sees: the present one and those before it.
        lr: Adam learning rate.
        ema_tau: rate of the averaged actor kept for acting (it has no influence on training).
        augment: random crop and colour jitter.
        dropout: share of the hidden units of the policy that are 0 in an update, each with this probability; the others
            are scaled up by as much. Acting drops none.
        weight_decay: decoupled from the gradient (AdamW), per unit of learning rate; 0: off.
        max_grad_norm: the gradient of all weights together is scaled down to this norm where it is larger; 0: off.
    """

    encoder: EncoderConfig = EncoderConfig()
    num_observations: int = 1
    lr: float = 3e-4
    ema_tau: float = 0.005
    augment: AugmentConfig = AugmentConfig()
    dropout: float = 0.0
    weight_decay: float = 0.0
    max_grad_norm: float = 0.0

    def __post_init__(self) -> None:
        super().__post_init__()
        require(0.0 < self.ema_tau <= 1.0, f"ema_tau must lie in (0, 1], got {self.ema_tau}")
        require(0.0 <= self.dropout < 1.0, f"dropout must lie in [0, 1), got {self.dropout}")
        for name in ("weight_decay", "max_grad_norm"):
            require(getattr(self, name) >= 0.0, f"{name} must not be negative, got {getattr(self, name)}")
        for name in (field.name for field in fields(self) if field.name.startswith("num_")):
            require(getattr(self, name) >= 1, f"{name} must be at least 1, got {getattr(self, name)}")
        hidden_dims = getattr(self, "hidden_dims", (1,))
        require(len(hidden_dims) >= 1, "hidden_dims must name at least one layer")
        require(min(hidden_dims) >= 1, f"hidden_dims must be at least 1 each, got {list(hidden_dims)}")
