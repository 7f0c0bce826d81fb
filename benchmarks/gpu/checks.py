"""Is it right before it is fast: the native module is built, parity holds on the device, no kernel reads astray; and
what a program compiles is compiled beforehand, in parallel."""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import subprocess
import sys
import sysconfig
import tempfile
import time
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from benchmarks.gpu import wheels
from benchmarks.gpu.timing import Bench
from benchmarks.harness import environment, record

__all__ = ["run_build", "run_prepare", "run_sanitizer", "run_tests", "touch"]

ROOT = Path(__file__).resolve().parents[2]
# Processes per part that compiles: a share of its cases each.
SHARES = {"kernels/group_norm_act": 6, "kernels/cql_head": 3, "act": 2, "step": 2}
COMPILE_SECONDS = 300.0  # torch.compile of one net took more than 170
TOOLS = ("memcheck", "racecheck")


def run_build(bench: Bench) -> None:
    """The native module, with its CUDA sources where there are any and nvcc is there; without it Triton still runs.

    By CMake itself: the machine's setuptools may be older than pyproject.toml asks for.
    """
    bench.attempt("gpu_checks", "build", lambda: _build(bench))


def _build(bench: Bench) -> None:
    if bench.dry:
        _row("build", ["cmake", "--version"], 60)
        return
    import pybind11

    folder = ROOT / "build" / f"gpu-{sysconfig.get_config_var('SOABI')}"
    options = [f"-DPython_EXECUTABLE={sys.executable}", f"-Dpybind11_DIR={pybind11.get_cmake_dir()}"]
    configure = ["cmake", "-S", str(ROOT), "-B", str(folder), "-G", "Ninja", "-DCMAKE_BUILD_TYPE=Release", *options]
    _row("build: configure", configure, min(60, bench.seconds_left))
    _row("build", ["cmake", "--build", str(folder)], min(200, bench.seconds_left))
    # With PyTorch in the process, as it is used; a module that crashes is not put where it would crash everything.
    importing = [sys.executable, "-X", "faulthandler", "-c", f"import sys, torch; sys.path[:0] = [{str(folder)!r}]"]
    importing[-1] += "; import _native; print(_native.build_info())"
    _row("build: import", importing, min(60, bench.seconds_left))
    for module in folder.glob("_native*.so"):
        shutil.copy2(module, ROOT / "ptr_fast" / module.name)


def run_tests(bench: Bench) -> None:
    """Parity on the device: every test file in a process of its own, so that an illegal access fails one op's alone.

    A file that cannot be imported here (a package of the robot or of the data is missing) is a row that says so.
    """
    _in_parallel(bench, [(path.name, _test_command(bench, path)) for path in _test_files(bench)])


def run_prepare(bench: Bench, parts: Iterable[str]) -> None:
    """Everything that these parts will compile, one process per share of a part, into the compilers' caches on disk."""
    jobs = []
    for part in parts:
        if part.partition("/")[0] in ("kernels", "compiled", "step", "act"):
            num_shares = 1 if bench.dry else SHARES.get(part, SHARES.get(part.partition("/")[0], 1))
            for index in range(num_shares):
                share = f"{index}/{num_shares}"
                command = [sys.executable, "-m", "benchmarks.bench_gpu", "--here", "--compile-only", "--share", share]
                jobs.append((f"precompile {part} {share}", [*command, "--parts", part, *["--dry"] * bench.dry]))
    os.environ.setdefault("TORCHINDUCTOR_COMPILE_THREADS", "4")  # of each process that compiles: there are many
    _in_parallel(bench, jobs, COMPILE_SECONDS)


def _test_files(bench: Bench) -> list[Path]:
    marked = [path for path in sorted((ROOT / "tests").rglob("test_*.py")) if "mark.cuda" in path.read_text()]
    return [path for path in marked if path.name == "test_counter_random.py"] if bench.dry else marked


def _test_command(bench: Bench, path: Path) -> list[str]:
    chosen = ["--collect-only"] if bench.dry else ["-m", "cuda"]
    return [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", *chosen, str(path.relative_to(ROOT))]


def _in_parallel(bench: Bench, jobs: list[tuple[str, list[str]]], seconds: float = 170.0) -> None:
    def run(job: tuple[str, list[str]]) -> None:
        case, command = job
        bench.attempt("gpu_checks", case, lambda: _row(case, command, min(seconds, bench.seconds_left)))

    with ThreadPoolExecutor(os.cpu_count() or 1) as pool:
        list(pool.map(run, jobs))


def run_sanitizer(bench: Bench, tool: str) -> None:
    """One small call of every op, forward and backward, under one of compute-sanitizer's tools.

    Without PyTorch's cache of memory, inside whose blocks the sanitizer sees no bounds.
    """
    sanitizer, case = shutil.which("compute-sanitizer"), f"compute-sanitizer {tool}"
    command = [sys.executable, "-m", "benchmarks.bench_gpu", "--here", "--parts", "touch"]
    if bench.dry:
        command += ["--dry"]
    elif sanitizer is None:
        record({"name": "gpu_checks", "case": case, "skipped": "compute-sanitizer is not installed"})
        return
    else:
        command = [sanitizer, "--tool", tool, "--error-exitcode", "9", *command]
    limit = min(190, bench.seconds_left)
    bench.attempt("gpu_checks", case, lambda: _row(case, command, limit, PYTORCH_NO_CUDA_MEMORY_CACHING="1"))


def touch(bench: Bench) -> None:
    """One forward and backward of every op case through its dispatcher: what the sanitizer and ncu watch."""
    from benchmarks.gpu.kernels import cases

    for case in cases(bench):
        out = case.call()
        outputs = [tensor for tensor in (out if isinstance(out, tuple | list) else (out,)) if tensor is not None]
        if case.leaves:
            sum(output.float().sum() for output in outputs).backward()


def _row(case: str, command: list[str], seconds: float, **variables: str) -> None:
    """Runs a command to its end or its limit, and records its status, counts of tests and, where it failed, its end."""
    env = {**os.environ, "PTR_FAST_BENCH_RECORD": "0", **variables}
    env["PYTHONPATH"] = wheels.search_path()
    code, begin = None, time.monotonic()
    with tempfile.TemporaryFile("w+") as output:
        options = {"stdout": output, "stderr": subprocess.STDOUT, "timeout": max(seconds, 1.0)}
        with contextlib.suppress(subprocess.TimeoutExpired):
            code = subprocess.run(command, cwd=ROOT, env=env, **options).returncode  # type: ignore[call-overload]
        output.seek(0)
        text = output.read()
    counts = {word: int(number) for number, word in re.findall(r"(\d+) (passed|failed|skipped|error)", text)}
    said = {} if code == 0 else {"failed_tests": re.findall(r"^(?:FAILED|ERROR) (.+)", text, re.M), "end": text[-4000:]}
    took = round(time.monotonic() - begin, 1)
    fields = {"code": code, "seconds": took, **counts, **said}
    record({"name": "gpu_checks", "case": case, **fields, "environment": environment()})
    if missing := re.search(r"ModuleNotFoundError: No module named '?([\w.]+)", text):
        raise ModuleNotFoundError(f"{missing[1]} is not installed")
    # pytest's 5: every test was deselected.
    if code not in (0, 5):
        raise RuntimeError(f"took over {seconds:.0f} s" if code is None else f"ended with code {code}")
