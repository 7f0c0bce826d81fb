"""The reference's nets in JAX/Flax, written from its published description; images are BHWC.

Runs in a process of its own (no torch): see ``jax_worker.py``. Weights come and go under the names of our learner's.
"""

from __future__ import annotations

import math
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

__all__ = ["Encoder", "Heads", "Policy", "from_flax", "tanh_sample", "to_flax"]

STAGE_SIZES = {"resnet_small": (1, 1, 1, 1), "resnet18": (2,) * 4, "resnet34": (3, 4, 6, 3), "resnet50": (3, 4, 6, 3)}


class Block(nn.Module):
    """Basic or bottleneck residual block."""

    width: int
    stride: int
    groups: int
    bottleneck: bool
    dtype: Any

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        def conv(size: int, kernel: int, stride: int, name: str, value: jax.Array) -> jax.Array:
            return nn.Conv(
                size, (kernel, kernel), (stride, stride), "SAME", use_bias=False, dtype=self.dtype, name=name
            )(value)

        def norm(name: str, value: jax.Array) -> jax.Array:
            return nn.GroupNorm(num_groups=self.groups, epsilon=1e-5, dtype=self.dtype, name=name)(value)

        num_out = self.width * (4 if self.bottleneck else 1)
        if self.bottleneck:
            y = nn.relu(norm("norm0", conv(self.width, 1, 1, "conv0", x)))
            y = nn.relu(norm("norm1", conv(self.width, 3, self.stride, "conv1", y)))
            y = norm("norm2", conv(num_out, 1, 1, "conv2", y))
        else:
            y = nn.relu(norm("norm0", conv(self.width, 3, self.stride, "conv0", x)))
            y = norm("norm1", conv(self.width, 3, 1, "conv1", y))
        if y.shape != x.shape:
            x = norm("projection_1", conv(num_out, 1, self.stride, "projection_0", x))
        return nn.relu(x + y)


class Encoder(nn.Module):
    """Trunk, learned spatial embedding, bottleneck (Dense, LayerNorm, tanh)."""

    name_of_trunk: str
    num_filters: int
    groups: int
    num_features: int
    embedding_dim: int
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, images: jax.Array) -> jax.Array:
        x = images.astype(self.dtype)
        x = self._conv3(x) if self.name_of_trunk == "conv3" else self._resnet(x)
        _, height, width, channels = x.shape
        shape = (height, width, channels, self.num_features)
        kernel = self.param("pooling_kernel", nn.initializers.lecun_normal(), shape)
        x = jnp.einsum("bhwc,hwcf->bcf", x, kernel.astype(self.dtype)).reshape(x.shape[0], -1).astype(jnp.float32)
        return jnp.tanh(nn.LayerNorm(epsilon=1e-6, name="norm")(nn.Dense(self.embedding_dim, name="dense")(x)))

    def _conv3(self, x: jax.Array) -> jax.Array:
        pad = ((1, 1), (1, 1))
        for i, (scale, stride) in enumerate(((1, 2), (2, 2), (2, 1))):
            size = self.num_filters * scale
            conv = nn.Conv(size, (3, 3), (stride, stride), pad, use_bias=False, dtype=self.dtype, name=f"convs_{i}")
            x = nn.GroupNorm(self.groups, epsilon=1e-5, dtype=self.dtype, name=f"norms_{i}")(conv(x))
            x = nn.relu(x)
        return x

    def _resnet(self, x: jax.Array) -> jax.Array:
        pad = ((3, 3), (3, 3))
        conv = nn.Conv(self.num_filters, (7, 7), (2, 2), pad, use_bias=False, dtype=self.dtype, name="stem_conv")
        x = nn.relu(nn.GroupNorm(self.groups, epsilon=1e-5, dtype=self.dtype, name="stem_norm")(conv(x)))
        x = nn.max_pool(x, (3, 3), (2, 2), "SAME")
        for i, num_blocks in enumerate(STAGE_SIZES[self.name_of_trunk]):
            for j in range(num_blocks):
                stride = 2 if (i, j) == (1, 0) else 1
                bottleneck = self.name_of_trunk == "resnet50"
                block = Block(
                    self.num_filters * 2**i, stride, self.groups, bottleneck, self.dtype, name=f"stages_{i}_{j}"
                )
                x = block(x)
        return x


class Policy(nn.Module):
    """MLP on embedding, state and task; mean and log standard deviation clipped to [-5, 2]."""

    hidden_dims: tuple[int, ...]
    action_dim: int

    @nn.compact
    def __call__(self, embedding: jax.Array, state: jax.Array, task: jax.Array) -> tuple[jax.Array, jax.Array]:
        x = jnp.concatenate([embedding, state, task], axis=1)
        for i, size in enumerate(self.hidden_dims):
            x = nn.relu(nn.Dense(size, name=f"layers_{i}")(x))
        mean, log_std = nn.Dense(self.action_dim, name="mean")(x), nn.Dense(self.action_dim, name="log_std")(x)
        return mean, jnp.clip(log_std, -5.0, 2.0)


class OneHead(nn.Module):
    """Action and embedding are concatenated to the input of every layer, the task to the first's."""

    hidden_dims: tuple[int, ...]

    @nn.compact
    def __call__(self, embedding: jax.Array, task: jax.Array, actions: jax.Array) -> jax.Array:
        hidden = task
        for i, size in enumerate((*self.hidden_dims, 1)):
            hidden = nn.Dense(size, name=f"layers_{i}")(jnp.concatenate([hidden, actions, embedding], axis=-1))
            hidden = nn.relu(hidden) if i < len(self.hidden_dims) else hidden
        return hidden.squeeze(-1)


class Heads(nn.Module):
    """An ensemble of heads with weights of their own; Q ``[E, rows]``."""

    num_critics: int
    hidden_dims: tuple[int, ...]

    @nn.compact
    def __call__(self, embedding: jax.Array, task: jax.Array, actions: jax.Array) -> jax.Array:
        ensemble = nn.vmap(
            OneHead,
            variable_axes={"params": 0},
            split_rngs={"params": True},
            in_axes=None,
            out_axes=0,
            axis_size=self.num_critics,
        )
        return ensemble(self.hidden_dims, name="ensemble")(embedding, task, actions)


def tanh_sample(mean: jax.Array, log_std: jax.Array, eps: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Actions and log density of ``tanh(mean + std * eps)``; all ``[..., A]``."""
    x = mean + jnp.exp(log_std) * eps
    gaussian = -0.5 * eps**2 - log_std - 0.5 * math.log(2.0 * math.pi)
    slope = 2.0 * (math.log(2.0) - x - jax.nn.softplus(-2.0 * x))
    return jnp.tanh(x), (gaussian - slope).sum(-1)


def to_flax(weights: dict[str, np.ndarray]) -> dict[str, Any]:
    """Nested parameters per net from weights under our names (``actor.encoder.dense.weight`` ...)."""
    tree: dict[str, Any] = {}
    for name, value in weights.items():
        path, array = _flax_place(name, value)
        node = tree
        for part in path[:-1]:
            node = node.setdefault(part, {})
        node[path[-1]] = jnp.array(array)
    return tree


def from_flax(tree: dict[str, Any], weights: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """The inverse of :func:`to_flax`; ``weights`` gives names and shapes."""
    out = {}
    for name, value in weights.items():
        path, array = _flax_place(name, np.arange(value.size).reshape(value.shape))
        node = tree
        for part in path:
            node = node[part]
        flat = np.empty(value.size, np.float32)
        flat[array.ravel()] = np.asarray(node, np.float32).ravel()
        out[name] = flat.reshape(value.shape)
    return out


def _flax_place(name: str, value: np.ndarray) -> tuple[list[str], np.ndarray]:
    """Path in the nested parameters, and the array in Flax's layout."""
    net, *parts = name.split(".")
    if net == "temperature":
        return ["temperature"], value
    part, *rest = parts
    if part == "head":  # kernels.i [E, in, out], biases.i [E, out]
        leaf = "kernel" if rest[0] == "kernels" else "bias"
        return [net, "head", "params", "ensemble", f"layers_{rest[1]}", leaf], value
    leaf = rest.pop()
    if part == "policy":
        where = rest[-1] if rest[0] != "trunk" else f"layers_{rest[-1]}"
        return [net, "policy", "params", where, "kernel" if leaf == "weight" else "bias"], value.T
    root = [net, "encoder", "params"]
    if rest == ["pooling"]:  # [C, H * W, F] -> [H, W, C, F]
        size = math.isqrt(value.shape[1])
        return [*root, "pooling_kernel"], value.transpose(1, 0, 2).reshape(size, size, *value.shape[::2])
    if rest == ["dense"]:
        return [*root, "dense", "kernel" if leaf == "weight" else "bias"], value.T
    if rest == ["norm"]:
        return [*root, "norm", "scale" if leaf == "weight" else "bias"], value
    path = [part for part in rest if part != "trunk"]
    if path[0] == "stages":  # stages.i.j.conv0 / norm0 / projection.0
        block = "_".join(path[:3])
        path = [block, "_".join(path[3:])]
    else:
        path = ["_".join(path)]
    if value.ndim == 4:
        return [*root, *path, "kernel"], value.transpose(2, 3, 1, 0)
    return [*root, *path, "scale" if leaf == "weight" else "bias"], value
