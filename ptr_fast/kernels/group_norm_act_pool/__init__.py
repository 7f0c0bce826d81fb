"""max_pool(relu(group_norm(x) * weight + bias)): what follows a ResNet's stem, writing only the pooled pixels."""

from __future__ import annotations

import torch

from ptr_fast.kernels import cuda_backend, dispatch, triton_backend
from ptr_fast.kernels.group_norm_act_pool import native, reference
from ptr_fast.native import warn_missing, why_not_on

__all__ = ["group_norm_act_pool"]

_OP = "group_norm_act_pool"
_NO_FASTER = "1.04 times as fast as Triton forward on an H200, with gradients not measured"

dispatch.register(
    _OP,
    (
        cuda_backend.lazy_backend(_OP, slower=lambda *args: _NO_FASTER),
        triton_backend.lazy_backend(_OP),
        dispatch.Backend("native", native.group_norm_act_pool, native.supports, why_not_on),
        dispatch.Backend("reference", reference.group_norm_act_pool, reference.supports),
    ),
)


def group_norm_act_pool(
    x_BCHW: torch.Tensor, weight_C: torch.Tensor, bias_C: torch.Tensor, num_groups: int, eps: float = 1e-5
) -> torch.Tensor:
    """Group normalisation, affine map, ReLU, 3x3 max-pool of stride 2 with SAME padding.

    SAME pads an even axis by (0, 1) and an odd one by (1, 1), with minus infinity.

    Args:
        x_BCHW: float ``[B, C, H, W]``; the fast paths want channels_last memory: float32 on the CPU,
            bfloat16 or float32 (with float32 parameters) on a GPU.
        weight_C, bias_C: float ``[C]``, scale and shift after the normalisation.
        num_groups: neighbouring channels that share mean and variance; divides C.
        eps: added to the (biased) variance.

    Returns:
        ``[B, C, ceil(H / 2), ceil(W / 2)]`` in the layout of x. Differentiable once with respect to x, weight and bias;
        of equal maxima in a window the first, row by row, gets the gradient. A NaN in x stays a NaN.

    Raises:
        ValueError: a shape or group count that does not fit.

    Source: the stem of the reference's ResNet (networks/encoders/resnet_encoderv1.py): ``MyGroupNorm``, ``nn.relu``,
    ``nn.max_pool``.
    """
    if x_BCHW.ndim != 4:
        raise ValueError(f"x: expected [B, C, H, W], got shape {tuple(x_BCHW.shape)}")
    num_channels = x_BCHW.shape[1]
    if num_groups < 1 or num_channels % num_groups != 0:
        raise ValueError(f"num_groups: expected a divisor of the {num_channels} channels, got {num_groups}")
    for name, tensor in (("weight", weight_C), ("bias", bias_C)):
        if tensor.shape != (num_channels,):
            raise ValueError(f"{name}: expected shape ({num_channels},), got {tuple(tensor.shape)}")
    args = (x_BCHW, weight_C, bias_C, num_groups, eps)
    backend = dispatch.select(_OP, *args)
    if backend.name == "reference":
        warn_missing()
    return backend.run(*args)
