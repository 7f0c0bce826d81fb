"""The layers that every encoder is made of: SAME convolutions, group norm with activation, dense.

Shapes: B batch, C channels, H height, W width; images are BCHW in shape and channels_last in memory.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch
from torch import nn
from torch.nn import functional as F

from ptr_fast.kernels.group_norm_act import group_norm_act
from ptr_fast.kernels.group_norm_act_pool import group_norm_act_pool
from ptr_fast.kernels.group_norm_act_pool.reference import same_max_pool
from ptr_fast.nets.init import kaiming_normal_

__all__ = [
    "Conv2d",
    "Dense",
    "GroupNormAct",
    "GroupNormActPool",
    "LayerNorm",
    "initialise_layers",
    "same_padding",
    "select_task",
]


def initialise_layers(layers: Iterable[nn.Module], generator: torch.Generator) -> None:
    """Every layer that can set its parameters itself does so, in this order.

    Dense layers cannot: their weights are drawn as their owner says.
    """
    for layer in layers:
        if callable(initialise := getattr(layer, "initialise", None)):
            initialise(generator)


def same_padding(size: int, kernel: int, stride: int) -> tuple[int, int]:
    """Pixels that SAME padding puts before and after an axis: the odd one goes after (XLA and TensorFlow)."""
    total = max((-(-size // stride) - 1) * stride + kernel - size, 0)
    return total // 2, total - total // 2


class _SelectTask(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, weight: torch.Tensor, dim: int, task_id_B: torch.Tensor) -> torch.Tensor:
        ctx.save_for_backward(task_id_B)
        ctx.dim, ctx.num_slots = dim, weight.shape[dim]
        return weight.index_select(dim, task_id_B)

    @staticmethod
    def backward(ctx: Any, grad: torch.Tensor) -> tuple[torch.Tensor, None, None]:  # type: ignore[override]
        (task_id_B,) = ctx.saved_tensors
        one_hot_BN = task_id_B[:, None] == torch.arange(ctx.num_slots, device=grad.device)
        summed = torch.tensordot(grad, one_hot_BN.to(grad.dtype), dims=([ctx.dim], [0]))
        return summed.movedim(-1, ctx.dim), None, None


def select_task(weight: torch.Tensor, dim: int, task_id_B: torch.Tensor) -> torch.Tensor:
    """What a product with the tasks' one-hots gives: the task's entry of ``weight`` along ``dim``.

    The gradient of plain ``index_select`` is added up by atomics on a GPU, in another order every time; here it is a
    product, the same in two runs.
    """
    if not (torch.is_grad_enabled() and weight.requires_grad):
        return weight.index_select(dim, task_id_B)
    return _SelectTask.apply(weight, dim, task_id_B)


class Conv2d(nn.Conv2d):
    """Convolution without bias and with SAME padding; weights ``[out, in, k, k]``, kaiming truncated normal.

    Padding that is equal on both sides goes into the convolution; a stride-2 kernel on an even size pads (0, 1), which
    PyTorch's symmetric padding cannot express, so the input is padded first (one convolution per ResNet).
    """

    def __init__(self, num_in: int, num_out: int, kernel: int, stride: int = 1) -> None:
        super().__init__(num_in, num_out, kernel, stride, bias=False)

    def reset_parameters(self) -> None:
        """Weights stay unset until :meth:`initialise`, so that no global generator is used."""

    def initialise(self, generator: torch.Generator) -> None:
        kaiming_normal_(self.weight, generator)

    def forward(self, x_BCHW: torch.Tensor) -> torch.Tensor:
        kernel, stride = self.kernel_size[0], self.stride[0]
        top, bottom = same_padding(x_BCHW.shape[2], kernel, stride)
        left, right = same_padding(x_BCHW.shape[3], kernel, stride)
        if top == bottom and left == right:
            return self.convolve(x_BCHW, (top, left))
        return self.convolve(F.pad(x_BCHW, (left, right, top, bottom)))

    def convolve(self, x_BCHW: torch.Tensor, padding: int | tuple[int, int] = 0) -> torch.Tensor:
        """With a padding that is the same on both sides; in the dtype of x, whatever the weights are kept in.

        Where a gradient may be asked for on a CPU, a strided 1x1 convolution is a dense one of every stride-th pixel:
        the same numbers. oneDNN 3.12 (torch 2.13) writes past the end of its buffer in the weight gradient of the
        strided form on processors of AVX2, with fewer than 8 input channels.
        """
        weight = self.weight.to(x_BCHW.dtype)
        strided_1x1 = self.kernel_size == (1, 1) and self.stride != (1, 1)
        if strided_1x1 and x_BCHW.device.type == "cpu" and torch.is_grad_enabled():
            pixels = F.avg_pool2d(x_BCHW, 1, self.stride)  # of one pixel each; its gradient keeps the layout
            return F.conv2d(pixels, weight)
        return F.conv2d(x_BCHW, weight, None, self.stride, padding)


class GroupNormAct(nn.Module):
    """``act(group_norm(x) + residual)``; scale starts at ``initial_scale``, bias at 0.

    With 0 groups nothing is normalised: scale and bias per channel are what is left.
    """

    def __init__(
        self,
        num_channels: int,
        num_groups: int,
        activation: str = "relu",
        initial_scale: float = 1.0,
        eps: float = 1e-5,
    ) -> None:
        super().__init__()
        self.num_groups, self.activation, self.eps, self.initial_scale = num_groups, activation, eps, initial_scale
        self.weight = nn.Parameter(torch.empty(num_channels))
        self.bias = nn.Parameter(torch.empty(num_channels))

    def initialise(self, generator: torch.Generator) -> None:
        """Constants; nothing is drawn."""
        nn.init.constant_(self.weight, self.initial_scale)
        nn.init.zeros_(self.bias)

    def forward(
        self,
        x_BCHW: torch.Tensor,
        residual: torch.Tensor | None = None,
        residual_norm: GroupNormAct | None = None,
    ) -> torch.Tensor:
        """``residual_norm``: the norm that the residual still has to get; its parameters are used, not its forward."""
        if self.num_groups == 0:
            y_BCHW = self._scale_and_shift(x_BCHW)
            if residual is not None:
                y_BCHW = y_BCHW + (residual if residual_norm is None else residual_norm._scale_and_shift(residual))
            return (F.relu(y_BCHW) if self.activation == "relu" else y_BCHW).to(x_BCHW.dtype)
        return group_norm_act(
            x_BCHW,
            self.weight,
            self.bias,
            self.num_groups,
            self.eps,
            residual=residual,
            activation=self.activation,
            residual_weight=None if residual_norm is None else residual_norm.weight,
            residual_bias=None if residual_norm is None else residual_norm.bias,
        )

    def _scale_and_shift(self, x_BCHW: torch.Tensor) -> torch.Tensor:
        """In the dtype of the parameters."""
        return x_BCHW * self.weight[:, None, None] + self.bias[:, None, None]

    def extra_repr(self) -> str:
        return f"{self.weight.shape[0]}, num_groups={self.num_groups}, activation={self.activation}"


class GroupNormActPool(GroupNormAct):
    """``max_pool(relu(group_norm(x)))``: 3x3, stride 2, SAME; with 0 groups without the norm."""

    def __init__(self, num_channels: int, num_groups: int) -> None:
        super().__init__(num_channels, num_groups)

    def forward(self, x_BCHW: torch.Tensor) -> torch.Tensor:  # type: ignore[override]
        if self.num_groups == 0:
            return same_max_pool(super().forward(x_BCHW))
        return group_norm_act_pool(x_BCHW, self.weight, self.bias, self.num_groups, self.eps)


class LayerNorm(nn.Module):
    """Layer norm over the last axis, with float32 statistics; scale starts at 1, bias at 0."""

    def __init__(self, num_channels: int, eps: float = 1e-6) -> None:
        super().__init__()
        self.eps = eps
        self.weight, self.bias = (nn.Parameter(torch.empty(num_channels)) for _ in range(2))

    def initialise(self, generator: torch.Generator) -> None:
        """Constants; nothing is drawn."""
        nn.init.ones_(self.weight)
        nn.init.zeros_(self.bias)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """In the dtype of x, whatever the weights are kept in."""
        wide = x.to(self.weight.dtype)
        return F.layer_norm(wide, self.weight.shape, self.weight, self.bias, self.eps).to(x.dtype)


class Dense(nn.Linear):
    """Linear layer; its owner draws the weights and sets the bias.

    It computes in the dtype of its input, whatever the weights are kept in.
    """

    def reset_parameters(self) -> None:
        """Weights stay unset until their owner draws them, so that no global generator is used."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return F.linear(x, self.weight.to(x.dtype), None if self.bias is None else self.bias.to(x.dtype))
