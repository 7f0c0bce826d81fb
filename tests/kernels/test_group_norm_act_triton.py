"""group_norm_act by Triton: outputs and all gradients against float64; interpreted on the CPU where there is no GPU.

Errors are at most twice those of plain PyTorch in float32; in bfloat16 at most one unit in the last place (the
interpreter truncates where a GPU rounds).
"""

from __future__ import annotations

import pytest
import torch

pytest.importorskip("triton")

from ptr_fast.kernels import dispatch
from ptr_fast.kernels.group_norm_act import group_norm_act, reference

pytestmark = pytest.mark.triton

LAST = torch.channels_last
NO_GPU = not torch.cuda.is_available()
DEVICES = [  # interpreted only where there is no GPU
    pytest.param("cpu", marks=pytest.mark.skipif(not NO_GPU, reason="the GPU runs the same tests")),
    pytest.param("cuda", marks=[pytest.mark.cuda, pytest.mark.skipif(NO_GPU, reason="no GPU")]),
]
MODES = ["plain", "residual", "two_norms"]

# (B, C, H, W, groups), with the reason for the shape
SHAPES = {
    "resnet_stage": (2, 128, 8, 8, 4),
    "narrow_groups_share_a_block": (2, 64, 4, 8, 4),
    "batch_one_odd_everything": (1, 15, 7, 5, 3),
    "one_channel_per_group": (2, 8, 4, 6, 8),
    "three_groups_in_a_block_of_four": (2, 12, 3, 3, 3),
    "one_group_of_24": (2, 24, 5, 5, 1),
    "one_pixel": (3, 32, 1, 1, 4),
    "wide_group_read_twice": (1, 33, 17, 33, 1),
    "narrow_group_read_twice": (1, 4, 91, 91, 2),
}


def tensors(shape: tuple[int, ...], dtype: torch.dtype, mode: str, device: str, *, mean: float = 1.0) -> dict:
    B, C, H, W, _ = shape
    generator = torch.Generator().manual_seed(0)

    def image(offset: float = 0.0) -> torch.Tensor:
        values = torch.randn(B, C, H, W, generator=generator) * 2 + offset
        return values.to(device=device, dtype=dtype).contiguous(memory_format=LAST)

    def channels() -> torch.Tensor:
        return torch.randn(C, generator=generator).to(device)

    given = {"x": image(mean), "weight": channels(), "bias": channels(), "dy": image()}
    if mode != "plain":
        given["residual"] = image()
    if mode == "two_norms":
        given |= {"residual_weight": channels(), "residual_bias": channels()}
    return given


def run(op, given: dict[str, torch.Tensor], groups: int, activation: str) -> dict[str, torch.Tensor]:
    """y and the gradient of every input."""
    leaves = {name: given[name].detach().clone().requires_grad_() for name in given if name != "dy"}
    y = op(
        leaves["x"], leaves["weight"], leaves["bias"], groups, 1e-5, leaves.get("residual"), activation,
        leaves.get("residual_weight"), leaves.get("residual_bias"),
    )  # fmt: skip
    gradients = torch.autograd.grad(y, list(leaves.values()), given["dy"])
    return {"y": y.detach(), **{f"d{name}": g for name, g in zip(leaves, gradients, strict=True)}}


def by_triton(*args):
    with dispatch.use_backend("group_norm_act=triton"):
        return group_norm_act(*args)


def check_parity(given: dict[str, torch.Tensor], groups: int, activation: str) -> None:
    exact = run(reference.group_norm_act, {k: v.double() for k, v in given.items()}, groups, activation)
    plain = run(reference.group_norm_act, {k: v.float() for k, v in given.items()}, groups, activation)
    ours = run(by_triton, given, groups, activation)
    for name, wanted in exact.items():
        assert ours[name].dtype == (given["x"].dtype if ours[name].ndim == 4 else torch.float32)
        scale = wanted.abs().max().item() + 1e-30
        error = (ours[name].double() - wanted).abs()
        torch_error = (plain[name].double() - wanted).abs().max().item()
        allowed = max(2 * torch_error, 1e-6 * scale)
        if ours[name].dtype == torch.bfloat16:
            allowed = allowed + wanted.abs() * 2**-7
        assert (error <= allowed).all(), f"{name}: error {error.max():.2e}, PyTorch's {torch_error:.2e}"


@pytest.fixture
def nan_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    """New tensors are full of NaN: an element that no kernel writes shows."""
    for owner, name in ((torch, "empty_like"), (torch.Tensor, "new_empty")):
        original = getattr(owner, name)

        def filled(*args, _original=original, **options):
            return _original(*args, **options).fill_(float("nan"))

        monkeypatch.setattr(owner, name, filled)


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("shape", SHAPES.values(), ids=SHAPES.keys())
def test_parity(shape, mode, device, nan_memory) -> None:
    check_parity(tensors(shape, torch.float32, mode, device), shape[-1], "relu")


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("name", ["narrow_groups_share_a_block", "batch_one_odd_everything", "wide_group_read_twice"])
def test_parity_bfloat16(name, mode, device, nan_memory) -> None:
    check_parity(tensors(SHAPES[name], torch.bfloat16, mode, device), SHAPES[name][-1], "relu")


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("name", ["three_groups_in_a_block_of_four", "wide_group_read_twice"])
def test_without_activation(name, mode, device, nan_memory) -> None:
    check_parity(tensors(SHAPES[name], torch.float32, mode, device), SHAPES[name][-1], "none")


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("mean", [100.0, 10000.0])
@pytest.mark.parametrize("name", ["narrow_groups_share_a_block", "wide_group_read_twice"])
def test_mean_far_from_zero(name, mean, device) -> None:
    check_parity(tensors(SHAPES[name], torch.float32, "plain", device, mean=mean), SHAPES[name][-1], "none")


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("name", ["narrow_groups_share_a_block", "wide_group_read_twice"])
def test_same_bits_again(name, mode, device) -> None:
    given = tensors(SHAPES[name], torch.bfloat16, mode, device)
    first, again = (run(by_triton, given, SHAPES[name][-1], "relu") for _ in range(2))
    for key in first:
        assert torch.equal(first[key], again[key]), key


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("mode", MODES)
def test_nan_stays_nan(mode, device) -> None:
    given = tensors((2, 8, 4, 4, 2), torch.float32, mode, device)
    given["residual" if mode == "two_norms" else "x"][1, 0, 0, 0] = float("nan")
    y = run(by_triton, given, 2, "relu")["y"]
    assert torch.isfinite(y[0]).all()
    assert torch.isnan(y[1, :4]).all()
    assert torch.isfinite(y[1, 4:]).all()


@pytest.mark.parametrize("device", DEVICES)
def test_misaligned_and_strided_tensors_are_right(device) -> None:
    shape = (2, 8, 4, 6, 2)
    given = tensors(shape, torch.float32, "residual", device)
    wanted = run(by_triton, given, 2, "relu")
    room = torch.empty(given["x"].numel() + 1, device=device)
    misaligned = room[1:].view(2, 4, 6, 8).permute(0, 3, 1, 2).copy_(given["x"])
    assert misaligned.data_ptr() % 16 != 0
    assert misaligned.is_contiguous(memory_format=LAST)
    leaf = misaligned.requires_grad_()
    planar, expanded = given["residual"].contiguous(), given["dy"].contiguous()
    weight = torch.stack([given["weight"]] * 2, dim=1)[:, 0]  # stride 2
    y = by_triton(leaf, weight, given["bias"], 2, 1e-5, planar, "relu")
    (dx,) = torch.autograd.grad(y, leaf, expanded)
    assert torch.equal(y, wanted["y"])
    assert torch.equal(dx, wanted["dx"])
    assert dx.is_contiguous(memory_format=LAST)


@pytest.mark.parametrize("device", DEVICES)
def test_gradient_of_a_sum(device) -> None:
    given = tensors((2, 8, 4, 6, 2), torch.float32, "plain", device)
    grads = []
    for op in (by_triton, reference.group_norm_act):
        x = given["x"].clone().requires_grad_()
        grads += torch.autograd.grad(op(x, given["weight"], given["bias"], 2, 1e-5, None, "relu").sum(), x)
    assert torch.allclose(*grads, atol=1e-5)


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"x": torch.zeros(2, 8, 4, 4)}, "for channels_last"),
        ({"x": torch.zeros(2, 8, 4, 4, dtype=torch.float64).contiguous(memory_format=LAST)}, "x is float64"),
        ({"residual": torch.zeros(2, 8, 4, 4, dtype=torch.bfloat16)}, "the residual is bfloat16, x is float32"),
        ({"weight": torch.zeros(8, dtype=torch.bfloat16)}, "want float32"),
        ({"x": torch.zeros(0, 8, 4, 4).contiguous(memory_format=LAST), "residual": None}, "x is empty"),
    ],
)
def test_refused_with_a_reason(change, reason) -> None:
    given = {
        "x": torch.zeros(2, 8, 4, 4).contiguous(memory_format=LAST),
        "weight": torch.zeros(8),
        "bias": torch.zeros(8),
        "residual": torch.zeros(2, 8, 4, 4),
    } | change
    with pytest.raises(RuntimeError, match=reason if not torch.cuda.is_available() else ""):
        by_triton(given["x"], given["weight"], given["bias"], 2, 1e-5, given["residual"])


def test_cpu_tensors_are_interpreted_only_where_that_is_forced() -> None:
    given = tensors((1, 8, 2, 2, 2), torch.float32, "plain", "cpu")
    chosen = dispatch.explain("group_norm_act", given["x"], given["weight"], given["bias"], 2, 1e-5, None, "relu")
    assert chosen[0].backend.name != "triton"
    assert "on the CPU" in chosen[0].reasons["triton"]


@pytest.mark.parametrize("device", DEVICES)
def test_second_derivative_is_refused(device) -> None:
    given = tensors((1, 4, 4, 4, 2), torch.float32, "plain", device)
    x = given["x"].requires_grad_()
    y = by_triton(x, given["weight"], given["bias"], 2, 1e-5, None, "relu")
    with pytest.raises(RuntimeError, match="no second derivative"):
        torch.autograd.grad(y.sum(), x, create_graph=True)


@pytest.mark.parametrize("device", DEVICES)
def test_gradients_share_no_memory(device) -> None:
    found = run(by_triton, tensors((2, 8, 4, 4, 2), torch.float32, "two_norms", device), 2, "relu")
    pointers = [tensor.data_ptr() for tensor in found.values()]
    assert len(set(pointers)) == len(pointers)
