"""One action from one frame: ours replayed from a CUDA graph and eager; plain PyTorch, eager and ``torch.compile``."""

from __future__ import annotations

from typing import Any

import torch
from torch.nn import functional as F

from benchmarks.cases import StepCase, make_batch, make_learner
from benchmarks.gpu.timing import Bench
from benchmarks.harness import compare
from benchmarks.peers.plain_step import PlainStep
from ptr_fast.kernels.augment import augment

__all__ = ["run"]


def run(bench: Bench) -> None:
    """All rows of ``gpu_act``."""
    for encoder in ("resnet_small",) if bench.dry else ("resnet34", "resnet50"):
        bench.attempt("gpu_act", encoder, lambda e=encoder: row(bench, e))


def row(bench: Bench, encoder: str) -> dict[str, Any]:
    """The row of one encoder; 128x128 frames, bfloat16 trunk."""
    bench.need(30)
    small = {"image_size": 32, "num_filters": 8} if bench.dry else {"image_size": 128}
    case = StepCase(encoder=encoder, num_batch=1, **small)
    learner, batch = make_learner(case, bench.device, encoder_dtype=torch.bfloat16), make_batch(case, bench.device)
    actor = learner.actor.eval()

    @torch.no_grad()
    def act() -> torch.Tensor:
        images = augment(batch.images, None, torch.bfloat16)
        return actor.mean_action(images, batch.state, batch.task_id)

    step = PlainStep(learner, torch.bfloat16)

    @torch.no_grad()
    def plain() -> torch.Tensor:
        images = batch.images.to(torch.bfloat16).permute(0, 3, 1, 2) / 255.0
        task = F.one_hot(batch.task_id, learner.spec.tasks.num_slots).float()
        embedding = step.nets.encode(step.weights, "actor", images)
        return step.nets.policy(step.weights, embedding, batch.state, task)[0].tanh()

    variants: dict[str, Any] = {}
    if not bench.dry:
        stream = torch.cuda.Stream()
        with torch.cuda.stream(stream):
            for _ in range(3):
                act()
        torch.cuda.synchronize()
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph, stream=stream):
            replayed = act()

        def replay() -> torch.Tensor:
            graph.replay()
            return replayed

        variants["graph"] = replay
    variants |= {"eager": act, "plain": plain}
    why_not: dict[str, str] = {}
    torch.compiler.reset()
    compiled = torch.compile(plain, **({"backend": "eager"} if bench.dry else {"mode": "reduce-overhead"}))
    try:
        for _ in range(3):
            compiled()
        variants["compiled"] = compiled
    except Exception as error:
        if bench.dry:
            raise
        why_not["compiled"] = f"{type(error).__name__}: {error}"[:500]  # the others have their row

    def gate() -> dict[str, Any]:
        wanted = act().clone()
        for name, variant in variants.items():
            difference = float((variant() - wanted).abs().max())
            assert difference < 2e-2, f"{name} is {difference:.3f} away"
        return {"not_run": why_not}

    timed = {name: bench.timed(variant, count=1, cold=False) for name, variant in variants.items()}
    return compare("gpu_act", f"{encoder} 128x128 batch 1", timed, gate, num_rounds=bench.rounds(101), dry=bench.dry)
