"""One gradient step of CQL on the CPU: ours beside the same algebra in plain PyTorch, compiled and in JAX, and the
published computation in PyTorch and JAX.

``python -m benchmarks.bench_step [conv3 resnet_small resnet18] [--without compiled,jax,...]`` measures step time
(interleaved), floating-point operations and the peak memory of a fresh process, all at 64x64 frames and one thread; a
second row per case takes our kernels away one by one. Rows of variants whose packages are not installed say so
(``make peers``), and so do rows without those that take long to compile.
"""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import torch

from benchmarks.cases import StepCase
from benchmarks.harness import compare, one_thread_clock
from benchmarks.peers.client import interpreter_with
from benchmarks.step_variants import JAX_PACKAGES, JaxVariant, TorchVariant, Variant, ablations, gate
from ptr_fast import native
from ptr_fast.kernels import dispatch

CASES = {  # rounds
    "conv3": (StepCase(encoder="conv3", num_batch=64, num_filters=16), 9),
    "resnet_small": (StepCase(encoder="resnet_small", num_batch=16), 5),
    "resnet18": (StepCase(encoder="resnet18", num_batch=8), 5),
}
MEMORY = ("ours", "plain", "literal_port")


def make_variants(case: StepCase, without: set[str]) -> tuple[dict[str, Variant], dict[str, str]]:
    """All variants that can run here, and why the others cannot."""
    variants: dict[str, Variant] = {"ours": TorchVariant(case, "ours")}
    # Inductor's default mode: reduce-overhead is CUDA graphs, and max-autotune compiles dozens of GEMM templates here
    # (they are 0.02 % of the work) for more than ten minutes.
    if "compiled" not in without:
        variants["compiled"] = TorchVariant(case, "compiled", compile_options={})
    variants["plain"] = TorchVariant(case, "plain")
    variants["literal_port"] = TorchVariant(case, "literal")
    if interpreter_with(*JAX_PACKAGES) is None:
        why = "jax, flax and optax are not installed (make peers)"
        return variants, {"jax": why, "jax_reference": why}
    for name, shared in (("jax", True), ("jax_reference", False)):
        if name not in without:
            variants[name] = JaxVariant(case, shared_forwards=shared)
    return variants, {}


def run(name: str, without: set[str]) -> None:
    """The row of a case, and its row of ablations."""
    case, num_rounds = CASES[name]
    variants, missing = make_variants(case, without)
    try:
        dispatch.clear()
        compare(
            "step",
            str(case),
            {variant: variants[variant].step for variant in variants},
            lambda: check(case, variants),
            num_rounds=num_rounds,
            num_warmup=1,
            # A worker measures by the clock on the wall, and so must what stands beside it.
            clock=time.perf_counter
            if any(isinstance(v, JaxVariant) for v in variants.values())
            else one_thread_clock(),
            not_installed=missing,
            left_out=sorted(without),
            peak_memory_mb={variant: round(peak_memory_mb(variant, name)) for variant in MEMORY},
            kept_memory=True,
        )
    finally:
        for variant in variants.values():
            variant.close()
    run_ablations(case, num_rounds)


def run_ablations(case: StepCase, num_rounds: int) -> None:
    """Ours without each kernel, in rounds of their own."""
    variants: dict[str, Variant] = {"ours": TorchVariant(case, "ours")}
    dispatch.clear()
    variants["ours"].step()
    for name, options in ablations(dispatch.explain()).items():
        variants[name] = TorchVariant(case, "ours", **options)
    variants["ours"] = TorchVariant(case, "ours")
    compare(
        "step_ablation",
        str(case),
        {name: variant.step for name, variant in variants.items()},
        lambda: check(case, variants),
        num_rounds=num_rounds,
        num_warmup=1,
        clock=one_thread_clock(),
        kept_memory=True,
    )


def check(case: StepCase, variants: dict[str, Variant]) -> dict[str, Any]:
    """The gate, and what it found out on the way."""
    fields: dict[str, Any] = {"gate": gate(case, variants, loss_bound=2e-3, update_bound=0.15)}
    for key in ("gflop", "compile_s"):
        fields[key] = {name: v.details[key] for name, v in variants.items() if v.details.get(key)}
    fields["kernels"] = sorted({f"{choice.op}: {choice.backend.name}" for choice in dispatch.explain()})
    return fields


def peak_memory_mb(variant: str, name: str) -> float:
    """Growth of the resident set over two steps in a fresh process, MB."""
    command = [sys.executable, "-m", "benchmarks.bench_step", "--memory", variant, name]
    out = subprocess.run(command, check=True, capture_output=True, text=True)
    return float(out.stdout.split()[-1])


def print_memory(variant: str, name: str) -> None:
    """Two steps, then the growth."""
    kind = "literal" if variant == "literal_port" else variant
    step = TorchVariant(CASES[name][0], kind).step
    before = _status_mb("VmRSS")
    step()
    step()
    print(_status_mb("VmHWM") - before)


def _status_mb(field: str) -> float:
    # Not getrusage: its peak is inherited from the process that started this one.
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(field + ":"):
            return int(line.split()[1]) / 1024
    raise RuntimeError(f"/proc/self/status has no {field}")


def main(argv: list[str]) -> None:
    torch.set_num_threads(int(os.environ.get("PTR_FAST_BENCH_THREADS", "1")))
    native.keep_freed_memory()
    if argv[:1] == ["--memory"]:
        print_memory(*argv[1:])
        return
    without: set[str] = set()
    if "--without" in argv:
        at = argv.index("--without")
        without, argv = set(argv[at + 1].split(",")), argv[:at] + argv[at + 2 :]
    unknown = set(argv) - set(CASES)
    if unknown:
        raise SystemExit(f"unknown encoder {sorted(unknown)}; known: {list(CASES)}")
    for name in argv or CASES:
        run(name, without)


if __name__ == "__main__":
    main(sys.argv[1:])
