"""Launches of Triton kernels, compiled and checked as on a GPU, and written down instead of run.

Triton's own way to a launch (specialisation of the arguments, compilation, the assembler, the launcher's arguments)
goes on under a driver that says that it is a GPU of some architecture. Tensors lie on PyTorch's ``meta`` device: they
have shapes, strides and dtypes and no memory, so a whole update of a large network takes no time but its compilation.
The interpreter must be off, and Triton not imported yet.
"""

from __future__ import annotations

import contextlib
import io
import os
import re
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode

from ptr_fast.kernels import dispatch, triton_backend

__all__ = ["ARCHITECTURES", "Launch", "recorded"]

# Architecture -> shared memory of one block, bytes.
ARCHITECTURES = {80: 163 * 1024, 90: 227 * 1024, 100: 227 * 1024, 120: 99 * 1024}
_MAX_GRID = (2**31 - 1, 65_535, 65_535)
_BASE_ADDRESS = 1 << 40  # of every tensor's storage; as PyTorch's own, a multiple of 512


@dataclass(frozen=True)
class Launch:
    """A kernel as it was compiled, and the first grid that it was launched on.

    Attributes:
        kernel: its name.
        arguments: types of its arguments, whether they are multiples of 16, and values of those compiled in.
        architecture: 90 for sm_90 ...
        grid: blocks of threads on three axes.
        num_warps, shared_bytes: of a block.
        registers: of a thread.
        spilled_bytes: what a thread's registers could not hold, stores and loads together.
    """

    kernel: str
    arguments: str
    architecture: int
    grid: tuple[int, int, int]
    num_warps: int
    shared_bytes: int
    registers: int
    spilled_bytes: int


@contextlib.contextmanager
def recorded(architecture: int) -> Iterator[list[Launch]]:
    """Every op runs its Triton kernels inside, on ``meta`` tensors; the list gets each compiled kernel once.

    Raises:
        ValueError: a grid or an argument that a GPU would not take.
        RuntimeError: the interpreter is on, or an op's Triton kernels do not take what they are given.
    """
    if triton_backend.interpreting():
        raise RuntimeError("kernels cannot be compiled while TRITON_INTERPRET=1; use another process")
    launches: list[Launch] = []
    log = io.StringIO()
    with contextlib.ExitStack() as stack:
        folder = stack.enter_context(tempfile.TemporaryDirectory(prefix="ptr-fast-launches-"))
        # The assembler speaks only when it runs: nothing may come from a cache.
        os.environ |= {"TRITON_CACHE_DIR": folder, "TRITON_DUMP_PTXAS_LOG": "1"}
        import triton

        triton.runtime.driver.set_active(_Driver(architecture, launches, log))
        stack.enter_context(_patched(triton_backend, "why_not_triton", lambda op, *places: None))
        stack.enter_context(_patched(torch.Tensor, "data_ptr", _address))
        for draw in ("trunc_normal_", "orthogonal_"):  # nobody looks at the numbers
            stack.enter_context(_patched(torch.nn.init, draw, _zeros))
        stack.enter_context(dispatch.use_backend("triton"))
        stack.enter_context(_ConvolutionsAsOnAGpu())
        stack.enter_context(contextlib.redirect_stdout(log))
        yield launches


class _ConvolutionsAsOnAGpu(TorchDispatchMode):
    """Results of convolutions are channels_last where their input or weight is: on ``meta`` they never are."""

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = function(*args, **(kwargs or {}))
        if function.overloadpacket not in (torch.ops.aten.convolution, torch.ops.aten.conv2d):  # (inference mode's)
            return out
        is_last = any(tensor.is_contiguous(memory_format=torch.channels_last) for tensor in args[:2])
        return out.contiguous(memory_format=torch.channels_last) if is_last else out


def _zeros(tensor: torch.Tensor, *args: Any, **options: Any) -> torch.Tensor:
    return torch.nn.init.zeros_(tensor)


def _address(tensor: torch.Tensor) -> int:
    """Where a meta tensor would begin if it had memory."""
    return _BASE_ADDRESS + tensor.storage_offset() * tensor.itemsize


@contextlib.contextmanager
def _patched(owner: Any, name: str, value: Any) -> Iterator[None]:
    before = getattr(owner, name)
    setattr(owner, name, value)
    try:
        yield
    finally:
        setattr(owner, name, before)


class _Driver:
    """What Triton asks of a driver."""

    def __init__(self, architecture: int, launches: list[Launch], log: io.StringIO) -> None:
        self._architecture, self._launches, self._log = architecture, launches, log
        self._newest: _Launcher | None = None
        self._used: dict[bytes, tuple[int, int]] = {}  # registers and spilled bytes of the machine code so far
        self.utils = SimpleNamespace(get_device_properties=self._properties, load_binary=self._load_binary)

    def get_current_device(self) -> int:
        return 0

    def get_current_stream(self, device: int) -> int:
        return 0

    def get_current_target(self) -> Any:
        from triton.backends.compiler import GPUTarget

        return GPUTarget("cuda", self._architecture, 32)

    def launcher_cls(self, source: Any, metadata: Any) -> _Launcher:
        """Made once per compiled kernel, just before it is loaded."""
        self._newest = _Launcher(source, metadata, self._architecture, self._launches)
        return self._newest

    def _properties(self, device: int) -> dict[str, int]:
        return {"max_shared_mem": ARCHITECTURES[self._architecture], "multiprocessor_count": 132, "warpSize": 32}

    def _load_binary(self, name: str, kernel: bytes, shared: int, device: int) -> tuple[str, str, int, int, int]:
        said = self._log.getvalue()
        self._log.seek(0)
        self._log.truncate()
        registers = re.findall(r"Used (\d+) registers", said)
        spilled = re.findall(r"(\d+) bytes spill (?:stores|loads)", said)
        if len(registers) == 1 and len(spilled) == 2:
            self._used[kernel] = int(registers[0]), sum(map(int, spilled))
        if self._newest is None or kernel not in self._used:  # two specialisations may give the same code
            raise RuntimeError(f"{name}: the assembler did not say what this one kernel takes: {said[-500:]!r}")
        self._newest.registers, self._newest.spilled_bytes = self._used[kernel]
        return "module", "function", self._newest.registers, self._newest.spilled_bytes // 4, 1024


class _Launcher:
    """Launches one compiled kernel: checks what a GPU would be given, and writes it down the first time."""

    registers = spilled_bytes = 0

    def __init__(self, source: Any, metadata: Any, architecture: int, launches: list[Launch]) -> None:
        self._source, self._metadata, self._architecture = source, metadata, architecture
        self._launches, self._is_new = launches, True

    def __call__(
        self, x: int, y: int, z: int, stream: int, function: Any, packed: Any, tools: Any, enter: Any, leave: Any,
        *values: Any,
    ) -> None:  # fmt: skip
        name, grid = self._source.name, (x, y, z)
        if not all(1 <= size <= most for size, most in zip(grid, _MAX_GRID, strict=True)):
            raise ValueError(f"{name}: a grid of {grid}, the limits are {_MAX_GRID}")
        for (argument, kind), value in zip(self._source.signature.items(), values, strict=True):
            _check(f"{name}: {argument}", kind, value)
        if self._is_new:
            self._is_new = False
            metadata, used = self._metadata, (self.registers, self.spilled_bytes)
            self._launches.append(
                Launch(name, self._arguments(), self._architecture, grid, metadata.num_warps, metadata.shared, *used)
            )

    def _arguments(self) -> str:
        source = self._source
        constants, attributes = (
            {source.fn.arg_names[path[0]]: value for path, value in found.items()}
            for found in (source.constants, source.attrs)
        )
        return ", ".join(
            f"{name}={constants[name]}" if name in constants else f"{name}: {kind}{' % 16' * (name in attributes)}"
            for name, kind in source.signature.items()
        )


def _check(name: str, kind: str, value: Any) -> None:
    """Raises ValueError for a value that a kernel's argument of this type cannot be."""
    if kind.startswith("*"):
        fits = isinstance(value, torch.Tensor) and value.device.type == "meta"
    elif kind[0] in "iu":
        bits, signed = int(kind[1:]), kind[0] == "i"
        low, high = (-(1 << bits - 1), (1 << bits - 1) - 1) if signed and bits > 1 else (0, (1 << bits) - 1)
        fits = isinstance(value, int) and low <= value <= high
    else:
        fits = kind == "constexpr" or isinstance(value, float)
    if not fits:
        got = f"{value.dtype} on {value.device}" if isinstance(value, torch.Tensor) else repr(value)
        raise ValueError(f"{name} is a {kind}, got {got}")
