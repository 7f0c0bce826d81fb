"""counter_random by csrc/kernels/counter_random: CPU."""

from __future__ import annotations

import torch
from torch.utils.dlpack import to_dlpack

from ptr_fast import native

__all__ = ["counter_random", "supports"]

_KINDS = {"bits": 0, "uniform": 1, "normal": 2}


def supports(device: torch.device) -> str | None:
    """None where the native kernel can run, else why not."""
    if native.module() is None:
        return native.why_missing()
    if device.type != "cpu":
        return f"numbers are wanted on {device.type}, the native kernel is for the CPU"
    return None


def counter_random(
    kind: str,
    seed: int,
    stream: int,
    step: int | torch.Tensor,
    samples_B: torch.Tensor | range,
    num_words: int,
    device: torch.device,
) -> torch.Tensor:
    out = torch.empty((len(samples_B), num_words), dtype=torch.int64 if kind == "bits" else torch.float32)
    first, stride, samples = 0, 1, None
    if isinstance(samples_B, range):
        first, stride = samples_B.start, samples_B.step
    else:
        samples = to_dlpack(samples_B.contiguous())
    native.require().counter_random(_KINDS[kind], seed, stream, int(step), samples, first, stride, to_dlpack(out))
    return out
