"""Everything that is measured on a GPU, in one call: ``make bench-gpu``, or

    python -m benchmarks.bench_gpu [--parts tests,roofline,step/r34_64,...] [--seconds 540] [--out FOLDER] [--dry]

The parts come in the order of their worth, each bounded in time, in a process that is replaced where one crashes, hangs
or leaves the GPU in an error. Ten minutes give parity, the roofline, the step beside plain PyTorch and every kernel;
what no time is left for is a row too, and ``--parts`` (names or their beginnings) asks for it the next time. Rows are
written one by one, to ``--out``, ``$OUT`` or ``benchmarks/results``. ``--dry`` runs every part at tiny sizes on the CPU
and records nothing: a test does that, so that the first minute on a rented GPU does not find a typing error.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys

import torch

from benchmarks.gpu import act, checks, kernels, roofline, step
from benchmarks.gpu.supervise import BEGIN, supervise
from benchmarks.gpu.timing import Bench
from benchmarks.harness import RESULTS
from ptr_fast import native

# Seconds that a part may take at most.
FIRST = {"build": 90.0, "tests": 170.0, "roofline": 60.0, "step/r34_64/eager": 80.0, "step/r34_256/eager": 80.0}
FIRST |= {f"kernels/{op}": 60.0 for op in kernels.OPS}
STEPS = ("r34_256/compiled", "r34_64/ablations", "r34_256/jax", "r34_64/jax_reference", "r34_64/compiled")
STEPS += ("r34_64/jax", "r34_256/jax_reference", "r50_256/eager", "r50_256/compiled", "r50_256/jax")
LAST = {"act": 120.0, **{f"compiled/{op}": 120.0 for op in kernels.OPS}, "step/r34_256/autotuned": 300.0}
PARTS = FIRST | {f"step/{name}": 240.0 for name in STEPS} | LAST | {"sanitizer": 200.0}


def main(argv: list[str] | None = None) -> int:
    """Runs the parts; 0 where nothing failed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--parts", default="")
    parser.add_argument("--seconds", type=float, default=540.0)
    parser.add_argument("--out", default=os.environ.get("OUT") or str(RESULTS))
    parser.add_argument("--dry", action="store_true")
    parser.add_argument("--here", action="store_true", help="in this process (a supervised one is started so)")
    args = parser.parse_args(argv)
    asked = [part for part in args.parts.split(",") if part]
    known = [*PARTS, "touch"]
    if unknown := [part for part in asked if not any(name.startswith(part) for name in known)]:
        parser.error(f"unknown {unknown}; known: {known}")
    names = [name for name in known if any(name.startswith(part) for part in asked)] if asked else list(PARTS)
    if not args.dry and not torch.cuda.is_available():
        parser.error("there is no GPU here (--dry runs every part at tiny sizes on the CPU)")
    os.environ["PTR_FAST_BENCH_RECORD"] = "0" if args.dry or names == ["touch"] else "1"
    os.environ["PTR_FAST_BENCH_OUT"] = args.out
    if args.dry or args.here:
        return run(names, Bench(dry=args.dry, seconds=args.seconds))

    def start(left: list[str], seconds: float) -> subprocess.Popen[str]:
        options = ["--here", "--parts", ",".join(left), "--seconds", f"{seconds:.0f}", "--out", args.out]
        command = [sys.executable, "-u", "-m", "benchmarks.bench_gpu", *options]
        pipe = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "text": True}
        return subprocess.Popen(command, **pipe, start_new_session=True)  # type: ignore[call-overload, no-any-return]

    failures = supervise({name: PARTS.get(name, 120.0) for name in names}, start, args.seconds)
    if failures:
        print("failed: " + "; ".join(failures), flush=True)
    return 1 if failures else 0


def run(names: list[str], bench: Bench) -> int:
    """Runs parts in this process; 0 where no row failed."""
    if not bench.dry:
        torch.backends.cudnn.benchmark = True
        torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = True  # as the reference's default
    native.keep_freed_memory()
    for name in names:
        print(f"{BEGIN}{name}", flush=True)
        part, _, rest = name.partition("/")
        if part in ("kernels", "compiled", "step") and not bench.peaks:
            bench.attempt("gpu_roofline", "copy and matrix product", lambda: roofline.peaks(bench))
        if part == "step":
            step.run(bench, *rest.split("/"))
        elif part in ("kernels", "compiled"):
            kernels.run(bench, rest, compiled=part == "compiled")
        else:
            whole = {"build": checks.run_build, "tests": checks.run_tests, "sanitizer": checks.run_sanitizer}
            (whole | {"touch": checks.touch, "roofline": roofline.run, "act": act.run})[part](bench)
    if bench.failures:
        print("failed: " + "; ".join(bench.failures), flush=True)
    return 1 if bench.failures else 0


if __name__ == "__main__":
    sys.exit(main())
