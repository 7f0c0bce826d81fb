"""group_norm_act_pool in plain PyTorch: the definition. Runs in any dtype, layout and on any device."""

from __future__ import annotations

import torch
import torch.nn.functional as F

from ptr_fast.kernels.group_norm_act.reference import group_norm

__all__ = ["group_norm_act_pool", "same_max_pool", "supports"]


def supports(
    x_BCHW: torch.Tensor, weight_C: torch.Tensor, bias_C: torch.Tensor, num_groups: int, eps: float
) -> str | None:
    """None: the reference can always run."""
    return None


def group_norm_act_pool(
    x_BCHW: torch.Tensor, weight_C: torch.Tensor, bias_C: torch.Tensor, num_groups: int, eps: float
) -> torch.Tensor:
    return same_max_pool(F.relu(group_norm(x_BCHW, num_groups, weight_C, bias_C, eps)).to(x_BCHW.dtype))


def same_max_pool(x_BCHW: torch.Tensor) -> torch.Tensor:
    """3x3 max-pool of stride 2 with SAME padding by minus infinity.

    An even axis is padded by (0, 1), which is what ``ceil_mode`` without padding does, and an odd one by (1, 1).
    """
    odd = (x_BCHW.shape[2] % 2, x_BCHW.shape[3] % 2)
    return F.max_pool2d(x_BCHW, 3, 2, padding=odd, ceil_mode=True)
