"""Configuration of time contrast."""

from __future__ import annotations

from dataclasses import dataclass

from ptr_fast.errors import require
from ptr_fast.learners.representation.config import RepresentationConfig

__all__ = ["TimeContrastConfig"]


@dataclass(frozen=True, kw_only=True)
class TimeContrastConfig(RepresentationConfig):
    """Time contrast: of three frames of an episode the neighbours in time get the nearer embeddings.

    R3M's objective without language, on the store's own episodes; R3M itself is another thing: a net that was trained
    on people's videos. The defaults of the weights are R3M's.

    Attributes:
        num_observations: T, frames of an episode among which three are drawn, the present one and those before it.
        num_negatives: frames of other samples that each frame is told from; at most all others of the batch.
        l1_weight, l2_weight: of the mean L1 and L2 norm of the embeddings.
    """

    num_observations: int = 20
    num_negatives: int = 3
    l1_weight: float = 1e-5
    l2_weight: float = 1e-5

    def __post_init__(self) -> None:
        super().__post_init__()
        require(self.num_observations >= 3, f"num_observations must be at least 3, got {self.num_observations}")
        for name in ("num_negatives", "l1_weight", "l2_weight"):
            require(getattr(self, name) >= 0, f"{name} must not be negative, got {getattr(self, name)}")
