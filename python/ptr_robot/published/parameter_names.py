"""Parameters of the published JAX nets, by name, as parameters of ours.

Both sides flattened: theirs ``encoder/ResNetBlock_3/Conv_0/kernel``, ours ``trunk.stages.1.0.conv0.weight``.
Convolution kernels turn from HWIO to OIHW, dense kernels from (in, out) to (out, in); the Q heads keep
(ensemble, in, out).
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import torch

from ptr_fast.config import EncoderConfig
from ptr_fast.errors import DataError
from ptr_fast.nets.encoders.resnet import STAGE_SIZES

__all__ = ["Sizes", "actor_state", "critic_state", "encoder_state", "head_state", "infer_sizes", "policy_state"]

_BLOCK = re.compile(r"encoder/(Bottleneck)?ResNetBlock_(\d+)/(.+)/(kernel|scale|bias)$")
_HEAD = re.compile(r"(?:network/)?VmapStateActionValue_0/(?:MLPActionSep|MLP)_0/Dense_(\d+)/(kernel|bias)$")
_BLOCK_MODULES = {
    "Conv_0": "conv0",
    "Conv_1": "conv1",
    "Conv_2": "conv2",
    "MyGroupNorm_0": "norm0",
    "MyGroupNorm_1": "norm1",
    "MyGroupNorm_2": "norm2",
    "conv_proj": "projection.0",
    "norm_proj": "projection.1",
}
_STEM = {
    "encoder/conv_init": "trunk.stem_conv",
    "encoder/bn_init": "trunk.stem_norm",
    "Dense_0": "dense",
    "LayerNorm_0": "norm",
}
Arrays = Mapping[str, np.ndarray]
State = dict[str, torch.Tensor]


@dataclass(frozen=True, kw_only=True)
class Sizes:
    """What the parameters say about the nets they belong to.

    Attributes:
        encoder: configuration of the image encoder.
        image_size: height and width of the images, pixels (the smallest that give the feature map's size times 8).
        hidden_dims: hidden layers of the policy.
        action_dim: A.
        num_conditions: state dimensions and task slots together, which the parameters do not tell apart.
    """

    encoder: EncoderConfig
    image_size: tuple[int, int]
    hidden_dims: tuple[int, ...]
    action_dim: int
    num_conditions: int


def infer_sizes(actor: Arrays) -> Sizes:
    """Sizes of the nets from the actor's parameters.

    Raises:
        DataError: the parameters are not those of a ResNet actor with learned spatial embedding and bottleneck.
    """
    encoder = infer_encoder(actor)
    spatial = _take(actor, "encoder/SpatialLearnedEmbeddings_0/kernel")
    hidden_dims, layer = [], 0
    while f"network/MLP_0/Dense_{layer}/kernel" in actor:
        hidden_dims.append(actor[f"network/MLP_0/Dense_{layer}/kernel"].shape[1])
        layer += 1
    first = _take(actor, "network/MLP_0/Dense_0/kernel")
    return Sizes(
        encoder=encoder,
        image_size=(8 * spatial.shape[0], 8 * spatial.shape[1]),
        hidden_dims=tuple(hidden_dims),
        action_dim=_take(actor, "network/Dense_0/kernel").shape[1],
        num_conditions=first.shape[0] - encoder.embedding_dim,
    )


def infer_encoder(arrays: Arrays) -> EncoderConfig:
    """Configuration of an image encoder from its parameters (four norm groups, as published).

    Raises:
        DataError: not a ResNet of a known depth.
    """
    stem = _take(arrays, "encoder/conv_init/kernel")
    spatial = _take(arrays, "encoder/SpatialLearnedEmbeddings_0/kernel")
    blocks = {(match[1] is not None, int(match[2])) for match in map(_BLOCK.match, arrays) if match}
    bottleneck = {kind for kind, _ in blocks} == {True}
    names = [n for n, sizes in STAGE_SIZES.items() if sum(sizes) == len(blocks) and (n == "resnet50") == bottleneck]
    if len(names) != 1:
        raise DataError(f"encoder: expected {sorted(STAGE_SIZES)}, got {len(blocks)} residual blocks")
    return EncoderConfig(
        name=names[0],  # type: ignore[arg-type]
        num_filters=stem.shape[3],
        num_spatial_blocks=spatial.shape[3],
        embedding_dim=_take(arrays, "Dense_0/kernel").shape[1],
    )


def encoder_state(arrays: Arrays, config: EncoderConfig) -> State:
    """State of an :class:`ptr_fast.nets.ImageEncoder`; names that belong to no encoder are passed over."""
    places = [(stage, block) for stage, size in enumerate(STAGE_SIZES[config.name]) for block in range(size)]
    state: State = {}
    for name, array in arrays.items():
        module, _, leaf = name.rpartition("/")
        match = _BLOCK.match(name)
        if match:
            stage, block = places[int(match[2])]
            if match[3] not in _BLOCK_MODULES:
                raise DataError(f"encoder: unknown parameter {name!r}")
            state[f"trunk.stages.{stage}.{block}.{_BLOCK_MODULES[match[3]]}.{_leaf(leaf)}"] = _convert(array, leaf)
        elif module in _STEM:
            state[f"{_STEM[module]}.{_leaf(leaf)}"] = _convert(array, leaf)
        elif module == "encoder/SpatialLearnedEmbeddings_0":
            height, width, channels, features = array.shape
            kernel_CPF = array.reshape(height * width, channels, features).transpose(1, 0, 2)
            state["pooling.kernel"] = _tensor(kernel_CPF)
        elif module.startswith("encoder/"):
            raise DataError(f"encoder: unknown parameter {name!r}")
    return state


def policy_state(arrays: Arrays, prefix: str = "network/") -> State:
    """State of a :class:`ptr_fast.nets.policy.TanhGaussianPolicy`."""
    state: State = {}
    for name, array in arrays.items():
        module, _, leaf = name.removeprefix(prefix).rpartition("/")
        if not name.startswith(prefix):
            continue
        if module.startswith("MLP_0/Dense_"):
            ours = f"trunk.layers.{int(module.removeprefix('MLP_0/Dense_'))}"
        elif module in ("Dense_0", "Dense_1"):
            ours = {"Dense_0": "mean", "Dense_1": "log_std"}[module]
        else:
            raise DataError(f"policy: unknown parameter {name!r}")
        state[f"{ours}.{_leaf(leaf)}"] = _convert(array, leaf)
    return state


def head_state(arrays: Arrays) -> State:
    """State of an :class:`ptr_fast.nets.EnsembleHead`."""
    state: State = {}
    for name, array in arrays.items():
        match = _HEAD.match(name)
        if match is None:
            raise DataError(f"critic head: unknown parameter {name!r}")
        state[f"{'kernels' if match[2] == 'kernel' else 'biases'}.{int(match[1])}"] = _tensor(array)
    return state


def actor_state(arrays: Arrays, config: EncoderConfig) -> State:
    """State of an :class:`ptr_fast.nets.Actor`."""
    state = {f"encoder.{name}": value for name, value in encoder_state(arrays, config).items()}
    return state | {f"policy.{name}": value for name, value in policy_state(arrays).items()}


def critic_state(encoder: Arrays, head: Arrays, config: EncoderConfig) -> State:
    """State of a :class:`ptr_fast.nets.Critic`."""
    state = {f"encoder.{name}": value for name, value in encoder_state(encoder, config).items()}
    return state | {f"head.{name}": value for name, value in head_state(head).items()}


def _leaf(leaf: str) -> str:
    return "bias" if leaf == "bias" else "weight"


def _convert(array: np.ndarray, leaf: str) -> torch.Tensor:
    if leaf == "kernel" and array.ndim == 4:
        array = array.transpose(3, 2, 0, 1)
    elif leaf == "kernel" and array.ndim == 2:
        array = array.T
    elif array.ndim != 1:
        raise DataError(f"expected a kernel of 2 or 4 axes, got {array.shape}")
    return _tensor(array)


def _tensor(array: np.ndarray) -> torch.Tensor:
    return torch.from_numpy(np.array(array, dtype=np.float32, order="C"))


def _take(arrays: Arrays, name: str) -> np.ndarray:
    if name not in arrays:
        raise DataError(f"expected a parameter {name!r}; the file has {len(arrays)}, such as {sorted(arrays)[:3]}")
    return arrays[name]
