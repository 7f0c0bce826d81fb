"""group_norm_act_pool by csrc/kernels/group_norm_act and PyTorch's max-pool: CPU, float32, channels_last."""

from __future__ import annotations

import torch

from ptr_fast.kernels.group_norm_act import native as norm
from ptr_fast.kernels.group_norm_act_pool.reference import same_max_pool

__all__ = ["group_norm_act_pool", "supports"]


def supports(
    x_BCHW: torch.Tensor, weight_C: torch.Tensor, bias_C: torch.Tensor, num_groups: int, eps: float
) -> str | None:
    """None where the native kernel can run, else why not."""
    return norm.supports(x_BCHW, weight_C, bias_C, num_groups, eps, None, "relu")


def group_norm_act_pool(
    x_BCHW: torch.Tensor, weight_C: torch.Tensor, bias_C: torch.Tensor, num_groups: int, eps: float
) -> torch.Tensor:
    return same_max_pool(norm.group_norm_act(x_BCHW, weight_C, bias_C, num_groups, eps, None, "relu"))
