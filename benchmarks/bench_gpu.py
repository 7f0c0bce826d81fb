"""Everything that is measured on a GPU, in one call: ``make bench-gpu``, or

    python -m benchmarks.bench_gpu [--sections build,tests,roofline,kernels,step,act] [--cases r34_64,r34_256,r50_256]
                                   [--groups eager,ablations,...] [--seconds 540] [--out FOLDER] [--dry]

Rows are written one by one, to ``--out``, ``$OUT`` or ``benchmarks/results``, so that a time limit loses nothing; a
part that fails becomes a row too, and the exit status. ``--dry`` runs every part at tiny sizes on the CPU and records
nothing: a test does that, so that the first minute on a rented GPU does not find a typing error.
"""

from __future__ import annotations

import argparse
import os
import sys

import torch

from benchmarks.gpu import act, checks, kernels, roofline, step
from benchmarks.gpu.timing import Bench
from benchmarks.harness import RESULTS
from ptr_fast import native

SECTIONS = ("build", "tests", "roofline", "kernels", "step", "act")


def main(argv: list[str] | None = None) -> int:
    """Runs the sections; 0 where no part failed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sections", default=",".join(SECTIONS))
    parser.add_argument("--cases", default=",".join(step.CASES))
    parser.add_argument("--groups", default=",".join(step.GROUPS))
    parser.add_argument("--seconds", type=float, default=540.0)
    parser.add_argument("--out", default=os.environ.get("OUT") or str(RESULTS))
    parser.add_argument("--dry", action="store_true")
    args = parser.parse_args(argv)
    sections, names, groups = (text.split(",") for text in (args.sections, args.cases, args.groups))
    for given, known in ((sections, (*SECTIONS, "touch")), (names, tuple(step.CASES)), (groups, step.GROUPS)):
        if unknown := set(given) - set(known):
            parser.error(f"unknown {sorted(unknown)}; known: {list(known)}")
    if not args.dry and not torch.cuda.is_available():
        parser.error("there is no GPU here (--dry runs every part at tiny sizes on the CPU)")
    os.environ["PTR_FAST_BENCH_RECORD"] = "0" if args.dry or sections == ["touch"] else "1"
    os.environ["PTR_FAST_BENCH_OUT"] = args.out
    bench = Bench(dry=args.dry, seconds=args.seconds)
    if not args.dry:
        torch.backends.cudnn.benchmark = True
        torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = True  # as the reference's default
    native.keep_freed_memory()
    run = {
        "build": lambda: checks.run_build(bench),
        "tests": lambda: checks.run_tests(bench),
        "touch": lambda: checks.touch(bench),
        "roofline": lambda: roofline.run(bench),
        "kernels": lambda: kernels.run(bench),
        "step": lambda: step.run(bench, names, groups),
        "act": lambda: act.run(bench),
    }
    for section in sections:
        if section in ("kernels", "step") and not bench.peaks:
            bench.attempt("gpu_roofline", "copy and matrix product", lambda: roofline.peaks(bench))
        run[section]()
    if bench.failures:
        print("failed: " + "; ".join(bench.failures), flush=True)
    return 1 if bench.failures else 0


if __name__ == "__main__":
    sys.exit(main())
