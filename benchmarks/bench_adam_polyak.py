"""Adam and the average of the weights in one pass, against PyTorch's fused Adam followed by its foreach lerp.

Also with decay and clipping, against its ``clip_grad_norm_``, fused AdamW and lerp.
"""

from __future__ import annotations

import copy
import statistics
import time

import pytest
import torch

from benchmarks.harness import compare, one_thread_clock
from ptr_fast import native
from ptr_fast.config import CqlConfig, EncoderConfig, PolicySpec, TaskTable
from ptr_fast.learners.cql.networks import make_critic
from ptr_fast.learners.optimizer import AdamPolyak
from ptr_fast.nets import Temperature
from ptr_fast.types import ActionSpec, CameraSpec, StateSpec

TAU = 0.005


def critic(encoder: str) -> torch.nn.Module:
    names, units = tuple("xyzrpyg"), ("1",) * 7
    spec = PolicySpec(
        cameras=(CameraSpec(name="image_0", height=64, width=64),),
        state=StateSpec(names=names, units=units),
        action=ActionSpec(names=names, units=units, low=(-1.0,) * 7, high=(1.0,) * 7),
        tasks=TaskTable(names=("bench",), num_slots=16),
        control_hz=5.0,
    )
    filters = 16 if encoder == "conv3" else 64
    return make_critic(CqlConfig(encoder=EncoderConfig(name=encoder, num_filters=filters)), spec)


def in_place_bandwidth(count: int) -> float:
    """GB/s of ``x += y``; a copy is a worse measure, its target is read into the cache before it is written."""
    x, y = torch.ones(2, count)
    seconds = []
    for _ in range(15):
        begin = time.perf_counter()
        x += y
        seconds.append(time.perf_counter() - begin)
    return 12 * count / statistics.median(seconds) / 1e9


@pytest.mark.skipif(native.module() is None, reason="there is no native module to measure")
@pytest.mark.parametrize("name", ["temperature", "conv3", "resnet18", "resnet34"])
@pytest.mark.parametrize("options", [{}, {"weight_decay": 0.01, "max_grad_norm": 1.0}], ids=["plain", "regularised"])
def test_adam_polyak(name: str, options: dict[str, float]) -> None:
    net: torch.nn.Module = Temperature(1.0) if name == "temperature" else critic(name)
    theirs = copy.deepcopy(net)
    average, their_average = (copy.deepcopy(n).requires_grad_(False) for n in (net, theirs))
    generator = torch.Generator().manual_seed(0)
    for mine, other in zip(net.parameters(), theirs.parameters(), strict=True):
        mine.grad = torch.empty_like(mine).normal_(generator=generator)
        other.grad = mine.grad.clone() if options else mine.grad  # theirs are scaled in place
    ours = AdamPolyak(list(net.parameters()), 1e-4, list(average.parameters()), TAU, **options)
    kind = torch.optim.AdamW if options else torch.optim.Adam
    adam = kind(theirs.parameters(), lr=1e-4, weight_decay=options.get("weight_decay", 0.0), fused=True)
    averaged, current = list(their_average.parameters()), [p.detach() for p in theirs.parameters()]

    def torch_step() -> None:
        if options:
            torch.nn.utils.clip_grad_norm_(theirs.parameters(), options["max_grad_norm"])
        adam.step()
        with torch.no_grad():
            torch._foreach_lerp_(averaged, current, TAU)

    def gate() -> None:
        for _ in range(3):
            ours.step()
            torch_step()
        for mine, other in ((net, theirs), (average, their_average)):
            for a, b in zip(mine.parameters(), other.parameters(), strict=True):
                torch.testing.assert_close(a, b, rtol=1e-5, atol=1e-6)

    count = sum(p.numel() for p in net.parameters())
    compare(
        "adam_polyak",
        f"{name}: {len(current)} tensors, {count:,} parameters" + (", decay and clipping" if options else ""),
        {"native": ours.step, f"torch_{'clip_fused_adamw' if options else 'fused_adam'}_then_lerp": torch_step},
        gate,
        clock=one_thread_clock(),
        num_rounds=15,
        # Read parameter, gradient, both moments and average, write all but the gradient.
        floor_ms=round(36 * count / in_place_bandwidth(count) / 1e6, 4),
    )
