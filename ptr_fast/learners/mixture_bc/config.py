"""Configuration of cloning by a mixture of Gaussians."""

from __future__ import annotations

from dataclasses import dataclass

from ptr_fast.errors import require
from ptr_fast.learners.imitation.config import ImitationConfig

__all__ = ["MixtureBcConfig"]


@dataclass(frozen=True, kw_only=True)
class MixtureBcConfig(ImitationConfig):
    """Behaviour cloning whose law has several modes, one for each way to do a task (``BC-GMM`` of robomimic).

    Attributes:
        hidden_dims: hidden layers of the policy.
        num_components: Gaussians of the mixture.
        min_std: smallest standard deviation of a component, of the action's half range.
    """

    hidden_dims: tuple[int, ...] = (256, 256, 256)
    num_components: int = 8
    min_std: float = 0.03

    def __post_init__(self) -> None:
        super().__post_init__()
        require(self.min_std > 0.0, f"min_std must be above 0, got {self.min_std}")
