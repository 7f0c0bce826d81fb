"""Triton kernels: where they may run, how they are launched, and their compilation for GPUs that are not here.

Every op's ``triton.py`` lists its kernels as :class:`Cubin` values by a function ``cubins()``, with the launch
parameters of its committed table: nothing is tuned at run time. :func:`compile_all` turns them into machine code for
each architecture; no GPU and no driver are needed (Triton carries its own assembler), but the interpreter must be off.

The interpreter (``TRITON_INTERPRET=1`` before Triton is imported) runs the same kernels on CPU tensors, thousands of
times slower: an op takes it only where its Triton backend is forced.
"""

from __future__ import annotations

import importlib
import importlib.util
import os
import re
import subprocess
import tempfile
from collections.abc import Mapping
from contextlib import nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from ptr_fast.kernels import dispatch

__all__ = [
    "ARCHITECTURES",
    "OPS",
    "Cubin",
    "compile_all",
    "interpreting",
    "lazy_backend",
    "resources",
    "why_not_triton",
]

ARCHITECTURES = (80, 90, 100, 120)
OPS: tuple[str, ...] = (  # the ops that have a triton.py
    "adam_polyak",
    "augment",
    "counter_random",
    "cql_head",
    "group_norm_act",
    "group_norm_act_pool",
    "spatial_embedding",
)


@dataclass(frozen=True, kw_only=True)
class Cubin:
    """One kernel with the arguments it is compiled for.

    Attributes:
        kernel: the ``triton.jit`` function.
        signature: argument name -> Triton type (``*fp32``, ``*bf16``, ``i32``, ``fp32`` ...), ``constexpr`` for those
            in ``constants``.
        constants: values of the compile-time arguments.
        num_warps, num_stages: launch parameters.
        case: what these arguments stand for, e.g. the layer of the network.
    """

    kernel: Any
    signature: Mapping[str, str]
    constants: Mapping[str, Any] = field(default_factory=dict)
    num_warps: int = 4
    num_stages: int = 3
    case: str = ""


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


def lazy_backend(op: str) -> dispatch.Backend:
    """The Triton implementation of ``op``; its module, and Triton, are imported when it may run, not before."""

    def module() -> Any:
        return importlib.import_module(f"ptr_fast.kernels.{op}.triton")

    def run(*args: Any) -> Any:
        # Triton launches on the current device; in the backward pass autograd has made it that of the tensors.
        device = _devices(args)[0]
        with torch.cuda.device(device) if device.type == "cuda" else nullcontext():
            return getattr(module(), op)(*args)

    def supports(*args: Any) -> str | None:
        return why_not_triton(op, *_devices(args)) or module().supports(*args)

    return dispatch.Backend("triton", run, supports, lambda device: why_not_triton(op, device))


def _devices(args: tuple[Any, ...]) -> list[torch.device]:
    """Of the arguments that have one, or are one, in their order; tuples of tensors are looked into."""
    devices = []
    for arg in args:
        if isinstance(arg, tuple):
            devices += _devices(arg)
        elif isinstance(arg, torch.device):
            devices.append(arg)
        elif hasattr(arg, "device"):
            devices.append(arg.device)
    return devices


def compile_all(op: str, architectures: tuple[int, ...] = ARCHITECTURES) -> list[dict[str, Any]]:
    """Compiles every kernel of an op for every architecture, for pointers that are aligned to 16 bytes as torch's are.

    Returns:
        One row per kernel, case and architecture: ``kernel``, ``case``, ``architecture``, ``num_bytes`` of machine
        code, ``num_warps``, ``shared_bytes`` and ``ptx``.

    Raises:
        RuntimeError: the interpreter is on in this process.
    """
    if interpreting():
        raise RuntimeError("kernels cannot be compiled while TRITON_INTERPRET=1; use another process")
    import triton
    from triton.backends.compiler import GPUTarget
    from triton.compiler import ASTSource

    rows = []
    for cubin in importlib.import_module(f"ptr_fast.kernels.{op}.triton").cubins():
        constants = {name: cubin.constants[name] for name in cubin.constants}
        aligned = {
            (number,): [["tt.divisibility", 16]]
            for number, name in enumerate(cubin.kernel.arg_names)
            if cubin.signature[name].startswith("*")
        }
        source = ASTSource(fn=cubin.kernel, signature=dict(cubin.signature), constexprs=constants, attrs=aligned)
        for architecture in architectures:
            built = triton.compile(
                source,
                target=GPUTarget("cuda", architecture, 32),
                options={"num_warps": cubin.num_warps, "num_stages": cubin.num_stages},
            )
            rows.append(
                {
                    "kernel": cubin.kernel.__name__,
                    "case": cubin.case,
                    "architecture": architecture,
                    "num_bytes": len(built.asm["cubin"]),
                    "num_warps": cubin.num_warps,
                    "shared_bytes": built.metadata.shared,
                    "ptx": built.asm["ptx"],
                }
            )
    return rows


def resources(ptx: str, architecture: int) -> dict[str, int]:
    """``registers`` of a thread and ``spilled_bytes`` (stores and loads) as Triton's own assembler reports them."""
    import triton

    assembler = Path(triton.__file__).parent / "backends" / "nvidia" / "bin" / "ptxas"
    with tempfile.NamedTemporaryFile("w", suffix=".ptx") as file:
        file.write(ptx)
        file.flush()
        target = re.search(r"^\.target (\w+)", ptx, re.MULTILINE)
        name = target.group(1) if target else f"sm_{architecture}"
        command = [str(assembler), "-v", f"-arch={name}", file.name, "-o", os.devnull]
        said = subprocess.run(command, capture_output=True, text=True, check=True).stderr
    registers = re.search(r"Used (\d+) registers", said)
    spilled = re.findall(r"(\d+) bytes spill (?:stores|loads)", said)
    if registers is None:
        raise RuntimeError(f"ptxas did not say how many registers it used: {said[-500:]}")
    return {"registers": int(registers.group(1)), "spilled_bytes": sum(map(int, spilled))}
