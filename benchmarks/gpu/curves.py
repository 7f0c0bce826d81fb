"""Does a captured bfloat16 update learn what an eager float32 one learns? Curves of both, two seeds, two encoders.

The task is that of :mod:`benchmarks.bench_precision`, whose distances between curves are used; the batch is 64.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from typing import Any

import torch

from benchmarks import bench_precision
from benchmarks.bench_precision import CURVES, WINDOW
from benchmarks.gpu import wheels
from benchmarks.gpu.timing import Bench
from benchmarks.harness import environment, record
from ptr_fast.cuda_graph import CapturedStep, EagerStep
from ptr_fast.types import Batch

__all__ = ["run", "train_one"]

ENCODERS = ("conv3", "resnet18")
KINDS = ("fp32", "bf16")  # eager float32, captured bfloat16
SEEDS = (0, 1)
NUM_BATCH, NUM_STEPS = 64, 2000


class DeviceData:
    """Batches of data on the device; which samples make up a batch is a table that was drawn beforehand."""

    on_device, wait_seconds = True, 0.0

    def __init__(self, data: Batch, seed: int, num_batch: int, num_steps: int, device: str) -> None:
        self._data = data.to(device)
        generator = torch.Generator().manual_seed(seed)
        self._rows_NB = torch.randint(0, len(data), (num_steps + 8, num_batch), generator=generator).to(device)

    def batch(self, step: Any) -> Batch:
        rows = self._rows_NB[step]
        return self._data.map(lambda value: value[rows])


def train_one(bench: Bench, encoder: str, kind: str, seed: int) -> dict[str, Any]:
    """Means over ``WINDOW`` updates of every curve, and how the updates were launched."""
    num_batch, num_steps, window = (4, 4, 2) if bench.dry else (NUM_BATCH, NUM_STEPS, WINDOW)
    learner = bench_precision.make_learner(bench_precision.DTYPES[kind], seed, encoder, bench.device)
    held_out = DeviceData(bench_precision.make_data(1), 0, 256, 1, bench.device).batch(0)
    source = DeviceData(bench_precision.make_data(0), seed, num_batch, num_steps, bench.device)
    captured = kind == "bf16" and not bench.dry
    step = CapturedStep(learner, source, 0) if captured else EagerStep(learner, source, 0)
    curves: dict[str, list[float]] = {name: [] for name in CURVES}
    begin = time.perf_counter()
    sums: torch.Tensor | float = 0.0
    for number in range(1, num_steps + 1):
        step.run()
        sums = sums + torch.stack([step.info[name] for name in CURVES[:-1]])
        if number % window == 0:
            assert isinstance(sums, torch.Tensor)
            for name, value in zip(CURVES, (sums / window).tolist(), strict=False):
                curves[name].append(round(value, 5))
            curves["error"].append(round(bench_precision.action_error(learner, held_out), 5))
            sums = 0.0
    run = {"encoder": encoder, "dtype": kind, "seed": seed, "curves": curves, "why_eager": step.why_eager}
    return {**run, "seconds": round(time.perf_counter() - begin, 1)}


def run(bench: Bench) -> None:
    """A row of ``gpu_curves`` per encoder; every training is a process of its own, all at once."""
    for encoder in ENCODERS[:1] if bench.dry else ENCODERS:
        bench.attempt("gpu_curves", encoder, lambda e=encoder: _row(bench, e))


def _row(bench: Bench, encoder: str) -> None:
    runs = {(kind, seed): _start(bench, encoder, kind, seed) for kind in KINDS for seed in SEEDS}
    curves, seconds, eager = {}, {}, {}
    try:
        for key, process in runs.items():
            text, _ = process.communicate(timeout=max(min(bench.seconds_left, 200), 1))
            if process.returncode != 0:
                raise RuntimeError(f"{encoder} {key} ended with code {process.returncode}: {text[-600:]}")
            told = json.loads(text.splitlines()[-1])
            curves[key], seconds[key], eager[key] = told["curves"], told["seconds"], told["why_eager"]
    finally:
        for process in runs.values():
            process.kill()
    names = {key: f"{key[0]} seed {key[1]}" for key in runs}
    between = {
        "bf16_captured_from_fp32_eager": [(curves["fp32", seed], curves["bf16", seed]) for seed in SEEDS],
        "fp32_from_fp32_of_another_seed": [(curves["fp32", 0], curves["fp32", 1])],
    }
    distances = {
        label: {n: max(bench_precision.distance(a[n], b[n]) for a, b in pairs) for n in CURVES}
        for label, pairs in between.items()
    }
    record(
        {
            "name": "gpu_curves",
            "case": f"CQL {encoder} {bench_precision.SIZE} px B={NUM_BATCH}, {NUM_STEPS} updates, means of {WINDOW}",
            **distances,
            "last_error": {names[key]: curve["error"][-1] for key, curve in curves.items()},
            "seconds": {names[key]: value for key, value in seconds.items()},
            "why_eager": {names[key]: value for key, value in eager.items()},
            "curves": {names[key]: curve for key, curve in curves.items()},
            "environment": environment(),
        }
    )


def _start(bench: Bench, encoder: str, kind: str, seed: int) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "benchmarks.gpu.curves", encoder, kind, str(seed), *["--dry"] * bench.dry]
    env = {**os.environ, "PYTHONPATH": wheels.search_path()}
    return subprocess.Popen(command, env=env, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)


if __name__ == "__main__":
    encoder, kind, seed, *rest = sys.argv[1:]
    print(json.dumps(train_one(Bench(dry=bool(rest), seconds=600.0), encoder, kind, int(seed))))
