"""act(group_norm(x) * weight + bias + residual): what follows every convolution, in one read and one write."""

from __future__ import annotations

import torch

from ptr_fast.kernels import cuda_backend, dispatch, triton_backend
from ptr_fast.kernels.group_norm_act import native, reference
from ptr_fast.native import warn_missing, why_not_on

__all__ = ["group_norm_act"]

_OP = "group_norm_act"
_ACTIVATIONS = ("relu", "none")
_SLAB_BYTES = 128 * 1024  # of one group of one image


def _why_triton(x_BCHW: torch.Tensor, weight_C: torch.Tensor, bias_C: torch.Tensor, num_groups: int, *_: object) -> str:
    """Why CUDA does not run by itself; the rows of an H200 are in benchmarks/results/gpu_kernels.jsonl."""
    if x_BCHW.dtype != torch.bfloat16:
        return f"measured for one image alone in {str(x_BCHW.dtype).removeprefix('torch.')}, where Triton is as fast"
    slab = x_BCHW[0].numel() // num_groups * x_BCHW.element_size()
    if slab > _SLAB_BYTES:
        return (
            f"a group of an image has {slab // 1024} KiB; beyond 128, Triton is 1.1 to 1.7 times as fast with gradients"
        )
    return cuda_backend.not_captured_yet()


dispatch.register(
    _OP,
    (
        cuda_backend.lazy_backend(_OP, slower=_why_triton),
        triton_backend.lazy_backend(_OP),
        dispatch.Backend("native", native.group_norm_act, native.supports, why_not_on),
        dispatch.Backend("reference", reference.group_norm_act, reference.supports),
    ),
)


def group_norm_act(
    x_BCHW: torch.Tensor,
    weight_C: torch.Tensor,
    bias_C: torch.Tensor,
    num_groups: int,
    eps: float = 1e-5,
    residual: torch.Tensor | None = None,
    activation: str = "relu",
    residual_weight: torch.Tensor | None = None,
    residual_bias: torch.Tensor | None = None,
) -> torch.Tensor:
    """Group normalisation, affine map, sum with a residual branch, activation.

    With ``residual_weight`` and ``residual_bias`` the residual is a shortcut convolution's output that has not been
    normalised yet: it gets a group norm of its own (the same groups and eps) before the sum.

    Args:
        x_BCHW: float ``[B, C, H, W]``; the fast paths want channels_last memory: float32 on the CPU,
            bfloat16 or float32 (with float32 parameters) on a GPU.
        weight_C, bias_C: float ``[C]``, scale and shift after the normalisation.
        num_groups: neighbouring channels that share mean and variance; divides C.
        eps: added to the (biased) variance.
        residual: ``[B, C, H, W]``, added before the activation, or None.
        activation: ``"relu"`` or ``"none"``.
        residual_weight, residual_bias: float ``[C]``, scale and shift of the residual's own norm, or both None.

    Returns:
        ``[B, C, H, W]`` in the layout of x. Differentiable once with respect to every tensor; a NaN in x or in the
        residual stays a NaN.

    Raises:
        ValueError: a shape, group count or activation that does not fit; a residual's norm without a residual.

    Source: Wu and He 2018, eq. 1; the reference's ``MyGroupNorm`` followed by ``nn.relu`` (networks/encoders/resnet).
    """
    if x_BCHW.ndim != 4:
        raise ValueError(f"x: expected [B, C, H, W], got shape {tuple(x_BCHW.shape)}")
    num_channels = x_BCHW.shape[1]
    if num_groups < 1 or num_channels % num_groups != 0:
        raise ValueError(f"num_groups: expected a divisor of the {num_channels} channels, got {num_groups}")
    if (residual_weight is None) != (residual_bias is None):
        raise ValueError("residual_weight and residual_bias: expected both or neither")
    if residual_weight is not None and residual is None:
        raise ValueError("residual_weight: there is no residual to normalise")
    channels = {"weight": weight_C, "bias": bias_C, "residual_weight": residual_weight, "residual_bias": residual_bias}
    for name, tensor in channels.items():
        if tensor is not None and tensor.shape != (num_channels,):
            raise ValueError(f"{name}: expected shape ({num_channels},), got {tuple(tensor.shape)}")
    if residual is not None and residual.shape != x_BCHW.shape:
        raise ValueError(f"residual: expected x's shape {tuple(x_BCHW.shape)}, got {tuple(residual.shape)}")
    if activation not in _ACTIVATIONS:
        raise ValueError(f"activation: expected one of {_ACTIVATIONS}, got {activation!r}")
    args = (x_BCHW, weight_C, bias_C, num_groups, eps, residual, activation, residual_weight, residual_bias)
    backend = dispatch.select(_OP, *args)
    if backend.name == "reference":
        warn_missing()
    return backend.run(*args)
