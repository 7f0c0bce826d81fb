"""The whole step on the GPU: ours, captured, beside every other way to compute it; and ours without each part.

Rows come in small groups, each with ours in its rounds, so that one that takes minutes to compile, fails or runs out of
time takes nothing with it. Groups: ``eager`` (C, D), ``jax`` (B), ``jax_reference`` (A, and A' in bfloat16),
``compiled`` and ``autotuned`` (E), ``ablations`` (a captured step each: at batch 64, for the memory).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch

from benchmarks.cases import StepCase, make_batch, make_learner
from benchmarks.gpu.timing import Bench
from benchmarks.harness import compare
from benchmarks.step_variants import JaxVariant, TorchVariant, Variant, ablations, count_gflop, gate
from ptr_fast.cuda_graph import CapturedStep
from ptr_fast.kernels import dispatch
from ptr_fast.types import Batch

__all__ = ["CASES", "GROUPS", "run"]

CASES = {
    "r34_64": StepCase(encoder="resnet34", num_batch=64, image_size=128),
    "r34_256": StepCase(encoder="resnet34", num_batch=256, image_size=128),
    "r50_256": StepCase(encoder="resnet50", num_batch=256, image_size=128),
}
DRY = StepCase(
    encoder="resnet_small", num_batch=2, image_size=32, num_filters=8, embedding_dim=16, hidden_dims=(16, 16)
)
GROUPS = {
    "eager": 30,
    "ablations": 60,
    "jax": 60,
    "jax_reference": 90,
    "compiled": 60,
    "autotuned": 120,
}  # least seconds
BF16 = torch.bfloat16
# bfloat16 gradients differ in their last bits, and Adam's first step is their sign: see step_variants.gate.
LOSS_BOUND, UPDATE_BOUND = 5e-2, 1.0


@dataclass
class FixedBatch:
    """A batch that is there already, as frames on the device are."""

    fixed: Batch
    on_device: bool = True
    wait_seconds: float = 0.0

    def batch(self, step: Any) -> Batch:
        return self.fixed


class Captured(TorchVariant):
    """Ours as training runs it: replayed from one CUDA graph (op by op where there is none, with the reason)."""

    def __init__(self, case: StepCase, device: str, **options: Any) -> None:
        super().__init__(case, "ours", dtype=BF16, device=device, **options)
        self._captured: CapturedStep | None = None

    def step(self) -> None:
        if self.device == "cpu":
            super().step()
            self.details["why_not_captured"] = "dry run"
            return
        if self._captured is None:
            self._captured = CapturedStep(self.learner, FixedBatch(self.batch), self.number)
        if self.backend is None:
            self._captured.run()
        else:
            with dispatch.use_backend(self.backend):
                self._captured.run()
        self.details["why_not_captured"] = self._captured.why_eager


def run(bench: Bench, name: str, group: str) -> None:
    """One row of ``gpu_step``: a group of variants on a case."""
    case = DRY if bench.dry else CASES[name]
    label = f"{case}, {group}"
    bench.attempt("gpu_step", label, lambda: row(bench, name, case, group, label))
    if not bench.dry:
        torch.cuda.empty_cache()


def row(bench: Bench, name: str, case: StepCase, group: str, label: str) -> dict[str, Any]:
    """One group of variants on one case."""
    bench.need(GROUPS[group])
    torch.compiler.reset()  # after a handful of compilations of one function the compiler gives up and runs it eagerly
    variants: dict[str, Variant] = {"ours": Captured(case, bench.device)}
    variants |= _others(bench, name, case, group)
    details: dict[str, Any] = {}

    def check() -> dict[str, Any]:
        found = {"gate": gate(case, variants, LOSS_BOUND, UPDATE_BOUND)}
        for variant in variants.values():
            for _ in range(1 if bench.dry else 5):  # warm up, capture
                variant.step()
        details.update({key: dict(variant.details) for key, variant in variants.items()})
        return {**found, "details": details, "memory_gb": _memory(bench)}

    try:
        timed = {key: _timed(bench, variant) for key, variant in variants.items()}
        result = compare("gpu_step", label, timed, check, num_rounds=bench.rounds(9), **_utilisation(bench, case))
    finally:
        for variant in variants.values():
            variant.close()
    return result


def _others(bench: Bench, name: str, case: StepCase, group: str) -> dict[str, Variant]:
    device, platform = bench.device, "cpu" if bench.dry else "cuda"
    if group == "eager":
        others: dict[str, Variant] = {"plain": TorchVariant(case, "plain", dtype=BF16, device=device)}
        if name != "r50_256":
            others["literal_port_fp32"] = TorchVariant(case, "literal", device=device)
        others["plain_fp32"] = TorchVariant(case, "plain", device=device)
        return others
    if group == "ablations":
        explained = bench_choices(case, device)
        found = {key: Captured(case, device, **options) for key, options in ablations(explained, device).items()}
        return {"without_graph": TorchVariant(case, "ours", dtype=BF16, device=device), **found}
    if group == "jax":
        return {"jax": JaxVariant(case, True, "bfloat16", platform)}
    if group == "jax_reference":
        bf16: dict[str, Variant] = {"jax_reference_bf16": JaxVariant(case, False, "bfloat16", platform)}
        return bf16 if name == "r50_256" else {"jax_reference": JaxVariant(case, False, "float32", platform), **bf16}
    # Without the autotuned mode's own CUDA graphs nothing changes here: reduce-overhead is the row with them.
    mode = "reduce-overhead" if group == "compiled" else "max-autotune-no-cudagraphs"
    options = {"backend": "eager"} if bench.dry else {"mode": mode}
    return {group: TorchVariant(case, "compiled", dtype=BF16, compile_options=options, device=device)}


def bench_choices(case: StepCase, device: str) -> list[dispatch.Choice]:
    """What the dispatcher chose in one update of ours."""
    dispatch.clear()
    learner = make_learner(case, device, encoder_dtype=BF16)
    learner.update(make_batch(case, device), 1)
    return dispatch.explain()


def _timed(bench: Bench, variant: Variant) -> Callable[[], Any]:
    if isinstance(variant, JaxVariant):
        return variant.step
    return bench.timed(variant.step, count=3, cold=False)


def _utilisation(bench: Bench, case: StepCase) -> dict[str, Any]:
    """FLOPs of nine encoder forwards (with backwards), for the share of the measured matrix-product peak."""
    tflop = count_gflop(case, "plain") / 1e3
    return {"tflop": round(tflop, 3), "dry": bench.dry, **{key: round(v, 1) for key, v in bench.peaks.items()}}


def _memory(bench: Bench) -> float | None:
    return None if bench.dry else round(torch.cuda.max_memory_allocated() / 1e9, 2)
