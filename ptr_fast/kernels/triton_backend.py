"""The Triton implementation of an op: where it may run, and on which device it is launched.

Launch parameters come from committed tables: nothing is tuned at run time. ``python -m benchmarks.registers`` compiles
what the product launches, for GPUs that are not here.

The interpreter (``TRITON_INTERPRET=1`` before Triton is imported) runs the same kernels on CPU tensors, thousands of
times slower: an op takes it only where its Triton backend is forced.
"""

from __future__ import annotations

import importlib
import importlib.util
import os
from collections.abc import Callable
from contextlib import nullcontext
from typing import Any

import torch

from ptr_fast.kernels import dispatch

__all__ = ["devices_of", "interpreting", "lazy_backend", "why_not_triton"]


def interpreting() -> bool:
    """Whether Triton kernels are interpreted on the CPU in this process."""
    return os.environ.get("TRITON_INTERPRET") == "1"


def why_not_triton(op: str, *places: Any) -> str | None:
    """None where Triton kernels of ``op`` can run on these tensors, else why not.

    ``places``: tensors, anything else with a ``device``, or devices; None is skipped. CPU tensors are taken only by the
    interpreter, and only where the Triton backend is forced.
    """
    if importlib.util.find_spec("triton") is None:
        return "triton is not installed"
    devices = {getattr(place, "device", place) for place in places if place is not None}
    if len(devices) != 1:
        return f"tensors are on several devices: {sorted(map(str, devices))}"
    device = devices.pop()
    if device.type == "cpu":
        if interpreting() and dispatch.forced(op) == "triton":
            return None
        return "tensors are on the CPU, Triton kernels are for GPUs"
    if device.type != "cuda":
        return f"tensors are on {device.type}, Triton kernels are for CUDA GPUs"
    if interpreting():
        return "TRITON_INTERPRET=1 is set, which is for CPU tensors"
    return None


def lazy_backend(op: str, slower: Callable[..., str | None] = lambda *args: None) -> dispatch.Backend:
    """The Triton implementation of ``op``; its module, and Triton, are imported when it may run, not before.

    ``slower``: see :class:`ptr_fast.kernels.dispatch.Backend`.
    """

    def module() -> Any:
        return importlib.import_module(f"ptr_fast.kernels.{op}.triton")

    def run(*args: Any) -> Any:
        # Triton launches on the current device; in the backward pass autograd has made it that of the tensors.
        device = devices_of(args)[0]
        with torch.cuda.device(device) if device.type == "cuda" else nullcontext():
            return getattr(module(), op)(*args)

    def supports(*args: Any) -> str | None:
        return why_not_triton(op, *devices_of(args)) or module().supports(*args)

    return dispatch.Backend("triton", run, supports, lambda device: why_not_triton(op, device), slower)


def devices_of(args: tuple[Any, ...]) -> list[torch.device]:
    """Of the arguments that have one, or are one, in their order; tuples of tensors are looked into."""
    devices = []
    for arg in args:
        if isinstance(arg, tuple):
            devices += devices_of(arg)
        elif isinstance(arg, torch.device):
            devices.append(arg)
        elif hasattr(arg, "device"):
            devices.append(arg.device)
    return devices
