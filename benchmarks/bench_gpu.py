"""Everything that is measured on a GPU, as four programs of at most nine minutes each: ``make bench-gpu``, or

    python -m benchmarks.bench_gpu first|second|third|compiled [--seconds 540] [--out FOLDER]
    python -m benchmarks.bench_gpu --parts roofline,step/r34_64,... [--dry]

``first``: parity on the device, the roofline, the main rows of the step, acting, norms, heads. ``second``: the step
beside JAX, ablations, batches of 256, ResNet-50, the other kernels. ``third``: learning curves, where a replay's time
goes, hardware counters, compute-sanitizer, the rows that are left. ``compiled``: everything beside ``torch.compile``,
which takes minutes for one variant: so it costs no other row.

A program needs what the machine has (Python 3.12, torch 2.11, triton 3.6, nvcc; JAX for its rows) and the wheels that
``make gpu-wheels`` has gathered, no registry. It first compiles whatever its parts will need in one process per core.
Its parts come in the order of their worth, each bounded in time, in a process that is replaced where one crashes, hangs
or leaves the GPU in an error; what no time is left for is a row too, and ``--parts`` (names or their beginnings) asks
for it, in this order, the next time. Rows are written one by one, to ``--out``, ``$OUT`` or ``benchmarks/results``; a
short table comes last. ``--dry`` runs every part at tiny sizes on the CPU and records nothing: a test does that, so
that the first minute on a rented GPU does not find a typing error.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from benchmarks.gpu import act, checks, curves, decode, kernels, replay, roofline, step, wheels
from benchmarks.gpu.supervise import BEGIN, supervise
from benchmarks.gpu.timing import Bench
from benchmarks.harness import RESULTS
from ptr_fast import native

PROGRAMS = {
    "first": (
        "build",
        "tests",
        "prepare",
        "roofline",
        "step/r34_64/eager",
        "act",
        "kernels/group_norm_act",
        "kernels/cql_head",
        "kernels/spatial_embedding",
    ),
    "second": (
        "build",
        "prepare",
        "kernels/group_norm_act_pool",
        "step/r34_64/ablations",
        "step/r34_256/jax",
        "kernels/augment",
        "kernels/adam_polyak",
        "kernels/counter_random",
        "step/r34_256/eager",
        "step/r34_64/jax",
        "step/r34_64/jax_reference",
        "step/r50_256/eager",
    ),
    "third": (
        "build",
        "prepare",
        "curves",
        "replay",
        "decode",
        "counters",
        "sanitizer/memcheck",
        "sanitizer/racecheck",
        "step/r50_256/jax",
        "step/r34_256/jax_reference",
    ),
    "compiled": (
        "build",
        "prepare",
        "step/r34_64/compiled",
        "act/compiled",
        "step/r34_256/compiled",
        *(f"compiled/{op}" for op in kernels.OPS),
        "step/r50_256/compiled",
        "step/r34_256/autotuned",
    ),
}
PARTS = list(dict.fromkeys(part for program in PROGRAMS.values() for part in program))
STARTED = ("touch", "touch_full")  # by other parts, in a process of their own
# Seconds that a part may take at most, by its name or the beginning of it.
LIMITS = {"build": 260.0, "tests": 180.0, "prepare": 320.0, "roofline": 60.0, "kernels/": 90.0, "act/compiled": 200.0}
LIMITS |= {"act": 150.0, "step/r34_256/autotuned": 300.0, "step/": 200.0}
DEFAULT_LIMIT = 200.0


def main(argv: list[str] | None = None) -> int:
    """Runs a program or parts; 0 where nothing failed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("program", nargs="?", choices=tuple(PROGRAMS), help="which of the four (default: first)")
    parser.add_argument("--parts", default="", help="names of parts or their beginnings, instead of a program")
    parser.add_argument("--seconds", type=float, default=540.0, help="for everything (default: 540 s)")
    parser.add_argument("--out", default=os.environ.get("OUT") or str(RESULTS), help="folder of the rows")
    parser.add_argument("--dry", action="store_true", help="tiny sizes on the CPU, nothing is recorded")
    parser.add_argument("--here", action="store_true", help="in this process (a supervised one is started so)")
    parser.add_argument("--compile-only", action="store_true", help="run everything once, measure nothing")
    parser.add_argument("--share", default="0/1", help="i/n: every n-th case from the i-th on (with --compile-only)")
    args = parser.parse_args(argv)
    asked = [part for part in args.parts.split(",") if part]
    if unknown := [part for part in asked if not _named(part)]:
        parser.error(f"unknown {unknown}; known: {[*PARTS, *STARTED]}")
    if not 0 <= args.seconds < math.inf:  # a child that starts in the last half second is told 0
        parser.error(f"--seconds: expected a number from 0, got {args.seconds:g}")
    index, _, num_shares = args.share.partition("/")
    share = (int(index), int(num_shares)) if index.isdecimal() and num_shares.isdecimal() else (0, 0)
    if not share[0] < share[1]:
        parser.error(f"--share: expected i/n with 0 <= i < n, got {args.share!r}")
    named = [name for part in asked for name in _named(part)]
    names = list(dict.fromkeys(named)) if asked else list(PROGRAMS[args.program or "first"])
    if not args.dry and not torch.cuda.is_available():
        parser.error("there is no GPU here (--dry runs every part at tiny sizes on the CPU)")
    silent = args.dry or args.compile_only or names[0] in STARTED
    os.environ["PTR_FAST_BENCH_RECORD"] = "0" if silent else "1"
    os.environ["PTR_FAST_BENCH_OUT"] = args.out
    if args.dry or args.here:
        return run(names, Bench(dry=args.dry, seconds=args.seconds, share=share, compile_only=args.compile_only))

    wheels.install()
    os.environ["PYTHONPATH"] = wheels.search_path()

    def start(left: list[str], seconds: float) -> subprocess.Popen[str]:
        options = ["--here", "--parts", ",".join(left), "--seconds", f"{seconds:.0f}", "--out", args.out]
        command = [sys.executable, "-u", "-m", "benchmarks.bench_gpu", *options]
        pipe = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "text": True}
        return subprocess.Popen(command, **pipe, start_new_session=True)  # type: ignore[call-overload, no-any-return]

    begin = _sizes(Path(args.out))
    failures = supervise({name: _limit(name) for name in names}, start, args.seconds)
    _print_table(Path(args.out), begin)
    if failures:
        print("failed: " + "; ".join(failures), flush=True)
    return 1 if failures else 0


def run(names: list[str], bench: Bench) -> int:
    """Runs parts in this process; 0 where no row failed."""
    if not bench.dry:
        torch.backends.cudnn.benchmark = True
        torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = True  # as the reference's default
    native.keep_freed_memory()
    for position, name in enumerate(names):
        print(f"{BEGIN}{name}", flush=True)
        part, _, rest = name.partition("/")
        if part in ("kernels", "compiled", "step") and not bench.peaks and not bench.compile_only:
            bench.attempt("gpu_roofline", "copy and matrix product", lambda: roofline.peaks(bench))
        works: dict[str, Callable[[], Any]] = {
            "build": lambda: checks.run_build(bench),
            "tests": lambda: checks.run_tests(bench),
            "prepare": lambda later=names[position + 1 :]: checks.run_prepare(bench, later),
            "roofline": lambda: roofline.run(bench),
            "step": lambda rest=rest: step.run(bench, *rest.split("/")),
            "kernels": lambda rest=rest: kernels.run(bench, rest),
            "compiled": lambda rest=rest: kernels.run(bench, rest, compiled=True),
            "act": lambda rest=rest: act.run(bench, compiled=bool(rest)),
            "curves": lambda: curves.run(bench),
            "replay": lambda: replay.run(bench),
            "decode": lambda: decode.run(bench),
            "counters": lambda: replay.run_counters(bench),
            "sanitizer": lambda rest=rest: checks.run_sanitizer(bench, rest),
            "touch": lambda: checks.touch(replace(bench, small=True)),
            "touch_full": lambda: checks.touch(bench),
        }
        works[part]()
    if bench.failures:
        print("failed: " + "; ".join(bench.failures), flush=True)
    return 1 if bench.failures else 0


def _named(part: str) -> list[str]:
    """The part of that name, or else all whose names begin so."""
    known = [*PARTS, *STARTED]
    return [part] if part in known else [name for name in PARTS if name.startswith(part)]


def _limit(name: str) -> float:
    return next((seconds for start, seconds in LIMITS.items() if name.startswith(start)), DEFAULT_LIMIT)


def _sizes(folder: Path) -> dict[Path, int]:
    """How long every file of rows is."""
    return {path: path.stat().st_size for path in folder.glob("gpu_*.jsonl")}


def _rows_since(folder: Path, begin: dict[Path, int]) -> Iterator[dict[str, Any]]:
    for path in sorted(folder.glob("gpu_*.jsonl")):
        with open(path, encoding="utf-8") as file:
            file.seek(begin.get(path, 0))
            yield from map(json.loads, file)


def _print_table(folder: Path, begin: dict[Path, int]) -> None:
    """What this program found: a line for every row that was timed, failed or left out."""
    print("\n== what was found", flush=True)
    for row in _rows_since(folder, begin):
        found = ""
        if "variants" in row:
            ours, times = next(iter(row["variants"].items()))
            ratios = ", ".join(f"{ratio:.2f}x {other}" for other, ratio in row["speedup"].items())
            found = f"{ours} {times['median_ms']:.4g} ms; {ratios}"
        elif "code" in row:  # what a command said: its "failed" and "skipped" are numbers of tests
            counts = ", ".join(f"{row[key]} {key}" for key in ("passed", "failed", "skipped") if row.get(key))
            found = f"code {row['code']}, {row.get('seconds', 0):.0f} s{', ' if counts else ''}{counts}"
        elif "failed" in row or "skipped" in row:
            found = f"FAILED {row['failed'][:160]}" if "failed" in row else f"skipped: {row['skipped'][:160]}"
        if dropped := row.get("dropped"):
            found += f"; dropped: {dropped}"[:200]
        if found:
            print(f"{row['name'].removeprefix('gpu_')} {row['case']}: {found}", flush=True)


if __name__ == "__main__":
    sys.exit(main())
