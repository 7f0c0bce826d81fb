"""The nets of the step in plain PyTorch, as functions of a dictionary of weights named as our learner's.

Nothing here goes through ``ptr_fast.kernels``: convolutions, ``F.group_norm``, ``F.max_pool2d``, ``einsum``. Weights
are cast to ``dtype`` where they are used; normalisation statistics are kept by PyTorch in float32; heads are float32.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch.nn import functional as F

from ptr_fast.config import CqlConfig
from ptr_fast.nets.encoders.resnet import STAGE_SIZES

__all__ = ["PlainNets", "tanh_sample"]

Weights = Mapping[str, torch.Tensor]


@dataclass(frozen=True)
class PlainNets:
    """Encoder, policy and heads of one configuration.

    Attributes:
        config: the learner's; ``reinject_all`` heads and the learned spatial embedding only.
        dtype: of the encoder's activations.
    """

    config: CqlConfig
    dtype: torch.dtype = torch.float32

    def encode(self, weights: Weights, net: str, images_BCHW: torch.Tensor) -> torch.Tensor:
        """Embedding ``[B, D]`` in float32."""
        prefix = f"{net}.encoder."
        x = images_BCHW.to(self.dtype)
        trunk = self._conv3 if self.config.encoder.name == "conv3" else self._resnet
        x = trunk(weights, prefix + "trunk.", x)
        kernel_CPF = weights[prefix + "pooling.kernel"].to(self.dtype)
        pooled = torch.einsum("bcp,cpf->bcf", x.flatten(2), kernel_CPF).flatten(1).float()
        hidden = F.linear(pooled, weights[prefix + "dense.weight"], weights[prefix + "dense.bias"])
        scale, shift = weights[prefix + "norm.weight"], weights[prefix + "norm.bias"]
        return torch.tanh(F.layer_norm(hidden, hidden.shape[1:], scale, shift, 1e-6))

    def policy(
        self, weights: Weights, embedding_BD: torch.Tensor, state_BS: torch.Tensor, task_BN: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Mean and log standard deviation ``[B, A]``."""
        hidden = torch.cat([embedding_BD, state_BS, task_BN], dim=1)
        for i in range(len(self.config.hidden_dims)):
            name = f"actor.policy.trunk.layers.{i}"
            hidden = F.relu(F.linear(hidden, weights[name + ".weight"], weights[name + ".bias"]))
        mean, log_std = (
            F.linear(hidden, weights[f"actor.policy.{name}.weight"], weights[f"actor.policy.{name}.bias"])
            for name in ("mean", "log_std")
        )
        return mean, log_std.clamp(-5.0, 2.0)

    def heads(
        self,
        weights: Weights,
        net: str,
        embedding_BD: torch.Tensor,
        task_BN: torch.Tensor,
        actions_BKA: torch.Tensor,
    ) -> torch.Tensor:
        """Q ``[E, B, K]``: the shares of state and task once per state, those of the actions once per action."""
        action_dim, width = actions_BKA.shape[2], embedding_BD.shape[1]
        hidden = None
        for i in range(len(self.config.hidden_dims) + 1):
            kernel_EIO, bias_EO = weights[f"{net}.head.kernels.{i}"], weights[f"{net}.head.biases.{i}"]
            front, action, pixels = kernel_EIO.split([kernel_EIO.shape[1] - action_dim - width, action_dim, width], 1)
            out = torch.einsum("bd,edo->ebo", embedding_BD, pixels) + bias_EO[:, None]
            if hidden is None:
                out = out + torch.einsum("bn,eno->ebo", task_BN, front)
            out = out[:, :, None] + torch.einsum("bka,eao->ebko", actions_BKA, action)
            if hidden is not None:
                out = out + torch.einsum("ebki,eio->ebko", hidden, front)
            hidden = F.relu(out)
        return out.squeeze(3)

    def _norm_act(
        self, weights: Weights, name: str, x: torch.Tensor, residual: torch.Tensor | None = None, relu: bool = True
    ) -> torch.Tensor:
        scale, shift = weights[name + ".weight"].to(self.dtype), weights[name + ".bias"].to(self.dtype)
        y = F.group_norm(x, self.config.encoder.num_groups, scale, shift, 1e-5)
        y = y if residual is None else y + residual
        return F.relu(y) if relu else y

    def _conv(self, weights: Weights, name: str, x: torch.Tensor, stride: int = 1) -> torch.Tensor:
        weight = weights[name + ".weight"].to(self.dtype)
        kernel = weight.shape[2]
        if kernel == 1 and x.device.type == "cpu":  # oneDNN's fault with strided ones: ptr_fast.nets.layers.Conv2d
            return F.conv2d(F.avg_pool2d(x, 1, stride), weight)
        total = max((-(-x.shape[2] // stride) - 1) * stride + kernel - x.shape[2], 0)
        if total % 2:  # SAME padding of a stride-2 kernel: one pixel more after than before
            x = F.pad(x, (total // 2, total - total // 2, total // 2, total - total // 2))
            return F.conv2d(x, weight, None, stride)
        return F.conv2d(x, weight, None, stride, total // 2)

    def _conv3(self, weights: Weights, prefix: str, x: torch.Tensor) -> torch.Tensor:
        for i, stride in enumerate((2, 2, 1)):
            x = F.conv2d(x, weights[f"{prefix}convs.{i}.weight"].to(self.dtype), None, stride, 1)
            x = self._norm_act(weights, f"{prefix}norms.{i}", x)
        return x

    def _resnet(self, weights: Weights, prefix: str, x: torch.Tensor) -> torch.Tensor:
        x = F.conv2d(x, weights[prefix + "stem_conv.weight"].to(self.dtype), None, 2, 3)
        x = self._norm_act(weights, prefix + "stem_norm", x)
        odd = (x.shape[2] % 2, x.shape[3] % 2)
        x = F.max_pool2d(x, 3, 2, padding=odd, ceil_mode=True)
        for i, num_blocks in enumerate(STAGE_SIZES[self.config.encoder.name]):
            for j in range(num_blocks):
                x = self._block(weights, f"{prefix}stages.{i}.{j}.", x, 2 if (i, j) == (1, 0) else 1)
        return x

    def _block(self, weights: Weights, prefix: str, x: torch.Tensor, stride: int) -> torch.Tensor:
        shortcut = x
        if prefix + "projection.0.weight" in weights:
            shortcut = self._conv(weights, prefix + "projection.0", x, stride)
            shortcut = self._norm_act(weights, prefix + "projection.1", shortcut, relu=False)
        bottleneck = prefix + "conv2.weight" in weights
        y = self._conv(weights, prefix + "conv0", x, 1 if bottleneck else stride)
        y = self._norm_act(weights, prefix + "norm0", y)
        y = self._conv(weights, prefix + "conv1", y, stride if bottleneck else 1)
        if bottleneck:
            y = self._conv(weights, prefix + "conv2", self._norm_act(weights, prefix + "norm1", y))
        return self._norm_act(weights, prefix + ("norm2" if bottleneck else "norm1"), y, shortcut)


def tanh_sample(
    mean_BA: torch.Tensor, log_std_BA: torch.Tensor, eps: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    """Actions and their log density for noise ``[B, A]`` or ``[B, K, A]``."""
    if eps.dim() == 3:
        mean_BA, log_std_BA = mean_BA[:, None], log_std_BA[:, None]
    x = mean_BA + log_std_BA.exp() * eps
    gaussian = -0.5 * eps.square() - log_std_BA - 0.5 * math.log(2.0 * math.pi)
    slope = 2.0 * (math.log(2.0) - x - F.softplus(-2.0 * x))
    return x.tanh(), (gaussian - slope).sum(dim=-1)
