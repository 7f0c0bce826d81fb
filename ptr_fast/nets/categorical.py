"""Choosing one of several by standard normal noise: what a sample of a law with modes or bins begins with.

So whatever draws noise for a Gaussian draws it for such a law, in a captured step and in an exported graph.
"""

from __future__ import annotations

import math

import torch

__all__ = ["choose"]


def choose(log_weight_BC: torch.Tensor, noise_BK: torch.Tensor) -> torch.Tensor:
    """The choice int64 ``[B, K]`` in 0 to C - 1 for standard normal noise, with the probabilities ``exp(log_weight)``.

    The normal distribution function makes uniform numbers of the noise, the cumulated weights make choices of them.
    """
    num_choices = log_weight_BC.shape[1]
    upper = torch.ones(num_choices, num_choices, dtype=noise_BK.dtype, device=noise_BK.device).triu()
    reached_BC = log_weight_BC.exp().to(noise_BK.dtype) @ upper  # a cumulated sum in one fixed order
    uniform_BK1 = 0.5 * (1.0 + torch.erf(noise_BK * math.sqrt(0.5)))[..., None]
    return (uniform_BK1 >= reached_BC[:, None, :-1]).sum(dim=2)
