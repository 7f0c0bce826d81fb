"""Dropout by numbers that were drawn beforehand, so that they follow from seed, step and sample alone."""

from __future__ import annotations

import torch

__all__ = ["Dropout"]


class Dropout:
    """Multipliers for the layers of one forward pass, which take them one after the other.

    Source: Srivastava et al. 2014, in its inverted form: what is kept is scaled by ``1 / (1 - probability)``.

    Args:
        uniform_BW: of every sample as many numbers in [0, 1) as it has units that may be dropped.
        probability: of being dropped, in [0, 1).
    """

    def __init__(self, uniform_BW: torch.Tensor, probability: float) -> None:
        self._factor_BW = (uniform_BW >= probability) * (1.0 / (1.0 - probability))
        self._taken = 0

    def __call__(self, units: torch.Tensor) -> torch.Tensor:
        """Units ``[B, ...]`` times the multipliers that are next.

        Raises:
            ValueError: there are fewer left.
        """
        first, self._taken = self._taken, self._taken + units[0].numel()
        if self._taken > self._factor_BW.shape[1]:
            raise ValueError(f"dropout: {self._factor_BW.shape[1]} numbers were drawn, at least {self._taken} are used")
        return units * self._factor_BW[:, first : self._taken].view(units.shape).to(units.dtype)
