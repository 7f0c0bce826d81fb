"""group_norm_act in plain PyTorch: the definition. Runs in any dtype, layout and on any device."""

from __future__ import annotations

import torch
import torch.nn.functional as F

__all__ = ["group_norm", "group_norm_act", "supports"]


def supports(
    x_BCHW: torch.Tensor,
    weight_C: torch.Tensor,
    bias_C: torch.Tensor,
    num_groups: int,
    eps: float,
    residual_BCHW: torch.Tensor | None,
    activation: str,
    residual_weight_C: torch.Tensor | None = None,
    residual_bias_C: torch.Tensor | None = None,
) -> str | None:
    """None: the reference can always run."""
    return None


def group_norm_act(
    x_BCHW: torch.Tensor,
    weight_C: torch.Tensor,
    bias_C: torch.Tensor,
    num_groups: int,
    eps: float,
    residual_BCHW: torch.Tensor | None,
    activation: str,
    residual_weight_C: torch.Tensor | None = None,
    residual_bias_C: torch.Tensor | None = None,
) -> torch.Tensor:
    y_BCHW = group_norm(x_BCHW, num_groups, weight_C, bias_C, eps)
    if residual_weight_C is not None:
        assert residual_BCHW is not None
        assert residual_bias_C is not None
        residual_BCHW = group_norm(residual_BCHW, num_groups, residual_weight_C, residual_bias_C, eps)
    if residual_BCHW is not None:
        y_BCHW = y_BCHW + residual_BCHW
    return (F.relu(y_BCHW) if activation == "relu" else y_BCHW).to(x_BCHW.dtype)


def group_norm(
    x_BCHW: torch.Tensor, num_groups: int, weight_C: torch.Tensor, bias_C: torch.Tensor, eps: float
) -> torch.Tensor:
    """PyTorch's group norm in the widest dtype among the three tensors, which is that of the result.

    On a GPU PyTorch takes x, weight and bias of one dtype alone; on the CPU it takes bfloat16 with float32 as well.
    """
    wide = torch.promote_types(x_BCHW.dtype, torch.promote_types(weight_C.dtype, bias_C.dtype))
    return F.group_norm(x_BCHW.to(wide), num_groups, weight_C.to(wide), bias_C.to(wide), eps)
