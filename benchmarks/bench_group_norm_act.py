"""group_norm_act against PyTorch's own GroupNorm, add and ReLU, on channels_last float32, forward and with backward."""

from __future__ import annotations

import pytest
import torch

from benchmarks.harness import compare, memory_bandwidth
from ptr_fast import native
from ptr_fast.kernels.group_norm_act import native as ours
from ptr_fast.kernels.group_norm_act import reference

# (B, C, H=W) at 64x64 frames: the layers of conv3 at batch 64, of resnet_small at 64, of ResNet-18 at 8
SHAPES = {
    "conv3_1": (64, 16, 32),
    "conv3_2": (64, 32, 16),
    "resnet_small_stem": (64, 64, 32),
    "resnet_small_2": (64, 128, 8),
    "resnet18_stem": (8, 64, 32),
    "resnet18_1": (8, 64, 16),
    "resnet18_2": (8, 128, 8),
    "resnet18_128px_2": (8, 128, 16),
    "resnet18_128px_4": (8, 512, 16),
}
GROUPS = 4


@pytest.mark.skipif(native.module() is None, reason="there is no native module to measure")
@pytest.mark.parametrize("residual", [False, True], ids=["plain", "residual"])
@pytest.mark.parametrize("shape", SHAPES.values(), ids=SHAPES.keys())
def test_group_norm_act(shape: tuple[int, int, int], residual: bool, request: pytest.FixtureRequest) -> None:
    B, C, H = shape
    generator = torch.Generator().manual_seed(0)

    def images() -> torch.Tensor:
        return torch.randn(B, C, H, H, generator=generator).contiguous(memory_format=torch.channels_last)

    x, dy = images().requires_grad_(), images()
    weight = torch.randn(C, generator=generator).requires_grad_()
    bias = torch.randn(C, generator=generator).requires_grad_()
    branch = images().requires_grad_() if residual else None
    leaves = [leaf for leaf in (x, weight, bias, branch) if leaf is not None]

    def forward(op) -> torch.Tensor:
        return op.group_norm_act(x, weight, bias, GROUPS, 1e-5, branch, "relu")

    def forward_backward(op) -> list[torch.Tensor]:
        y = forward(op)
        return [y.detach(), *torch.autograd.grad(y, leaves, dy)]

    def no_grad(op) -> torch.Tensor:
        with torch.no_grad():
            return forward(op)

    def gate() -> None:
        for a, b in zip(forward_backward(ours), forward_backward(reference), strict=True):
            # A few elements within rounding of 0 may pass the activation in one and not in the other.
            bad = ((a - b).abs() > 1e-4 + 1e-3 * b.abs()).double().mean().item()
            assert bad <= 1e-4 if a.numel() > 10_000 else bad <= 0.1, bad

    case = f"{request.node.callspec.id} {B}x{C}x{H}x{H}"
    size = B * C * H * H * 4
    # Tensors that have to be touched: x, y and the branch forward; x, dy, dx, y and the branch's gradient backward.
    for mode, run, streams in (
        ("forward", no_grad, 2 + residual),
        ("forward+backward", forward_backward, 5 + 3 * residual),
    ):
        row = compare(
            "group_norm_act",
            f"{case} {mode}",
            {"native": lambda run=run: run(ours), "torch": lambda run=run: run(reference)},
            gate,
            num_rounds=25,
            floor_ms=round(streams * size / memory_bandwidth(size) / 1e6, 4),
        )
        assert row["variants"]["native"]["median_ms"] > 0
