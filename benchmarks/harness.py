"""How every benchmark here measures: correctness gate, interleaved rounds, medians with spread, one JSON row per case.

A benchmark compares variants of the same work in one process. Its gate runs first: a variant whose result is wrong gets
no row. Then rounds of one call per variant, in an order that turns by one each round, so that a change of the machine's
load meets all variants alike; the order effect of caches (each variant finds the others' data) is part of the figure.

Rows are printed; with ``PTR_FAST_BENCH_RECORD=1`` they are appended to ``benchmarks/results/<name>.jsonl``, where
losing rows stay too (``PTR_FAST_BENCH_OUT`` names another folder). ``PTR_FAST_BENCH_ROUNDS`` sets the number of rounds.
"""

from __future__ import annotations

import functools
import json
import os
import platform
import statistics
import subprocess
import time
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np
import torch

from ptr_fast import native
from ptr_robot.verbs.info import processor

__all__ = [
    "RESULTS",
    "Milliseconds",
    "compare",
    "environment",
    "memory_bandwidth",
    "one_thread_clock",
    "ran_on",
    "record",
    "rounds",
]

RESULTS = Path(__file__).resolve().parent / "results"


class Milliseconds(float):
    """What a variant returns that took its own time, e.g. in another process: it counts instead of the clock here."""


def one_thread_clock() -> Callable[[], float]:
    """The clock that stands still while other programs have the core, or, with more threads, the one on the wall."""
    return time.thread_time if torch.get_num_threads() == 1 else time.perf_counter


def rounds(default: int) -> int:
    """Number of rounds: the default of a case, or ``PTR_FAST_BENCH_ROUNDS``."""
    return int(os.environ.get("PTR_FAST_BENCH_ROUNDS", default))


def compare(
    name: str,
    case: str,
    variants: Mapping[str, Callable[[], Any]],
    gate: Callable[[], dict[str, Any] | None],
    num_rounds: int = 15,
    num_warmup: int = 2,
    clock: Callable[[], float] = time.perf_counter,
    **extra: Any,
) -> dict[str, Any]:
    """Measures variants against each other.

    Args:
        name: of the benchmark: its results file.
        case: what was measured, e.g. shapes.
        variants: name -> the work; the first one is ours, the others are what it is compared with. A variant may
            return :class:`Milliseconds`.
        gate: raises where a variant's result is wrong; may return further fields of the row.
        num_rounds: rounds after ``num_warmup``.
        num_warmup: rounds that do not count.
        clock: seconds; :func:`one_thread_clock` where all variants work in this thread alone. A row says which it was.
        extra: further fields of the row.

    Returns:
        The row: per variant ``median_ms``, ``p10_ms``, ``p90_ms``; ``speedup`` of the first over each other (the
        median over rounds of the ratio inside a round); the environment.
    """
    found = gate() or {}
    names, times = list(variants), {variant: [] for variant in variants}
    num_rounds = rounds(num_rounds)
    load = os.getloadavg()[0]
    for turn in range(num_rounds + num_warmup):
        first = turn % len(names)
        for variant in names[first:] + names[:first]:
            begin = clock()
            result = variants[variant]()
            elapsed = (clock() - begin) * 1e3
            if isinstance(result, Milliseconds):
                elapsed = float(result)
            if turn >= num_warmup:
                times[variant].append(elapsed)
    ours = names[0]
    row = {
        "name": name,
        "case": case,
        "variants": {variant: _summary(values) for variant, values in times.items()},
        "speedup": {
            other: round(statistics.median(b / a for a, b in zip(times[ours], times[other], strict=True)), 3)
            for other in names[1:]
        },
        "rounds": num_rounds,
        **({} if clock is time.perf_counter else {"clock": clock.__name__}),
        "load_average": [round(load, 2), round(os.getloadavg()[0], 2)],
        **found,
        **extra,
        "environment": environment(),
    }
    record(row)
    return row


def ran_on(row: Mapping[str, Any]) -> str:
    """The GPU of a row, or else the instruction set that PyTorch used, and ours where it is another."""
    if "instruction_set" in row:
        return f"{row['instruction_set']} {row['processor']}"
    environment = row.get("environment", {})
    if "gpu" in environment:
        return str(environment["gpu"])
    theirs, ours = environment.get("torch_isa", "unknown"), environment.get("native_isa")
    same = {"AVX512": "avx512", "AVX2": "avx2", "DEFAULT": "baseline"}
    return str(theirs) if ours in (None, same.get(theirs)) else f"{theirs}, ours {ours}"


def record(row: dict[str, Any]) -> None:
    """Prints a row, and appends it to the results where ``PTR_FAST_BENCH_RECORD=1``."""
    parts = [f"{variant} {s['median_ms']:.3f} ms" for variant, s in row.get("variants", {}).items()]
    parts += [f"{ratio:.2f}x {other}" for other, ratio in row.get("speedup", {}).items()]
    parts += [f"{key} {value}" for key, value in row.items() if key not in _PRINTED_ELSEWHERE]
    print(f"{row['name']} {row['case']}: " + ", ".join(parts), flush=True)
    if os.environ.get("PTR_FAST_BENCH_RECORD") == "1":
        folder = Path(os.environ.get("PTR_FAST_BENCH_OUT", RESULTS))
        folder.mkdir(parents=True, exist_ok=True)
        with open(folder / f"{row['name']}.jsonl", "a") as file:
            file.write(json.dumps(row) + "\n")


_PRINTED_ELSEWHERE = {"name", "case", "variants", "speedup", "environment", "rounds", "curves", "kernels"}


def environment() -> dict[str, Any]:
    """Versions, processor and threads: what a row means nothing without."""
    versions = {"python": platform.python_version(), "torch": torch.__version__, "numpy": np.__version__}
    for package in ("simplejpeg", "pyarrow", "nvidia-dali-cuda130", "triton"):
        try:
            versions[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            continue
    return {
        **_gpu(),
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "versions": versions,
        "cpu": processor(),
        "cores": os.cpu_count(),
        "torch_threads": torch.get_num_threads(),
        "torch_isa": torch.backends.cpu.get_cpu_capability(),
        "native_isa": native.isa() if native.module() is not None else None,
    }


@functools.cache
def _gpu() -> dict[str, Any]:
    """Name, clocks and limits of the GPU, where there is one; asked once, as nvidia-smi may take a second."""
    if not torch.cuda.is_available():
        return {}
    query = "name,driver_version,clocks.sm,clocks.mem,clocks.max.sm,power.limit,temperature.gpu,utilization.gpu"
    command = ["nvidia-smi", f"--query-gpu={query}", "--format=csv,noheader"]
    try:
        answer = subprocess.run(command, capture_output=True, text=True, timeout=20, check=True).stdout.strip()
    except (OSError, subprocess.SubprocessError) as error:
        answer = f"nvidia-smi: {error}"
    return {"gpu": torch.cuda.get_device_name(), "cuda": torch.version.cuda, query: answer}


def memory_bandwidth(num_bytes: int) -> float:
    """GB/s (bytes read plus bytes written) of copying a block of this size, the median of 15 copies."""
    source = torch.ones(num_bytes // 4)
    target = torch.empty_like(source)
    seconds = []
    for _ in range(15):
        begin = time.perf_counter()
        target.copy_(source)
        seconds.append(time.perf_counter() - begin)
    return 2 * num_bytes / statistics.median(seconds) / 1e9


def _summary(values: list[float]) -> dict[str, float]:
    ordered = sorted(values)
    return {
        "median_ms": round(statistics.median(ordered), 4),
        "p10_ms": round(ordered[len(ordered) // 10], 4),
        "p90_ms": round(ordered[-1 - len(ordered) // 10], 4),
    }
