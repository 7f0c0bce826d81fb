"""Configuration of the behaviour transformer."""

from __future__ import annotations

from dataclasses import dataclass

from ptr_fast.errors import require
from ptr_fast.learners.imitation.config import ImitationConfig

__all__ = ["BetConfig"]


@dataclass(frozen=True, kw_only=True)
class BetConfig(ImitationConfig):
    """Behaviour transformer (BeT, Shafiullah et al. 2022): which cluster of actions, and how far from its centre.

    Defaults are those of the configuration for Bridge that a co-author of PTR published, but for ``offset_weight``:
    actions are scaled here, and 100 makes the offsets' error weigh about as much as the choice of the cluster.

    Attributes:
        num_bins: clusters of the training actions, by k-means before the first update.
        num_layers, num_heads, width: of the transformer, whose tokens are the T observations.
        offset_weight: of the squared error of the offset beside the focal loss of the cluster.
        focal_gamma: exponent of the focal loss; 0 is the cross-entropy.
    """

    num_bins: int = 64
    num_layers: int = 3
    num_heads: int = 4
    width: int = 256
    offset_weight: float = 100.0
    focal_gamma: float = 2.0
    lr: float = 1e-4
    dropout: float = 0.1
    weight_decay: float = 0.1
    max_grad_norm: float = 1.0

    def __post_init__(self) -> None:
        super().__post_init__()
        heads_fit = self.width >= 1 and self.width % self.num_heads == 0
        require(heads_fit, f"width ({self.width}) must be a multiple of num_heads ({self.num_heads})")
        for name in ("offset_weight", "focal_gamma"):
            require(getattr(self, name) >= 0.0, f"{name} must not be negative, got {getattr(self, name)}")
