"""Is it right before it is fast: the native module is built, parity holds on the device, no kernel reads astray."""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import subprocess
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from benchmarks.gpu.timing import Bench
from benchmarks.harness import environment, record

__all__ = ["run_build", "run_sanitizer", "run_tests", "touch"]

ROOT = Path(__file__).resolve().parents[2]
NUM_AT_ONCE = 8  # test files


def run_build(bench: Bench) -> None:
    """The native module, with its CUDA sources where there are any and nvcc is there; without it Triton still runs."""
    command = [sys.executable, "setup.py", "-q", *(["--name"] if bench.dry else ["build_ext", "--inplace"])]
    bench.attempt("gpu_checks", "build", lambda: _row("build", command, min(85, bench.seconds_left)))


def run_tests(bench: Bench) -> None:
    """Parity on the device: every test file in a process of its own, so that an illegal access fails one op's alone.

    A file that cannot be imported here (a package of the robot or of the data is missing) is a row that says so.
    """
    marked = [path for path in sorted((ROOT / "tests").rglob("test_*.py")) if "mark.cuda" in path.read_text()]
    marked = [path for path in marked if path.name == "test_counter_random.py"] if bench.dry else marked

    def row(path: Path) -> None:
        chosen = ["--collect-only"] if bench.dry else ["-m", "cuda"]
        command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", *chosen, str(path.relative_to(ROOT))]
        bench.attempt("gpu_checks", path.name, lambda: _row(path.name, command, min(160, bench.seconds_left)))

    with ThreadPoolExecutor(NUM_AT_ONCE) as pool:
        list(pool.map(row, marked))


def run_sanitizer(bench: Bench) -> None:
    """One small call of every op, forward and backward, under compute-sanitizer's memcheck.

    Without PyTorch's cache of memory, inside whose blocks the sanitizer sees no bounds.
    """
    sanitizer = shutil.which("compute-sanitizer")
    command = [sys.executable, "-m", "benchmarks.bench_gpu", "--here", "--parts", "touch"]
    if bench.dry:
        command += ["--dry"]
    elif sanitizer is None:
        record({"name": "gpu_checks", "case": "compute-sanitizer", "skipped": "compute-sanitizer is not installed"})
        return
    else:
        command = [sanitizer, "--tool", "memcheck", "--error-exitcode", "9", *command]
    bench.attempt(
        "gpu_checks",
        "compute-sanitizer",
        lambda: _row("compute-sanitizer", command, min(190, bench.seconds_left), PYTORCH_NO_CUDA_MEMORY_CACHING="1"),
    )


def touch(bench: Bench) -> None:
    """One forward and backward of every op case through its dispatcher: what the sanitizer watches."""
    from benchmarks.gpu.kernels import cases

    for case in cases(Bench(dry=bench.dry, seconds=bench.seconds, small=True)):
        out = case.call()
        outputs = [tensor for tensor in (out if isinstance(out, tuple | list) else (out,)) if tensor is not None]
        if case.leaves:
            sum(output.float().sum() for output in outputs).backward()


def _row(case: str, command: list[str], seconds: float, **variables: str) -> None:
    env = {**os.environ, "PTR_FAST_BENCH_RECORD": "0", **variables}
    env["PYTHONPATH"] = f"{ROOT}{os.pathsep}{ROOT / 'python'}"
    code: int | None = None
    with tempfile.TemporaryFile("w+") as output:
        options = {"stdout": output, "stderr": subprocess.STDOUT, "timeout": max(seconds, 1.0)}
        with contextlib.suppress(subprocess.TimeoutExpired):
            code = subprocess.run(command, cwd=ROOT, env=env, **options).returncode  # type: ignore[call-overload]
        output.seek(0)
        text = output.read()
    counts = {word: int(number) for number, word in re.findall(r"(\d+) (passed|failed|skipped|error)", text)}
    said = {} if code == 0 else {"failed_tests": re.findall(r"^(?:FAILED|ERROR) (.+)", text, re.M), "end": text[-4000:]}
    record({"name": "gpu_checks", "case": case, "code": code, **counts, **said, "environment": environment()})
    if missing := re.search(r"ModuleNotFoundError: No module named '?([\w.]+)", text):
        raise ModuleNotFoundError(f"{missing[1]} is not installed")
    if code != 0:
        raise RuntimeError(f"took over {seconds:.0f} s" if code is None else f"ended with code {code}")
