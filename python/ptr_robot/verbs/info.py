"""What is installed, what was built, what runs where and why not something faster: the first page of a bug report."""

from __future__ import annotations

import importlib
import json
import os
import pkgutil
import platform
import sys
from collections.abc import Callable
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Any

from rich.console import Console

import ptr_fast

__all__ = ["Args", "instruction_set", "main", "processor"]

PACKAGES = (
    "torch",
    "numpy",
    "pyarrow",
    "safetensors",
    "simplejpeg",
    "triton",
    "nvidia-dali-cuda130",
    "mujoco",
    "metaworld",
    "gymnasium",
    "tyro",
    "rich",
)
CPU_FLAGS = ("avx2", "fma", "avx512f", "avx512bw", "avx512_bf16", "amx_bf16", "avx_vnni", "asimd", "sve")
ENVIRONMENT = (
    "PTR_FAST_",
    "OMP_NUM_THREADS",
    "MKL_NUM_THREADS",
    "CUDA_VISIBLE_DEVICES",
    "MUJOCO_GL",
    "TRITON_INTERPRET",
    "ATEN_CPU_CAPABILITY",
    "ONEDNN_MAX_CPU_ISA",
    "MKL_ENABLE_INSTRUCTIONS",
)

Report = dict[str, Any]


@dataclass(frozen=True, kw_only=True)
class Args:
    """How to print.

    Attributes:
        json: Print one JSON object on standard output, nothing else.
    """

    json: bool = False


def main(args: Args) -> int:
    """Prints section after section, the quick ones first; returns 0."""
    console = Console(highlight=False, soft_wrap=True, markup=False)
    whole: Report = {}
    for title, section in SECTIONS.items():
        whole[title] = section()
        if not args.json:
            _print_section(console, title, whole[title])
    if args.json:
        console.print(json.dumps(whole, indent=2))
    return 0


def processor() -> str:
    """The processor's name with its family and model numbers: one name is sold for several generations."""
    fields = _cpu()
    name = fields.get("model name", platform.processor() or platform.machine())
    if "cpu family" not in fields or "model" not in fields:
        return name
    return f"{name} (family {fields['cpu family']}, model {fields['model']})"


def instruction_set() -> str:
    """What PyTorch's CPU kernels use, ``AVX512``, ``AVX2`` or ``DEFAULT`` ..., and ours where they use another."""
    import torch

    from ptr_fast import native

    theirs = torch.backends.cpu.get_cpu_capability()
    ours = native.isa() if native.module() is not None else "not built"
    same = {"AVX512": "avx512", "AVX2": "avx2", "DEFAULT": "baseline"}
    return theirs if ours == same.get(theirs) else f"{theirs}, our kernels {ours}"


def versions() -> Report:
    """Versions of ptr-fast, Python and the packages that matter; nothing is imported."""
    found: Report = {
        "ptr-fast": ptr_fast.__version__ + ("" if _version("ptr-fast") else ", run from its folder"),
        "python": platform.python_version(),
    }
    found |= {package: _version(package) for package in PACKAGES}
    return found | {"system": platform.platform(), "interpreter": sys.executable}


def machine() -> Report:
    """Processor, cores, memory, load, and the environment variables that change what runs."""
    fields = _cpu()
    flags = fields.get("flags", fields.get("Features", "")).split()
    memory = {}
    if Path("/proc/meminfo").is_file():
        lines = (line.split() for line in Path("/proc/meminfo").read_text().splitlines())
        memory = {words[0].rstrip(":"): int(words[1]) * 1024 for words in lines}
    settings = {name: value for name, value in sorted(os.environ.items()) if name.startswith(ENVIRONMENT)}
    return {
        "cpu": processor(),
        "cpu flags": " ".join(flag for flag in CPU_FLAGS if flag in flags) or "none of interest",
        "cores usable": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
        "memory": f"{memory.get('MemTotal', 0) / 2**30:.1f} GiB, {memory.get('MemAvailable', 0) / 2**30:.1f} available",
        "load average": " ".join(f"{load:.2f}" for load in os.getloadavg()),
        "environment": " ".join(f"{name}={value}" for name, value in settings.items()) or "nothing set",
    }


def native_module() -> Report:
    """The C++ module: how it was built, or why it is missing."""
    from ptr_fast import native

    if native.module() is None:
        return {"module": f"missing: {native.why_missing()}"}
    info = native.build_info()
    return {
        "module": native.require().__file__,
        "compiler": f"{info['compiler']}, {info['flags']}",
        "instruction set": f"{info['isa']} (built in: {info['isas']})",
        "cuda": info["cuda"],
        **_cuda_kernels(),
    }


def _cuda_kernels() -> Report:
    """How many CUDA kernels each source has, for which GPUs, and what they take of a multiprocessor at most."""
    from ptr_fast import native

    found: Report = {}
    rows = native.cuda_kernels()
    for source in sorted({row["source"] for row in rows}):
        mine = [row for row in rows if row["source"] == source]
        spilled = sum(row["spill_stores"] + row["spill_loads"] for row in mine)
        found[f"cuda: {source}"] = (
            f"{len({row['kernel'] for row in mine})} kernels for compute capabilities "
            f"{', '.join(f'{each / 10:.1f}' for each in sorted({row['architecture'] for row in mine}))}; "
            f"at most {max(row['registers'] for row in mine)} registers, {spilled} bytes spilled"
        )
    return found


def torch_devices() -> Report:
    """PyTorch's threads and GPUs, or why there is none."""
    import torch

    found: Report = {
        "threads": torch.get_num_threads(),
        "cpu capability": torch.backends.cpu.get_cpu_capability(),
    }
    if torch.version.cuda is None:
        found["cuda"] = "no: this PyTorch is built without CUDA"
    elif not torch.cuda.is_available():
        found["cuda"] = f"no: PyTorch is built for CUDA {torch.version.cuda}, but no usable GPU was found"
    else:
        found["cuda"] = f"CUDA {torch.version.cuda}, cuDNN {torch.backends.cudnn.version()}"
        for index in range(torch.cuda.device_count()):
            gpu = torch.cuda.get_device_properties(index)
            found[f"cuda:{index}"] = (
                f"{gpu.name}, {gpu.total_memory / 2**30:.0f} GiB, compute capability {gpu.major}.{gpu.minor}"
            )
    return found


def kernels() -> Report:
    """Per op with several implementations and per device: which one runs on an example, and why no faster one."""
    import torch

    import ptr_fast.kernels
    from ptr_fast.kernels import dispatch

    for module in pkgutil.iter_modules(ptr_fast.kernels.__path__, "ptr_fast.kernels."):
        importlib.import_module(module.name)
    devices = ["cpu", *(["cuda"] if torch.cuda.is_available() else [])]
    found: Report = {}
    for device in devices:
        examples = _examples(device)
        for op in dispatch.ops():
            try:
                choice = dispatch.explain(op, *examples[op])[0]
                found[f"{op} on {device}"] = str(choice)
            except (RuntimeError, ValueError) as error:  # a backend is forced that cannot run
                found[f"{op} on {device}"] = f"error: {error}"
    return found


def frames() -> Report:
    """How frames are decoded, and how much memory decoded frames may take."""
    import torch

    from ptr_fast.data.decode import make_decoder
    from ptr_fast.data.frames import free_memory

    found: Report = {}
    for device in ["cpu", *(["cuda"] if torch.cuda.is_available() else [])]:
        try:
            found[f"decoder on {device}"] = make_decoder(64, 64, device=device).explain()
        except (RuntimeError, ImportError, OSError) as error:  # DALI is there and cannot be loaded
            found[f"decoder on {device}"] = f"none: {error}"
    budget = free_memory() / 2
    found["decoded frames"] = (
        f"kept in memory up to {budget / 2**30:.1f} GiB ({budget / (128 * 128 * 3):,.0f} of 128x128)"
    )
    return found


SECTIONS: dict[str, Callable[[], Report]] = {
    "versions": versions,
    "machine": machine,
    "native module": native_module,
    "torch": torch_devices,
    "kernels": kernels,
    "frames": frames,
}


def _examples(device: str) -> dict[str, tuple[Any, ...]]:
    """Per op the arguments by which its implementation is chosen, of a usual size."""
    import torch

    from ptr_fast.kernels.adam_polyak import Operands

    def zeros(*shape: int) -> torch.Tensor:
        return torch.zeros(*shape, device=device)

    x, channel = zeros(8, 64, 32, 32).contiguous(memory_format=torch.channels_last), zeros(64)
    num_critics, batch, actions, hidden, action_dim = 2, 8, 9, 256, 7
    state_terms = (zeros(num_critics, batch, hidden), zeros(num_critics, batch, hidden), zeros(num_critics, batch, 1))
    action_weights = (*[zeros(num_critics, action_dim, hidden)] * 2, zeros(num_critics, action_dim, 1))
    hidden_weights = (zeros(num_critics, hidden, hidden), zeros(num_critics, hidden, 1))
    frames = torch.zeros(8, 64, 64, 3, dtype=torch.uint8, device=device)
    return {
        "adam_polyak": (Operands([zeros(64)], [zeros(64)], [zeros(64)], zeros(1), [zeros(64)]),),
        "augment": (frames, None, torch.float32),
        "counter_random": (torch.device(device),),
        "cql_head": (state_terms, action_weights, hidden_weights, zeros(batch, actions, action_dim), None),
        "group_norm_act": (x, channel, channel, 4, 1e-5, None, "relu", None, None),
        "group_norm_act_pool": (x, channel, channel, 4, 1e-5),
        "spatial_embedding": (x, zeros(64, 32 * 32, 8)),
    }


def _print_section(console: Console, title: str, rows: Report) -> None:
    width = max(map(len, rows), default=0)
    console.print(title, style="bold")
    for name, value in rows.items():
        console.print(f"  {name:<{width}}  {'not installed' if value is None else value}")


def _version(package: str) -> str | None:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None


def _cpu() -> dict[str, str]:
    """What the system says of the first core."""
    fields: dict[str, str] = {}
    if Path("/proc/cpuinfo").is_file():
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            name, _, value = line.partition(":")
            fields.setdefault(name.strip(), value.strip())
    return fields
