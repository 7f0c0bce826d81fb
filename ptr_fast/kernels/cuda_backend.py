"""The CUDA C++ implementation of an op (``csrc/kernels/<op>.cu``): where it may run, and on which device.

The kernels are part of the native module where it was built with nvcc. Without a GPU they are run by the emulator of
the tests, never from here.
"""

from __future__ import annotations

import functools
import importlib
from collections.abc import Callable
from typing import Any

import torch

from ptr_fast import native
from ptr_fast.kernels import dispatch
from ptr_fast.kernels.triton_backend import devices_of

__all__ = ["lazy_backend", "stream", "why_not_cuda"]


def why_not_cuda(*places: Any) -> str | None:
    """None where the CUDA kernels can run on these tensors, else why not.

    ``places``: tensors, anything else with a ``device``, or devices; None is skipped.
    """
    devices = {getattr(place, "device", place) for place in places if place is not None}
    if len(devices) != 1:
        return f"tensors are on several devices: {sorted(map(str, devices))}"
    device = devices.pop()
    if device.type != "cuda":
        return f"tensors are on {device.type}, the kernels are for CUDA GPUs"
    return native.why_no_cuda() or _why_not_on_gpu(device)


def not_captured_yet(*args: Any) -> str:
    """Why kernels that were faster alone on a GPU run only where they are forced."""
    return "faster alone on an H200, but no captured step has run it on a GPU yet"


def lazy_backend(op: str, slower: Callable[..., str | None] = lambda *args: None) -> dispatch.Backend:
    """The CUDA implementation of ``op``, ``ptr_fast.kernels.<op>.cuda``; imported when it may run, not before.

    ``slower``: see :class:`ptr_fast.kernels.dispatch.Backend`.
    """

    def module() -> Any:
        return importlib.import_module(f"ptr_fast.kernels.{op}.cuda")

    def run(*args: Any) -> Any:
        # A kernel is launched on the current device, which must be that of the stream and of the tensors.
        with torch.cuda.device(devices_of(args)[0]):
            return getattr(module(), op)(*args)

    def supports(*args: Any) -> str | None:
        return why_not_cuda(*devices_of(args)) or module().supports(*args)

    return dispatch.Backend("cuda", run, supports, why_not_cuda, slower)


def stream(device: torch.device) -> int:
    """The stream that PyTorch queues its work on, as the launchers of ``csrc/kernels/*_cuda.h`` take it."""
    return torch.cuda.current_stream(device).cuda_stream


@functools.cache
def _why_not_on_gpu(device: torch.device) -> str | None:
    """Whether there is code for this GPU: of its major version and not newer, or of the newest for all after it."""
    if not torch.cuda.is_available():
        return "PyTorch finds no GPU"
    major, minor = torch.cuda.get_device_capability(device)
    built = [int(each) for each in native.build_info()["cuda_architectures"].split()]
    if any(each // 10 == major and each % 10 <= minor for each in built) or max(built) <= 10 * major + minor:
        return None
    return f"the GPU has compute capability {major}.{minor}, ptr_fast._native is built for {built}"
