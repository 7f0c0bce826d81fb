"""Where the time of one captured update goes, kernel by kernel; and what the hardware counters say of our kernels."""

from __future__ import annotations

import csv
import io
import shutil
import subprocess
import sys
from collections import defaultdict
from typing import Any

import torch

from benchmarks.gpu.step import CASES, DRY, Captured
from benchmarks.gpu.timing import Bench
from benchmarks.harness import environment, record

__all__ = ["run", "run_counters"]

NUM_STEPS = 3
NUM_KERNELS = 40
COUNTERS = {
    "gpu__time_duration.sum": "us",
    "dram__bytes_read.sum": "dram_read",
    "dram__bytes_write.sum": "dram_written",
    "lts__t_sector_hit_rate.pct": "l2_hit_percent",
    "sm__warps_active.avg.pct_of_peak_sustained_active": "occupancy_percent",
    "sm__throughput.avg.pct_of_peak_sustained_elapsed": "sm_percent",
    "gpu__dram_throughput.avg.pct_of_peak_sustained_elapsed": "dram_percent",
    "launch__registers_per_thread": "registers",
    "smsp__inst_executed_op_local_ld.sum": "local_loads",
}


def run(bench: Bench) -> None:
    """A row of ``gpu_replay`` per case: every kernel of an update with its calls and microseconds."""
    for name in ("dry",) if bench.dry else ("r34_64", "r34_256"):
        bench.attempt("gpu_replay", name, lambda n=name: _row(bench, n))


def _row(bench: Bench, name: str) -> None:
    case = DRY if bench.dry else CASES[name]
    variant = Captured(case, bench.device)
    for _ in range(1 if bench.dry else 6):
        variant.step()
    activity = torch.profiler.ProfilerActivity
    with torch.profiler.profile(activities=[activity.CPU if bench.dry else activity.CUDA]) as profile:
        for _ in range(NUM_STEPS):
            variant.step()
        if not bench.dry:
            torch.cuda.synchronize()
    times: dict[str, list[float]] = defaultdict(list)
    for event in profile.events():
        on_device = str(event.device_type).endswith("CUDA")
        if on_device or bench.dry:
            times[event.name].append(event.device_time if on_device else event.cpu_time)
    total = sum(map(sum, times.values()))
    ordered = sorted(times.items(), key=lambda item: -sum(item[1]))[:NUM_KERNELS]
    kernels: list[dict[str, Any]] = []
    for key, us in ordered:
        share = round(sum(us) / total, 4)
        kernels.append(
            {"kernel": key[:120], "calls": len(us) / NUM_STEPS, "us": round(sum(us) / NUM_STEPS, 1), "share": share}
        )
    fields = {"num_kernels": sum(map(len, times.values())) / NUM_STEPS, "total_us": round(total / NUM_STEPS, 1)}
    for one in kernels:
        print(f"{one['us']:10.1f} us {one['calls']:6.1f} calls {100 * one['share']:5.1f} %  {one['kernel'][:90]}")
    record({"name": "gpu_replay", "case": str(case), **fields, "kernels": kernels, "environment": environment()})


def run_counters(bench: Bench) -> None:
    """A row of ``gpu_counters`` per kernel of ours, from ncu on one call of every op at the paper's shapes."""
    bench.attempt("gpu_counters", "ncu", lambda: _counters(bench))


def _counters(bench: Bench) -> None:
    ncu = shutil.which("ncu")
    command = [sys.executable, "-m", "benchmarks.bench_gpu", "--here", "--parts", "touch_full", *["--dry"] * bench.dry]
    if not bench.dry:
        if ncu is None:
            raise ModuleNotFoundError("ncu is not installed")
        options = ["--clock-control", "none", "--csv", "--page", "raw", "--print-units", "base"]
        options += ["--kernel-name", "regex:(_kernel|_forward|_backward|_fwd|_bwd)$", "--launch-count", "120"]
        command = [ncu, *options, "--metrics", ",".join(COUNTERS), *command]
    done = subprocess.run(command, capture_output=True, text=True, timeout=max(min(bench.seconds_left, 170), 1))
    if bench.dry:
        assert done.returncode == 0, done.stderr
        return
    lines = done.stdout.splitlines()
    start = next((i for i, line in enumerate(lines) if line.startswith('"ID"')), None)
    if start is None:
        raise RuntimeError(f"ncu ended with {done.returncode}: {(done.stdout + done.stderr)[-600:]}")
    for row in _counted(lines[start:]):
        record({"name": "gpu_counters", **row, "environment": environment()})


def _counted(lines: list[str]) -> list[dict[str, Any]]:
    """One row per kernel name and grid, of its first launch."""
    found: dict[str, dict[str, Any]] = {}
    for row in csv.DictReader(io.StringIO("\n".join(lines))):
        if not row.get("ID"):  # the line of units
            continue
        case = f"{row['Kernel Name']} grid {row.get('Grid Size', '')}"
        values = {name: row[metric] for metric, name in COUNTERS.items() if row.get(metric)}
        found.setdefault(case, {"case": case, **values})
    return list(found.values())
