"""Files of torchvision-shaped ResNets.

Note "Files of weights". A file is a mapping of torchvision's parameter names to tensors (``conv1.weight``,
``layer1.0.bn1.running_mean`` ...), as ``torch.save`` or safetensors writes it, perhaps inside another mapping and with
a prefix before every name. R3M's published ``model.pt`` has them under ``["r3m"]`` as ``module.convnet.*``, beside the
parts of its language loss. Only tensors and plain containers are read: a file that would run code is refused.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import safetensors.torch
import torch

from ptr_fast.errors import DataError
from ptr_fast.files import git_lfs_advice
from ptr_fast.nets.encoders.weights_file import file_digest

__all__ = ["fold", "read_resnet"]

EPS = 1e-5  # of torchvision's BatchNorm
_IGNORED = ("fc.weight", "fc.bias")


def read_resnet(path: Path, sha256: str) -> tuple[dict[str, torch.Tensor] | None, str | None]:
    """A file's convolutions, BatchNorms folded into them; or None and why there is no such file.

    Args:
        sha256: recorded digest; empty: that of any file.

    Raises:
        DataError: the file cannot be read or holds no ResNet.
    """
    if not path.is_file():
        return None, f"{path}: no such file, and no checkpoint was loaded"
    if sha256 and (digest := file_digest(path)) != sha256:
        return None, f"{path}: expected SHA-256 {sha256}, got {digest}, and no checkpoint was loaded"
    return fold(_strip(_read(path), path), path), None


def _read(path: Path) -> Mapping[str, Any]:
    try:
        if path.suffix == ".safetensors":
            return safetensors.torch.load_file(path)
        content = torch.load(path, map_location="cpu", weights_only=True)
    except OSError as error:
        raise DataError(f"{path}: cannot read the encoder's weights: {error.strerror or error}") from error
    except Exception as error:  # reading torch.save's format raises whatever the bytes make of it
        first_line = str(error).partition("\n")[0]
        reason = git_lfs_advice(path) or f"{type(error).__name__}: {first_line}"
        raise DataError(f"{path}: expected a file of tensors alone (torch.save or safetensors): {reason}") from error
    while isinstance(content, Mapping) and not any(isinstance(value, torch.Tensor) for value in content.values()):
        inner = [content[name] for name in ("r3m", "state_dict", "model") if name in content]
        if len(inner) != 1:
            break
        content = inner[0]
    if not isinstance(content, Mapping):
        raise DataError(f"{path}: expected a mapping of names to tensors, got {type(content).__name__}")
    return content


def _strip(content: Mapping[str, Any], path: Path) -> dict[str, torch.Tensor]:
    """The tensors of the one ResNet in the file, under torchvision's names."""
    mark = "layer1.0.conv1.weight"
    content = {str(name): value for name, value in content.items()}
    prefixes = [name.removesuffix(mark) for name in content if name.endswith(mark)]
    if len(prefixes) != 1:
        raise DataError(f"{path}: expected one ResNet of torchvision's names (NAME.{mark}), got {len(prefixes)}")
    prefix = prefixes[0]
    found = {
        name[len(prefix) :]: value
        for name, value in content.items()
        if name.startswith(prefix) and name[len(prefix) :] not in _IGNORED
    }
    for name, value in found.items():
        if not isinstance(value, torch.Tensor) or not value.isfinite().all():
            what = "numbers that are not finite" if isinstance(value, torch.Tensor) else type(value).__name__
            raise DataError(f"{path}: {prefix}{name}: expected a tensor of finite numbers, got {what}")
    return found


def fold(tensors: Mapping[str, torch.Tensor], path: Path) -> dict[str, torch.Tensor]:
    """``conv`` and the ``bn`` after it as one convolution with bias; the arithmetic is float64's.

    Raises:
        DataError: a convolution without its BatchNorm or with one of another size, or a tensor that belongs to neither.
    """
    left, out = dict(tensors), {}
    for name in [name for name in tensors if tensors[name].dim() == 4]:
        conv = name.removesuffix(".weight")
        norm = conv.removesuffix("0") + "1" if conv.endswith("downsample.0") else conv.replace("conv", "bn")
        weight = left.pop(name).double()
        left.pop(f"{norm}.num_batches_tracked", None)
        try:
            scale, shift, mean, variance = (
                left.pop(f"{norm}.{part}").double() for part in ("weight", "bias", "running_mean", "running_var")
            )
        except KeyError as error:
            raise DataError(f"{path}: {error.args[0]} is missing") from error
        for part in (scale, shift, mean, variance):
            if part.shape != weight.shape[:1]:
                shapes = f"expected {list(weight.shape[:1])} as of {name}, got {list(part.shape)}"
                raise DataError(f"{path}: the numbers of {norm}: {shapes}")
        factor = scale / (variance + EPS).sqrt()
        folded = conv.removesuffix(".0") if conv.endswith("downsample.0") else conv
        out[f"{folded}.weight"] = (weight * factor[:, None, None, None]).float()
        out[f"{folded}.bias"] = (shift - mean * factor).float()
    if left:
        raise DataError(f"{path}: {next(iter(left))} belongs to no ResNet of torchvision's")
    return out
