"""group_norm_act_pool by Triton: outputs and all gradients against float64; interpreted where there is no GPU."""

from __future__ import annotations

import pytest
import torch

pytest.importorskip("triton")

from ptr_fast.kernels import dispatch
from ptr_fast.kernels.group_norm_act_pool import group_norm_act_pool, reference

pytestmark = pytest.mark.triton

LAST = torch.channels_last
NO_GPU = not torch.cuda.is_available()
DEVICES = [  # interpreted only where there is no GPU
    pytest.param("cpu", marks=pytest.mark.skipif(not NO_GPU, reason="the GPU runs the same tests")),
    pytest.param("cuda", marks=[pytest.mark.cuda, pytest.mark.skipif(NO_GPU, reason="no GPU")]),
]

# (B, C, H, W, groups), with the reason for the shape
SHAPES = {
    "even_two_groups_a_block": (2, 64, 8, 8, 4),
    "odd": (1, 15, 7, 5, 3),
    "odd_height_even_width": (2, 8, 5, 6, 2),
    "one_channel_per_group": (2, 8, 4, 6, 8),
    "three_groups_in_a_block_of_four": (1, 12, 3, 3, 3),
    "one_pixel": (3, 32, 1, 1, 4),
    "one_row": (1, 16, 1, 9, 4),
    "several_tiles_and_a_tail": (1, 128, 20, 22, 2),
}


def tensors(shape: tuple[int, ...], dtype: torch.dtype, device: str, *, mean: float = 1.0) -> dict[str, torch.Tensor]:
    B, C, H, W, _ = shape
    generator = torch.Generator().manual_seed(0)

    def image(height: int, width: int, offset: float) -> torch.Tensor:
        values = torch.randn(B, C, height, width, generator=generator) * 2 + offset
        return values.to(device=device, dtype=dtype).contiguous(memory_format=LAST)

    def channels() -> torch.Tensor:
        return torch.randn(C, generator=generator).to(device)

    dy = image(-(-H // 2), -(-W // 2), 0.0)
    return {"x": image(H, W, mean), "weight": channels(), "bias": channels(), "dy": dy}


def run(op, given: dict[str, torch.Tensor], groups: int) -> dict[str, torch.Tensor]:
    """y and the gradients of x, weight and bias."""
    leaves = {name: given[name].detach().clone().requires_grad_() for name in given if name != "dy"}
    y = op(leaves["x"], leaves["weight"], leaves["bias"], groups, 1e-5)
    gradients = torch.autograd.grad(y, list(leaves.values()), given["dy"])
    return {"y": y.detach(), **{f"d{name}": g for name, g in zip(leaves, gradients, strict=True)}}


def by_triton(*args):
    with dispatch.use_backend("group_norm_act_pool=triton"):
        return group_norm_act_pool(*args)


def without_near_ties(given: dict[str, torch.Tensor], groups: int) -> None:
    """Sets dy to 0 in windows whose two largest values are as good as equal: rounding decides who gets the gradient."""
    z = torch.nn.functional.group_norm(
        given["x"].double(), groups, given["weight"].double(), given["bias"].double(), 1e-5
    ).relu()
    pad = (z.shape[3] % 2, 1, z.shape[2] % 2, 1)
    windows = torch.nn.functional.pad(z, pad, value=-1.0).unfold(2, 3, 2).unfold(3, 3, 2).flatten(-2)
    top = windows.topk(2).values
    near = (top[..., 0] - top[..., 1] < 1e-4) | (top[..., 0] < 1e-4)
    given["dy"][near[:, :, : given["dy"].shape[2], : given["dy"].shape[3]]] = 0.0


def check_parity(given: dict[str, torch.Tensor], groups: int) -> None:
    exact = run(reference.group_norm_act_pool, {k: v.double() for k, v in given.items()}, groups)
    plain = run(reference.group_norm_act_pool, {k: v.float() for k, v in given.items()}, groups)
    ours = run(by_triton, given, groups)
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
    """New float tensors are full of NaN, integers of 99: an element that no kernel writes shows."""
    for owner, name in ((torch, "empty"), (torch, "empty_like"), (torch.Tensor, "new_empty")):
        original = getattr(owner, name)

        def filled(*args, _original=original, **options):
            tensor = _original(*args, **options)
            return tensor.fill_(float("nan") if tensor.is_floating_point() else 99)

        monkeypatch.setattr(owner, name, filled)


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=["fp32", "bf16"])
@pytest.mark.parametrize("shape", SHAPES.values(), ids=SHAPES.keys())
def test_parity(shape, dtype, device, nan_memory) -> None:
    given = tensors(shape, dtype, device)
    without_near_ties(given, shape[-1])
    check_parity(given, shape[-1])


@pytest.mark.parametrize("device", DEVICES)
def test_mean_far_from_zero(device) -> None:
    given = tensors((2, 16, 8, 8, 4), torch.float32, device, mean=1000.0)
    without_near_ties(given, 4)
    check_parity(given, 4)


@pytest.mark.parametrize("device", DEVICES)
def test_same_bits_again(device) -> None:
    shape = SHAPES["several_tiles_and_a_tail"]
    given = tensors(shape, torch.bfloat16, device)
    first, again = (run(by_triton, given, shape[-1]) for _ in range(2))
    for name in first:
        assert torch.equal(first[name], again[name]), name


@pytest.mark.parametrize("device", DEVICES)
def test_the_first_of_equal_maxima_gets_the_gradient(device) -> None:
    given = tensors((1, 4, 6, 7, 2), torch.float32, device)
    given["x"] = given["x"].round()  # many ties
    ours, plain = run(by_triton, given, 2), run(reference.group_norm_act_pool, given, 2)
    assert torch.allclose(ours["dx"], plain["dx"], atol=1e-5)


@pytest.mark.parametrize("device", DEVICES)
def test_nothing_passes_where_all_is_negative(device) -> None:
    given = tensors((1, 4, 6, 6, 2), torch.float32, device)
    given["bias"] = torch.full_like(given["bias"], -100.0)
    found = run(by_triton, given, 2)
    assert all((found[name] == 0).all() for name in found)


@pytest.mark.parametrize("device", DEVICES)
def test_nan_stays_nan(device) -> None:
    given = tensors((2, 8, 4, 4, 2), torch.float32, device)
    given["x"][1, 0, 0, 0] = float("nan")
    y = run(by_triton, given, 2)["y"]
    assert torch.isfinite(y[0]).all()
    assert torch.isnan(y[1, :4]).all()
    assert torch.isfinite(y[1, 4:]).all()


@pytest.mark.parametrize("device", DEVICES)
def test_without_gradients_and_misaligned(device) -> None:
    given = tensors((2, 8, 4, 6, 2), torch.float32, device)
    wanted = run(by_triton, given, 2)["y"]
    room = torch.empty(given["x"].numel() + 1, device=device)
    misaligned = room[1:].view(2, 4, 6, 8).permute(0, 3, 1, 2).copy_(given["x"])
    with torch.no_grad():
        y = by_triton(misaligned, given["weight"], given["bias"], 2, 1e-5)
    assert torch.equal(y, wanted)
    assert y.is_contiguous(memory_format=LAST)


@pytest.mark.parametrize(
    ("x", "reason"),
    [
        (torch.zeros(2, 8, 4, 4), "for channels_last"),
        (torch.zeros(2, 8, 4, 4, dtype=torch.float16).contiguous(memory_format=LAST), "x is float16"),
        (torch.zeros(0, 8, 4, 4).contiguous(memory_format=LAST), "x is empty"),
    ],
)
def test_refused_with_a_reason(x, reason) -> None:
    with pytest.raises(RuntimeError, match=reason if NO_GPU else ""):
        by_triton(x, torch.zeros(8), torch.zeros(8), 2, 1e-5)


@pytest.mark.parametrize("device", DEVICES)
def test_second_derivative_is_refused(device) -> None:
    given = tensors((1, 4, 4, 4, 2), torch.float32, device)
    x = given["x"].requires_grad_()
    y = by_triton(x, given["weight"], given["bias"], 2, 1e-5)
    with pytest.raises(RuntimeError, match="no second derivative"):
        torch.autograd.grad(y.sum(), x, create_graph=True)
