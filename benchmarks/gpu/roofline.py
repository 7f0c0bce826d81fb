"""What the device gives: copies, matrix products, cuDNN's convolutions, PyTorch's own norm, an empty captured step.

Every estimate of the step's time hangs on these; later sections quote fractions of them.
"""

from __future__ import annotations

import time
from typing import Any

import torch
from torch.nn import functional as F

from benchmarks.gpu.timing import Bench
from benchmarks.harness import environment, record

__all__ = ["CONVOLUTIONS", "run"]

# (channels in, channels out, kernel, stride, input height and width) of ResNet-34 on 128x128 frames, stages 2 and 3
# un-strided; the stem also with its input padded to four channels, and as what it equals on 2x2 pixels at a time (12
# channels, 4x4, stride 1), there too with padded channels.
CONVOLUTIONS = (
    (3, 64, 7, 2, 128),
    (4, 64, 7, 2, 128),
    (12, 64, 4, 1, 64),
    (16, 64, 4, 1, 64),
    (64, 64, 3, 1, 32),
    (64, 128, 3, 2, 32),
    (64, 128, 1, 2, 32),
    (128, 128, 3, 1, 16),
    (128, 256, 3, 1, 16),
    (128, 256, 1, 1, 16),
    (256, 256, 3, 1, 16),
    (256, 512, 3, 1, 16),
    (256, 512, 1, 1, 16),
    (512, 512, 3, 1, 16),
)
NORMS = ((64, 64), (64, 32), (128, 16), (256, 16), (512, 16))  # channels, height and width


def run(bench: Bench) -> None:
    """All rows of ``gpu_roofline``; leaves the peaks in ``bench.peaks``."""
    bench.attempt("gpu_roofline", "copy and matrix product", lambda: peaks(bench))
    bench.attempt("gpu_roofline", "empty captured step", lambda: empty_step(bench))
    for num_batch in (2,) if bench.dry else (64, 256):
        for shape in CONVOLUTIONS[::6] if bench.dry else CONVOLUTIONS:
            bench.attempt(
                "gpu_roofline", f"conv {shape} batch {num_batch}", lambda s=shape, b=num_batch: conv(bench, s, b)
            )
        for shape in NORMS[:1] if bench.dry else NORMS:
            bench.attempt(
                "gpu_roofline", f"torch norm {shape} batch {num_batch}", lambda s=shape, b=num_batch: norm(bench, s, b)
            )


def peaks(bench: Bench) -> None:
    """Copy bandwidth (bytes read and written) and the bf16 rate of a large matrix product on random data."""
    num_bytes, size = (2**20, 64) if bench.dry else (2**30, 8192)
    source = torch.ones(num_bytes // 4, device=bench.device)
    target = torch.empty_like(source)
    copy_ms = bench.median_ms(lambda: target.copy_(source))
    a, b = (torch.randn(size, size, device=bench.device, dtype=torch.bfloat16) for _ in range(2))
    product_ms = bench.median_ms(lambda: a @ b)
    bench.peaks["copy_gb_s"] = 2 * num_bytes / copy_ms / 1e6
    bench.peaks["bf16_tflop_s"] = 2 * size**3 / product_ms / 1e9
    _row("copy and matrix product", {key: round(value, 2) for key, value in bench.peaks.items()})


def conv(bench: Bench, shape: tuple[int, int, int, int, int], num_batch: int) -> None:
    """Forward, gradient of the input and gradient of the weight of one convolution, bf16 channels_last."""
    num_in, num_out, kernel, stride, size = shape
    size = size // 8 if bench.dry else size
    last = {"device": bench.device, "dtype": torch.bfloat16}
    x = torch.randn(num_batch, num_in, size, size, **last).contiguous(memory_format=torch.channels_last)
    weight = torch.randn(num_out, num_in, kernel, kernel, **last).contiguous(memory_format=torch.channels_last)
    padding = kernel // 2
    y = F.conv2d(x, weight, None, stride, padding)
    dy = torch.randn_like(y)
    tflop = 2 * y.numel() * num_in * kernel * kernel / 1e12

    def backward(mask: list[bool]) -> Any:
        sides = ([stride] * 2, [padding] * 2, [1, 1])
        return torch.ops.aten.convolution_backward(dy, x, weight, None, *sides, False, [0, 0], 1, mask)

    works = {
        "fprop": lambda: F.conv2d(x, weight, None, stride, padding),
        "dgrad": lambda: backward([True, False, False]),
        "wgrad": lambda: backward([False, True, False]),
    }
    ms = {name: bench.median_ms(work, num_rounds=9) for name, work in works.items()}
    num_bytes = 2 * (x.numel() + y.numel() + weight.numel())
    _row(
        f"conv {num_in}->{num_out} {kernel}x{kernel}/{stride} at {size} batch {num_batch}",
        {
            "ms": {name: round(value, 4) for name, value in ms.items()},
            "tflop_s": {name: round(tflop / value * 1e3, 1) for name, value in ms.items()},
            "gb_s": {name: round(num_bytes / value / 1e6, 1) for name, value in ms.items()},
            **{key: round(value, 1) for key, value in bench.peaks.items()},
        },
    )


def norm(bench: Bench, shape: tuple[int, int], num_batch: int) -> None:
    """PyTorch's own group norm (4 groups), forward and backward, bf16 channels_last, and its share of the copy rate."""
    channels, size = shape
    size = size // 8 if bench.dry else size
    x = torch.randn(num_batch, channels, size, size, device=bench.device, dtype=torch.bfloat16)
    x = x.contiguous(memory_format=torch.channels_last).requires_grad_()
    weight, bias = (torch.ones(channels, device=bench.device, dtype=torch.bfloat16, requires_grad=True) for _ in "wb")
    y = F.group_norm(x, 4, weight, bias)
    dy = torch.randn_like(y)
    with torch.no_grad():
        forward = bench.median_ms(lambda: F.group_norm(x, 4, weight, bias))
    both = bench.median_ms(lambda: torch.autograd.grad(F.group_norm(x, 4, weight, bias), (x, weight, bias), dy))
    num_bytes, copy = 2 * x.numel(), bench.peaks.get("copy_gb_s", float("nan"))
    _row(
        f"torch group_norm {channels} at {size} batch {num_batch}",
        {
            "ms": {"forward": round(forward, 4), "forward+backward": round(both, 4)},
            "share_of_copy": {
                "forward": round(2 * num_bytes / forward / 1e6 / copy, 3),
                "forward+backward": round(5 * num_bytes / both / 1e6 / copy, 3),
            },
            "channels_last_out": y.is_contiguous(memory_format=torch.channels_last),
        },
    )


def empty_step(bench: Bench) -> None:
    """Launch cost: one tiny kernel eagerly, and a captured graph of one and of 500 of them, host and device time."""
    x = torch.zeros(1, device=bench.device)
    numbers: dict[str, float] = {"eager_us": bench.median_ms(lambda: x.add_(1), count=100, cold=False) * 1e3}
    for num_nodes in (1, 500):
        if bench.dry:
            continue
        graph = torch.cuda.CUDAGraph()
        torch.cuda.synchronize()
        with torch.cuda.graph(graph):
            for _ in range(num_nodes):
                x.add_(1)
        numbers[f"graph_of_{num_nodes}_us"] = bench.median_ms(graph.replay, cold=False) * 1e3
        begin = time.perf_counter()
        for _ in range(50):
            graph.replay()
        numbers[f"graph_of_{num_nodes}_host_us"] = (time.perf_counter() - begin) * 1e6 / 50
        torch.cuda.synchronize()
    _row("empty captured step", {key: round(value, 2) for key, value in numbers.items()})


def _row(case: str, fields: dict[str, Any]) -> None:
    record({"name": "gpu_roofline", "case": case, **fields, "environment": environment()})
