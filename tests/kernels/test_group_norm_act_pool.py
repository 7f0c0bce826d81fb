"""group_norm_act_pool: outputs and all gradients against float64; errors at most twice those of plain PyTorch."""

from __future__ import annotations

import pytest
import torch

from ptr_fast import native
from ptr_fast.kernels import dispatch
from ptr_fast.kernels.group_norm_act_pool import group_norm_act_pool, reference
from ptr_fast.kernels.group_norm_act_pool import native as native_op

needs_native = pytest.mark.skipif(native.module() is None, reason=str(native.why_missing()))
LAST = torch.channels_last

# (B, C, H, W, groups), with the reason for the shape
SHAPES = {
    "resnet_stem": (2, 64, 32, 32, 4),
    "batch_one": (1, 64, 16, 16, 4),
    "odd_height": (2, 16, 7, 6, 4),
    "odd_width": (2, 16, 6, 9, 4),
    "odd_everything": (3, 15, 7, 5, 3),
    "tile_and_tail": (1, 84, 4, 4, 4),
    "one_pixel": (2, 8, 1, 1, 2),
    "one_row": (2, 8, 1, 6, 2),
}


def tensors(shape: tuple[int, ...], seed: int = 0) -> dict[str, torch.Tensor]:
    B, C, H, W, _ = shape
    generator = torch.Generator().manual_seed(seed)

    def normal(*size: int) -> torch.Tensor:
        return torch.randn(*size, generator=generator)

    return {
        "x": (normal(B, C, H, W) * 2 + 1).contiguous(memory_format=LAST),
        "weight": normal(C),  # negative ones turn the maximum into a minimum of x
        "bias": normal(C),
        "dy": normal(B, C, (H + 1) // 2, (W + 1) // 2).contiguous(memory_format=LAST),
    }


def run(op, given: dict[str, torch.Tensor], groups: int) -> dict[str, torch.Tensor]:
    """y and the gradients of x, weight and bias."""
    leaves = [given[name].detach().clone().requires_grad_() for name in ("x", "weight", "bias")]
    y = op(*leaves, groups, 1e-5)
    gradients = torch.autograd.grad(y, leaves, given["dy"])
    return {"y": y.detach(), **dict(zip(("dx", "dweight", "dbias"), gradients, strict=True))}


def check_parity(shape: tuple[int, ...], given: dict[str, torch.Tensor]) -> None:
    groups = shape[-1]
    exact = run(reference.group_norm_act_pool, {k: v.double() for k, v in given.items()}, groups)
    plain = run(reference.group_norm_act_pool, given, groups)
    ours = run(native_op.group_norm_act_pool, given, groups)
    for name, wanted in exact.items():
        scale = wanted.abs().max().item() + 1e-30
        error = (ours[name].double() - wanted).abs().max().item() / scale
        torch_error = (plain[name].double() - wanted).abs().max().item() / scale
        assert error <= max(2 * torch_error, 1e-6), f"{name}: error {error:.2e}, PyTorch's {torch_error:.2e}"


@pytest.mark.parametrize("shape", SHAPES.values(), ids=SHAPES.keys())
def test_parity(shape, each_isa) -> None:
    check_parity(shape, tensors(shape))


def test_equal_maxima(each_isa) -> None:
    """Of equal maxima the first gets the gradient, as in PyTorch: values on a grid, channels without scale."""
    shape = (2, 48, 9, 8, 4)
    given = tensors(shape)
    given["x"] = given["x"].round().contiguous(memory_format=LAST)
    given["weight"][::5] = 0.0
    given["bias"][::5] = 1.0
    plain = run(reference.group_norm_act_pool, given, 4)
    ours = run(native_op.group_norm_act_pool, given, 4)
    for name in plain:
        assert torch.allclose(ours[name], plain[name], rtol=1e-4, atol=1e-4), name


@needs_native
def test_without_gradients_the_same_bits() -> None:
    given = tensors(SHAPES["odd_everything"])
    with torch.no_grad():
        y = native_op.group_norm_act_pool(given["x"], given["weight"], given["bias"], 3, 1e-5)
    assert torch.equal(y, run(native_op.group_norm_act_pool, given, 3)["y"])
    assert y.is_contiguous(memory_format=LAST)


@needs_native
@pytest.mark.parametrize("shape", [(7, 64, 32, 32, 4), (1, 64, 64, 64, 4)], ids=["over_samples", "over_parts"])
def test_same_bits_for_any_number_of_threads_and_again(shape) -> None:
    given = tensors(shape)
    before = torch.get_num_threads()
    try:
        torch.set_num_threads(1)
        first = run(native_op.group_norm_act_pool, given, 4)
        for threads in (1, 2, 5):
            torch.set_num_threads(threads)
            again = run(native_op.group_norm_act_pool, given, 4)
            for name in first:
                assert torch.equal(first[name], again[name]), f"{name} with {threads} threads"
    finally:
        torch.set_num_threads(before)


@needs_native
def test_every_element_is_written(monkeypatch: pytest.MonkeyPatch) -> None:
    """Fresh memory holds NaN (and bytes that are not zero); nothing of it is left."""

    def filled(tensor: torch.Tensor) -> torch.Tensor:
        return tensor.fill_(float("nan") if tensor.is_floating_point() else 255)

    empty, empty_like = torch.empty, torch.empty_like
    monkeypatch.setattr(torch, "empty", lambda *args, **kwargs: filled(empty(*args, **kwargs)))
    monkeypatch.setattr(torch, "empty_like", lambda *args, **kwargs: filled(empty_like(*args, **kwargs)))
    for name in ("odd_everything", "tile_and_tail"):
        check_parity(SHAPES[name], tensors(SHAPES[name]))


@needs_native
def test_nan_stays_nan() -> None:
    given = tensors((2, 8, 4, 4, 2))
    given["x"][1, 0, 0, 0] = float("nan")
    result = run(native_op.group_norm_act_pool, given, 2)
    for name in ("y", "dx"):
        assert torch.isfinite(result[name][0]).all()
        assert torch.isnan(result[name][1, :4]).all()
        assert torch.isfinite(result[name][1, 4:]).all()


def test_other_layouts_and_dtypes_are_right() -> None:
    given = tensors((2, 8, 6, 5, 2))
    arguments = given["weight"], given["bias"], 2
    wanted = reference.group_norm_act_pool(given["x"], *arguments, 1e-5)
    sliced = torch.cat([given["x"], given["x"]], dim=3)[:, :, :, :5]
    for x in (given["x"].contiguous(), sliced):
        assert torch.allclose(group_norm_act_pool(x, *arguments), wanted, atol=1e-5)
    with dispatch.use_backend("group_norm_act_pool=native"), pytest.raises(RuntimeError, match="channels_last"):
        group_norm_act_pool(sliced, *arguments)
    double = group_norm_act_pool(given["x"].double(), given["weight"].double(), given["bias"].double(), 2)
    assert double.dtype == torch.float64


@needs_native
def test_second_derivative_is_refused() -> None:
    given = tensors((1, 4, 4, 4, 2))
    x = given["x"].requires_grad_()
    y = native_op.group_norm_act_pool(x, given["weight"], given["bias"], 2, 1e-5)
    with pytest.raises(RuntimeError, match="no second derivative"):
        torch.autograd.grad(y.sum(), x, create_graph=True)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"num_groups": 3}, "divisor of the 8 channels"),
        ({"weight_C": torch.ones(7)}, "weight: expected shape"),
        ({"x_BCHW": torch.ones(2, 8)}, r"expected \[B, C, H, W\]"),
    ],
)
def test_wrong_arguments(change: dict, message: str) -> None:
    args = {"x_BCHW": torch.ones(2, 8, 6, 4), "weight_C": torch.ones(8), "bias_C": torch.ones(8), "num_groups": 2}
    with pytest.raises(ValueError, match=message):
        group_norm_act_pool(**{**args, **change})
