"""Before anything is measured: the native module is built, parity holds on the device, no kernel reads astray."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

from benchmarks.gpu.timing import Bench
from benchmarks.harness import environment, record

__all__ = ["run_build", "run_tests"]

ROOT = Path(__file__).resolve().parents[2]


def run_build(bench: Bench) -> None:
    """The native module, with its CUDA sources where there are any and nvcc is there; without it Triton still runs."""
    command = [sys.executable, "setup.py", "-q", *(["--name"] if bench.dry else ["build_ext", "--inplace"])]
    bench.attempt("gpu_checks", "build", lambda: _row("build", command, bench.seconds_left))


def run_tests(bench: Bench) -> None:
    """Parity on the device, then under compute-sanitizer (memcheck) one small call of every op."""
    chosen = ["--collect-only", "tests/kernels/test_counter_random.py"] if bench.dry else ["tests", "-m", "cuda", "-x"]
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", *chosen]
    bench.attempt("gpu_checks", "pytest -m cuda", lambda: _row("pytest -m cuda", command, min(240, bench.seconds_left)))
    sanitizer = shutil.which("compute-sanitizer")
    touch = [sys.executable, "-m", "benchmarks.bench_gpu", "--sections", "touch", *(["--dry"] if bench.dry else [])]
    if sanitizer is None and not bench.dry:
        record({"name": "gpu_checks", "case": "compute-sanitizer", "skipped": "compute-sanitizer is not installed"})
        return
    command = touch if bench.dry else [str(sanitizer), "--tool", "memcheck", "--error-exitcode", "9", *touch]
    bench.attempt(
        "gpu_checks", "compute-sanitizer", lambda: _row("compute-sanitizer", command, min(120, bench.seconds_left))
    )


def touch(bench: Bench) -> None:
    """One forward and backward of every op case through its dispatcher: what the sanitizer watches."""
    from benchmarks.gpu.kernels import cases

    for case in cases(Bench(dry=bench.dry, seconds=bench.seconds)):
        out = case.call()
        outputs = [tensor for tensor in (out if isinstance(out, tuple | list) else (out,)) if tensor is not None]
        if case.leaves:
            sum(output.float().sum() for output in outputs).backward()


def _row(case: str, command: list[str], seconds: float) -> None:
    env = {**os.environ, "PTR_FAST_REQUIRE_CUDA": "1", "PTR_FAST_BENCH_RECORD": "0"}
    env["PYTHONPATH"] = f"{ROOT}{os.pathsep}{ROOT / 'python'}"
    if case == "compute-sanitizer" or "--collect-only" in command:
        env.pop("PTR_FAST_REQUIRE_CUDA")
    done = subprocess.run(command, cwd=ROOT, env=env, capture_output=True, text=True, timeout=max(seconds, 1))
    text = done.stdout + done.stderr
    counts = {word: int(number) for number, word in re.findall(r"(\d+) (passed|failed|skipped|error)", text)}
    record({"name": "gpu_checks", "case": case, "code": done.returncode, **counts, "environment": environment()})
    if done.returncode != 0:
        raise RuntimeError(f"{case} ended with code {done.returncode}: ...{text[-700:]}")
