"""The one door to the C++ module ``ptr_fast._native``: whether it is there, how it was built, and why it is missing."""

from __future__ import annotations

import functools
import json
import types
import warnings
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import torch

__all__ = [
    "build_info",
    "cuda_kernels",
    "isa",
    "keep_freed_memory",
    "module",
    "require",
    "set_isa",
    "warn_missing",
    "why_missing",
    "why_no_cuda",
    "why_not_on",
]

_INTERFACE = 9  # of csrc/bindings; a module with another one was built from other sources


@functools.cache
def _load() -> tuple[types.ModuleType | None, str | None]:
    try:
        from ptr_fast import _native  # type: ignore[attr-defined]
    except ImportError as error:
        return None, f"ptr_fast._native cannot be imported ({error}); build it with `pip install -e .`"
    found = getattr(_native, "interface", None)
    if found != _INTERFACE:
        return None, f"ptr_fast._native has interface {found}, this version needs {_INTERFACE}; build it again"
    return _native, None


def module() -> types.ModuleType | None:
    """The native module, or None where it is missing (then :func:`why_missing` tells why)."""
    return _load()[0]


def why_missing() -> str | None:
    """Why there is no native module; None where there is one."""
    return _load()[1]


def why_not_on(device: torch.device) -> str | None:
    """Why native kernels cannot run on a device; None where they can."""
    return why_missing() or (None if device.type == "cpu" else "native kernels are for the CPU")


def require() -> types.ModuleType:
    """The native module.

    Raises:
        RuntimeError: it is missing; the message says why and what to do.
    """
    found, why = _load()
    if found is None:
        raise RuntimeError(why)
    return found


@functools.cache
def warn_missing() -> None:
    """Warns, once in a process, that the slower reference code runs because the native module is missing."""
    if why_missing() is not None:
        warnings.warn(f"the slower reference code is used: {why_missing()}", RuntimeWarning, stacklevel=3)


def build_info() -> dict[str, str]:
    """How the module was built: ``compiler``, ``flags``, ``isas`` (built in), ``isa`` (in use), ``cuda`` (or why not).

    Also ``cuda_architectures`` (compute capabilities times ten, with spaces between; empty where it is built without
    CUDA) and ``cuda_kernels`` (see :func:`cuda_kernels`).

    Raises:
        RuntimeError: the module is missing.
    """
    return require().build_info()


def cuda_kernels() -> list[dict[str, Any]]:
    """What ptxas said of the CUDA kernels in the module: one row a kernel and architecture; none without CUDA.

    Each has ``source`` (the file's name), ``kernel``, ``architecture`` (compute capability times ten), and of a thread
    ``registers``, ``stack``, ``spill_stores`` and ``spill_loads`` in bytes, of a block ``static_shared`` in bytes;
    shared memory that is asked for at the launch comes to that.

    Raises:
        RuntimeError: the module is missing.
    """
    return json.loads(build_info()["cuda_kernels"])


def why_no_cuda() -> str | None:
    """Why the module has no CUDA kernels; None where it has."""
    why = why_missing()
    if why is None and not build_info()["cuda"].startswith("yes"):
        why = f"ptr_fast._native is built without CUDA ({build_info()['cuda'].removeprefix('no: ')})"
    return why


def isa() -> str:
    """The instruction set that the native inner loops use: ``baseline``, ``avx2`` or ``avx512``."""
    return require().isa_name()


def set_isa(name: str) -> None:
    """Makes the native inner loops use another instruction set (``PTR_FAST_ISA`` does so from outside).

    Raises:
        ValueError: an unknown name, or one that this processor or build does not have.
        RuntimeError: the module is missing.
    """
    require().set_isa(name)


def keep_freed_memory() -> bool:
    """Tells the C library to keep freed memory for this process instead of returning it to the system.

    Activations of many megabytes are allocated and freed in every step; without this each of them is mapped anew and
    paid for in page faults. A training program calls it once, at its start. Returns False where it has no effect
    (no native module, or a C library other than glibc).
    """
    found = module()
    return bool(found is not None and found.keep_freed_memory())
