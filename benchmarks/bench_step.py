"""One gradient step of CQL: ours, ours on the plain kernels, and the literal port of the published step.

``python -m benchmarks.bench_step [conv3 resnet_small resnet18]`` measures step time (interleaved), floating-point
operations (counted) and the peak memory of a fresh process, all at 64x64 frames and one thread.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from torch.utils.flop_counter import FlopCounterMode

from benchmarks.harness import compare
from benchmarks.peers.literal_port import LiteralPort
from ptr_fast import native
from ptr_fast.config import CqlConfig, EncoderConfig, PolicySpec, TaskTable
from ptr_fast.kernels import dispatch
from ptr_fast.learners import CqlLearner
from ptr_fast.types import ActionSpec, Batch, CameraSpec, StateSpec

SIZE = 64
CASES = {  # batch size, filters, rounds
    "conv3": (64, 16, 9),
    "resnet_small": (64, 64, 5),
    "resnet18": (8, 64, 5),
}
VARIANTS = ("ours", "ours_plain_kernels", "literal_port")


def make_learner(encoder: str) -> CqlLearner:
    names, units = tuple("xyzrpyg"), ("1",) * 7
    spec = PolicySpec(
        camera=CameraSpec(name="image_0", height=SIZE, width=SIZE),
        state=StateSpec(names=names, units=units),
        action=ActionSpec(names=names, units=units, low=(-1.0,) * 7, high=(1.0,) * 7),
        tasks=TaskTable(names=("bench",), num_slots=16),
        control_hz=5.0,
    )
    config = CqlConfig(encoder=EncoderConfig(name=encoder, num_filters=CASES[encoder][1]))
    return CqlLearner(config, spec, seed=0)


def make_batch(size: int) -> Batch:
    rng = np.random.default_rng(0)

    def images() -> torch.Tensor:
        return torch.from_numpy(rng.integers(0, 256, (size, SIZE, SIZE, 3), dtype=np.uint8))

    def normal(*shape: int) -> torch.Tensor:
        return torch.from_numpy(rng.normal(size=shape).astype(np.float32))

    return Batch(
        images=images(),
        next_images=images(),
        state=normal(size, 7),
        next_state=normal(size, 7),
        task_id=torch.zeros(size, dtype=torch.int64),
        actions=normal(size, 7).clamp(-0.99, 0.99),
        rewards=-torch.ones(size),
        masks=torch.ones(size),
    )


def make_step(variant: str, encoder: str) -> Callable[[int], torch.Tensor]:
    """A step of a fresh learner: step number -> critic loss."""
    learner, batch = make_learner(encoder), make_batch(CASES[encoder][0])
    updater = LiteralPort(learner) if variant == "literal_port" else learner

    def step(number: int) -> torch.Tensor:
        if variant == "ours":
            return updater.update_with_terms(batch, number).critic_loss
        with dispatch.use_backend("reference"):
            return updater.update_with_terms(batch, number).critic_loss

    return step


def peak_memory_mb(variant: str, encoder: str) -> float:
    """Growth of the resident set over two steps in a fresh process, MB."""
    command = [sys.executable, "-m", "benchmarks.bench_step", "--memory", variant, encoder]
    out = subprocess.run(command, check=True, capture_output=True, text=True)
    return float(out.stdout.split()[-1])


def print_memory(variant: str, encoder: str) -> None:
    step = make_step(variant, encoder)
    before = _status_mb("VmRSS")
    step(1)
    step(2)
    print(_status_mb("VmHWM") - before)


def _status_mb(field: str) -> float:
    # Not getrusage: its peak is inherited from the process that started this one.
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(field + ":"):
            return int(line.split()[1]) / 1024
    raise RuntimeError(f"/proc/self/status has no {field}")


def count_flops(step: Callable[[int], torch.Tensor]) -> int:
    with FlopCounterMode(display=False) as counter:
        step(0)
    return counter.get_total_flops()


def run(encoder: str) -> None:
    batch, _, num_rounds = CASES[encoder]
    steps = {variant: make_step(variant, encoder) for variant in VARIANTS}
    gflop = {variant: round(count_flops(step) / 1e9, 3) for variant, step in steps.items()}
    numbers = dict.fromkeys(VARIANTS, 1)

    def gate() -> None:
        losses = [float(step(1)) for step in steps.values()]
        # The same weights, batch and draws, one step done: the losses agree to float32 rounding.
        assert np.allclose(losses, losses[0], rtol=2e-3), losses

    def one(variant: str) -> torch.Tensor:
        numbers[variant] += 1
        return steps[variant](numbers[variant])

    compare(
        "step",
        f"{encoder} {SIZE}x{SIZE} batch {batch}",
        {variant: lambda variant=variant: one(variant) for variant in VARIANTS},
        gate,
        num_rounds=num_rounds,
        gflop=gflop,
        peak_memory_mb={variant: round(peak_memory_mb(variant, encoder)) for variant in VARIANTS},
        kept_memory=True,
        group_norm_act=sorted({choice.backend.name for choice in dispatch.explain("group_norm_act")}),
    )


def main(argv: list[str]) -> None:
    torch.set_num_threads(int(os.environ.get("PTR_FAST_BENCH_THREADS", "1")))
    native.keep_freed_memory()
    if argv[:1] == ["--memory"]:
        print_memory(*argv[1:])
        return
    unknown = set(argv) - set(CASES)
    if unknown:
        raise SystemExit(f"unknown encoder {sorted(unknown)}; known: {list(CASES)}")
    for encoder in argv or CASES:
        run(encoder)


if __name__ == "__main__":
    main(sys.argv[1:])
