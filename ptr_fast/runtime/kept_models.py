"""Exported models that were made before: tracing a policy takes seconds to a minute, and engines do it at every start.

A model is found by a fingerprint of all that it is made of: weights, settings of every layer, input shapes, this
package's source, and the versions of the exporter. Whoever takes one compares its actions with the eager ones as if it
were new (``engine.make_engine``).
"""

from __future__ import annotations

import contextlib
import hashlib
import os
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import torch
from torch import nn

from ptr_fast.files import write_atomically

__all__ = ["fingerprint", "folder", "keep", "kept"]

MAX_BYTES = 2 << 30  # of all models together; the ones that were not used for longest go
EXPORTER = ("torch", "onnx", "onnxscript", "onnx-ir")
DIGEST_BYTES = 32


def folder() -> Path:
    """Where models are kept: ``PTR_FAST_CACHE``, else ``ptr-fast`` in the user's folder of caches."""
    own, caches = os.environ.get("PTR_FAST_CACHE"), os.environ.get("XDG_CACHE_HOME")
    if own:
        return Path(own)
    return (Path(caches) if caches else Path(os.path.expanduser("~"), ".cache")) / "ptr-fast"


def fingerprint(module: nn.Module, example: tuple[torch.Tensor, ...], *names: object) -> str:
    """SHA-256 of all that an exported model depends on.

    Args:
        module: what is exported; on the CPU.
        example: its inputs; their shapes and dtypes count.
        names: of inputs and outputs, and settings of the exporter.
    """
    digest = hashlib.sha256(repr((_source(), names, [(t.dtype, tuple(t.shape)) for t in example])).encode())
    for name, part in module.named_modules():
        settings = {key: value for key, value in vars(part).items() if not key.startswith("_") and _is_plain(value)}
        digest.update(repr((name, type(part).__qualname__, sorted(settings.items()))).encode())
    for name, tensor in [*module.named_parameters(), *module.named_buffers()]:
        digest.update(repr((name, tensor.dtype, tuple(tensor.shape))).encode())
        digest.update(tensor.detach().contiguous().flatten().view(torch.uint8).numpy().data)
    return digest.hexdigest()


def kept(key: str) -> bytes | None:
    """The model of a fingerprint, or None where there is none or it is damaged."""
    path = folder() / f"{key}.onnx"
    try:
        data = path.read_bytes()
        os.utime(path)
    except OSError:
        return None
    model = data[DIGEST_BYTES:]
    return model if hashlib.sha256(model).digest() == data[:DIGEST_BYTES] else None


def keep(key: str, model: bytes) -> None:
    """Keeps a model for the next start, where the folder can be written to."""
    with contextlib.suppress(OSError):  # a home that is read-only or full costs the next start its time, no more
        folder().mkdir(parents=True, exist_ok=True)
        write_atomically(folder() / f"{key}.onnx", hashlib.sha256(model).digest() + model)
        sizes = [(path.stat().st_mtime, path.stat().st_size, path) for path in folder().glob("*.onnx")]
        total = 0
        for _, size, path in sorted(sizes, reverse=True):
            total += size
            if total > MAX_BYTES:
                path.unlink()


def _is_plain(value: object) -> bool:
    return not isinstance(value, nn.Module | torch.Tensor) and not callable(value)


@cache
def _source() -> tuple[str, ...]:
    """Versions of the exporter, and a digest of this package's own source."""
    digest = hashlib.sha256()
    for path in sorted(Path(__file__).parents[1].rglob("*.py")):
        digest.update(path.read_bytes())
    return (*map(_version, EXPORTER), digest.hexdigest())


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return "none"
