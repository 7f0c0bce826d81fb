"""The whole step on the GPU: ours, captured, beside every other way to compute it; and ours without each part.

Rows come in small groups, each with ours in its rounds, so that one that takes minutes to compile, fails or runs out of
time takes nothing with it. Groups: ``eager`` (C, D), ``jax`` (B), ``jax_reference`` (A, and A' in bfloat16),
``compiled`` and ``autotuned`` (E), ``ablations`` (a captured step each: at batch 64, for the memory).
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
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
COUNT = 3  # steps that are timed as one, of every variant: the wait at the end counts once
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
    makers: dict[str, Callable[[], Variant]] = {"ours": lambda: Captured(case, bench.device)}
    makers |= _others(bench, name, case, group)
    if bench.compile_only:
        return _compile(bench, makers)
    variants: dict[str, Variant] = {}
    dropped: dict[str, str] = {}
    try:
        for key, make in makers.items():
            with _dropping(key, variants, dropped):
                variants[key] = make()
        found = gate(case, variants, LOSS_BOUND, UPDATE_BOUND, dropped)
        for key, variant in list(variants.items()):
            with _dropping(key, variants, dropped):
                for _ in range(1 if bench.dry else 5):  # warm up, capture
                    variant.step()
        details = {key: dict(variant.details) for key, variant in variants.items()}
        fields = {"gate": found, "dropped": dropped, "details": details, "memory_gb": _memory(bench)}
        timed = {key: _timed(bench, variant) for key, variant in variants.items()}
        rounds = bench.rounds(9)
        result = compare("gpu_step", label, timed, lambda: fields, num_rounds=rounds, **_utilisation(bench, case))
    finally:
        for variant in variants.values():
            variant.close()
    return result


@contextmanager
def _dropping(name: str, variants: dict[str, Variant], dropped: dict[str, str]) -> Iterator[None]:
    """Leaves a variant out where it raises, with the reason; nothing can be compared without ours."""
    try:
        yield
        if torch.cuda.is_available():
            torch.cuda.synchronize()  # what goes wrong on the device is this variant's fault
    except ModuleNotFoundError:
        raise  # a peer that is not installed: the row says so
    except Exception as error:
        if name == "ours":  # an illegal access shows at the next call, which may be ours
            raise RuntimeError(f"ours: {type(error).__name__}: {error}; dropped before: {dropped}"[:900]) from error
        dropped[name] = f"{type(error).__name__}: {error}"[:500]
        if name in variants:
            variants.pop(name).close()


def _compile(bench: Bench, makers: Mapping[str, Callable[[], Variant]]) -> dict[str, Any]:
    """Takes one step of what this process's share compiles: ours, ``torch.compile`` and JAX keep what they compiled."""
    for key in bench.mine(name for name in makers if name in ("ours", "compiled", "autotuned") or "jax" in name):
        variant = makers[key]()
        try:
            variant.check()
        finally:
            variant.close()
    return {}


def _others(bench: Bench, name: str, case: StepCase, group: str) -> dict[str, Callable[[], Variant]]:
    device, platform = bench.device, "cpu" if bench.dry else "cuda"

    def torch_variant(kind: str, **options: Any) -> Callable[[], Variant]:
        return lambda: TorchVariant(case, kind, device=device, **options)

    def jax(shared_forwards: bool, dtype: str) -> Callable[[], Variant]:
        return lambda: JaxVariant(case, shared_forwards, dtype, platform, count=1 if bench.dry else COUNT)

    if group == "eager":
        others = {"plain": torch_variant("plain", dtype=BF16)}
        if name != "r50_256":
            others["literal_port_tf32"] = torch_variant("literal")
        others["plain_tf32"] = torch_variant("plain")
        return others
    if group == "ablations":
        explained = [] if bench.compile_only else bench_choices(case, device)
        found = ablations(explained, device)
        captured = {key: functools.partial(Captured, case, device, **options) for key, options in found.items()}
        return {"without_graph": torch_variant("ours", dtype=BF16), **captured}
    if group == "jax":
        return {"jax": jax(True, "bfloat16")}
    if group == "jax_reference":
        bf16 = {"jax_reference_bf16": jax(False, "bfloat16")}
        return bf16 if name == "r50_256" else {"jax_reference": jax(False, "float32"), **bf16}
    # Without the autotuned mode's own CUDA graphs nothing changes here: reduce-overhead is the row with them.
    mode = "reduce-overhead" if group == "compiled" else "max-autotune-no-cudagraphs"
    options = {"backend": "eager"} if bench.dry else {"mode": mode}
    return {group: torch_variant("compiled", dtype=BF16, compile_options=options)}


def bench_choices(case: StepCase, device: str) -> list[dispatch.Choice]:
    """What the dispatcher chose in one update of ours."""
    dispatch.clear()
    learner = make_learner(case, device, encoder_dtype=BF16)
    learner.update(make_batch(case, device), 1)
    return dispatch.explain()


def _timed(bench: Bench, variant: Variant) -> Callable[[], Any]:
    if isinstance(variant, JaxVariant):
        return variant.step
    return bench.timed(variant.step, count=COUNT, cold=False)


def _utilisation(bench: Bench, case: StepCase) -> dict[str, Any]:
    """FLOPs of nine encoder forwards (with backwards), for the share of the measured matrix-product peak."""
    tflop = count_gflop(case, "plain") / 1e3
    return {"tflop": round(tflop, 3), "dry": bench.dry, **{key: round(v, 1) for key, v in bench.peaks.items()}}


def _memory(bench: Bench) -> float | None:
    return None if bench.dry else round(torch.cuda.max_memory_allocated() / 1e9, 2)
