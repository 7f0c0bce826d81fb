"""spatial_embedding on channels_last float32: ours against a matrix product per channel, forward and with backward."""

from __future__ import annotations

import pytest
import torch

from benchmarks.harness import compare, memory_bandwidth, one_thread_clock
from ptr_fast import native
from ptr_fast.kernels.spatial_embedding import batched
from ptr_fast.kernels.spatial_embedding import native as ours

# (B, C, H=W, F): the maps of conv3 and of ResNet-18 at 64x64, of ResNet-34 at 128x128
SHAPES = {"conv3": (64, 32, 16, 8), "resnet18": (8, 512, 8, 8), "resnet34_128px": (8, 512, 16, 8)}


@pytest.mark.skipif(native.module() is None, reason="there is no native module to measure")
@pytest.mark.parametrize("name", SHAPES)
def test_spatial_embedding(name: str) -> None:
    B, C, H, F = SHAPES[name]
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(B, C, H, H, generator=generator).contiguous(memory_format=torch.channels_last).requires_grad_()
    kernel = torch.randn(C, H * H, F, generator=generator).requires_grad_()
    dout = torch.randn(B, C * F, generator=generator)

    def forward(op) -> torch.Tensor:
        with torch.no_grad():
            return op.spatial_embedding(x, kernel)

    def forward_backward(op) -> list[torch.Tensor]:
        out = op.spatial_embedding(x, kernel)
        return [out.detach(), *torch.autograd.grad(out, (x, kernel), dout)]

    def gate() -> None:
        for a, b in zip(forward_backward(ours), forward_backward(batched), strict=True):
            torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-3)

    x_bytes, kernel_bytes = 4 * x.numel(), 4 * kernel.numel()
    # Forward reads x and kernel; backward reads both again and writes a gradient of each.
    for mode, run, num_bytes in (
        ("forward", forward, x_bytes + kernel_bytes),
        ("forward+backward", forward_backward, 4 * (x_bytes + kernel_bytes)),
    ):
        compare(
            "spatial_embedding",
            f"{name} {B}x{C}x{H}x{H}, {F} features, {mode}",
            {"native": lambda run=run: run(ours), "batched_matmul": lambda run=run: run(batched)},
            gate,
            clock=one_thread_clock(),
            num_rounds=25,
            floor_ms=round(num_bytes / memory_bandwidth(x_bytes) / 1e6, 4),
        )
