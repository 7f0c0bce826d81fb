"""group_norm_act and group_norm_act_pool against PyTorch on channels_last float32, forward and with backward.

``torch`` is the plain formulation (the reference), ``torch_in_place`` the fastest one that autograd allows: the sum and
the ReLU in place.
"""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F

from benchmarks.harness import compare, memory_bandwidth, one_thread_clock
from ptr_fast import native
from ptr_fast.kernels.group_norm_act import native as ours
from ptr_fast.kernels.group_norm_act import reference
from ptr_fast.kernels.group_norm_act_pool import native as ours_pool
from ptr_fast.kernels.group_norm_act_pool import reference as reference_pool

# (B, C, H=W): the layers of conv3 at batch 64, of resnet_small at 64, of ResNet-18 at 8; 64x64 frames unless said
SHAPES = {
    "conv3_1": (64, 16, 32),
    "conv3_2": (64, 32, 16),
    "resnet_small_1": (64, 64, 16),
    "resnet_small_2": (64, 128, 8),
    "resnet_small_4": (64, 512, 8),
    "resnet18_1": (8, 64, 16),
    "resnet18_2": (8, 128, 8),
    "resnet18_4": (8, 512, 8),
    "resnet18_128px_1": (8, 64, 32),
    "resnet18_128px_2": (8, 128, 16),
    "resnet18_128px_4": (8, 512, 16),
}
STEMS = {
    "resnet_small": (64, 64, 32),
    "resnet18": (8, 64, 32),
    "resnet18_128px": (8, 64, 64),
}
GROUPS, EPS = 4, 1e-5
needs_native = pytest.mark.skipif(native.module() is None, reason="there is no native module to measure")


def torch_in_place(
    x: torch.Tensor,
    weight: torch.Tensor,
    bias: torch.Tensor,
    num_groups: int,
    eps: float,
    residual: torch.Tensor | None,
    activation: str,
    residual_weight: torch.Tensor | None = None,
    residual_bias: torch.Tensor | None = None,
) -> torch.Tensor:
    y = F.group_norm(x, num_groups, weight, bias, eps)
    if residual_weight is not None:
        assert residual is not None
        residual = F.group_norm(residual, num_groups, residual_weight, residual_bias, eps)
    if residual is not None:
        y = y.add_(residual)
    return y.relu_()


def torch_pool_in_place(
    x: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor, num_groups: int, eps: float
) -> torch.Tensor:
    return reference_pool.same_max_pool(F.group_norm(x, num_groups, weight, bias, eps).relu_())


def images(generator: torch.Generator, *shape: int) -> torch.Tensor:
    return torch.randn(*shape, generator=generator).contiguous(memory_format=torch.channels_last)


def measure(
    name: str,
    case: str,
    ops: dict[str, Callable[..., torch.Tensor]],
    inputs: list[torch.Tensor],
    arguments: tuple,
    dy: torch.Tensor,
    bytes_touched: tuple[int, int],
) -> None:
    """Two rows of ``op(*arguments)``: forward alone, and with the gradients of ``inputs``."""

    def forward_backward(op: Callable[..., torch.Tensor]) -> list[torch.Tensor]:
        y = op(*arguments)
        return [y.detach(), *torch.autograd.grad(y, inputs, dy)]

    def no_grad(op: Callable[..., torch.Tensor]) -> torch.Tensor:
        with torch.no_grad():
            return op(*arguments)

    def gate() -> None:
        for a, b in zip(forward_backward(ops["native"]), forward_backward(ops["torch"]), strict=True):
            # A few elements within rounding of 0 may pass the activation in one and not in the other.
            bad = ((a - b).abs() > 1e-4 + 1e-3 * b.abs()).double().mean().item()
            assert bad <= 1e-4 if a.numel() > 10_000 else bad <= 0.1, bad

    for mode, run, num_bytes in zip(
        ("forward", "forward+backward"), (no_grad, forward_backward), bytes_touched, strict=True
    ):
        compare(
            name,
            f"{case} {mode}",
            {variant: lambda op=op, run=run: run(op) for variant, op in ops.items()},
            gate,
            clock=one_thread_clock(),
            num_rounds=25,
            floor_ms=round(num_bytes / memory_bandwidth(inputs[0].numel() * 4) / 1e6, 4),
        )


@needs_native
@pytest.mark.parametrize("residual", ["plain", "residual", "shortcut_norm"])
@pytest.mark.parametrize("shape", SHAPES.values(), ids=SHAPES.keys())
def test_group_norm_act(shape: tuple[int, int, int], residual: str, request: pytest.FixtureRequest) -> None:
    B, C, H = shape
    generator = torch.Generator().manual_seed(0)
    x, dy = images(generator, B, C, H, H).requires_grad_(), images(generator, B, C, H, H)
    weight, bias, branch_weight, branch_bias = torch.randn(4, C, generator=generator).unbind()
    norms = [weight.requires_grad_(), bias.requires_grad_()]
    branch = None if residual == "plain" else images(generator, B, C, H, H).requires_grad_()
    of_branch = [branch_weight.requires_grad_(), branch_bias.requires_grad_()] if residual == "shortcut_norm" else []
    # Tensors that have to be touched: x, y and the branch forward; x, dy, dx backward, the branch's gradient, and the
    # branch again for its norm.
    streams = (2, 5) if branch is None else (3, 7 + bool(of_branch))
    size = x.numel() * 4
    measure(
        "group_norm_act",
        f"{request.node.callspec.id} {B}x{C}x{H}x{H}",
        {"native": ours.group_norm_act, "torch": reference.group_norm_act, "torch_in_place": torch_in_place},
        [leaf for leaf in (x, *norms, branch, *of_branch) if leaf is not None],
        (x, *norms, GROUPS, EPS, branch, "relu", *of_branch),
        dy,
        (streams[0] * size, streams[1] * size),
    )


@needs_native
@pytest.mark.parametrize("shape", STEMS.values(), ids=STEMS.keys())
def test_group_norm_act_pool(shape: tuple[int, int, int], request: pytest.FixtureRequest) -> None:
    B, C, H = shape
    generator = torch.Generator().manual_seed(0)
    x, dy = images(generator, B, C, H, H).requires_grad_(), images(generator, B, C, H // 2, H // 2)
    weight, bias = (row.requires_grad_() for row in torch.randn(2, C, generator=generator).unbind())
    size = x.numel() * 4
    # Forward x and a quarter for y; with backward x again, dx, and a quarter each for the picked x (twice) and dy.
    measure(
        "group_norm_act_pool",
        f"{request.node.callspec.id} {B}x{C}x{H}x{H}",
        {
            "native": ours_pool.group_norm_act_pool,
            "torch": reference_pool.group_norm_act_pool,
            "torch_in_place": torch_pool_in_place,
        },
        [x, weight, bias],
        (x, weight, bias, GROUPS, EPS),
        dy,
        (5 * size // 4, 4 * size),
    )
