"""group_norm_act: outputs and all gradients against float64; errors at most twice those of plain PyTorch."""

from __future__ import annotations

import warnings

import pytest
import torch

from ptr_fast import native
from ptr_fast.kernels import dispatch
from ptr_fast.kernels.group_norm_act import group_norm_act
from ptr_fast.kernels.group_norm_act import native as native_op
from ptr_fast.kernels.group_norm_act import reference as reference_op

needs_native = pytest.mark.skipif(native.module() is None, reason=str(native.why_missing()))

# (B, C, H, W, groups), with the reason for the shape
SHAPES = {
    "conv3_first": (4, 16, 32, 32, 4),
    "resnet_stage": (2, 128, 16, 16, 4),
    "batch_one": (1, 64, 8, 8, 4),
    "odd_everything": (3, 15, 7, 5, 3),
    "one_channel_per_group": (2, 8, 4, 6, 8),
    "one_group": (2, 24, 5, 5, 1),
    "one_pixel": (3, 32, 1, 1, 4),
    "tile_and_tail": (2, 84, 9, 3, 4),
    "many_chunks": (1, 4, 64, 64, 2),
}


RESIDUALS = ("plain", "residual", "shortcut_norm")


def tensors(
    shape: tuple[int, ...], *, mean: float = 1.0, residual: str = "plain", seed: int = 0
) -> dict[str, torch.Tensor]:
    B, C, H, W, _ = shape
    generator = torch.Generator().manual_seed(seed)

    def normal(*size: int) -> torch.Tensor:
        return torch.randn(*size, generator=generator)

    last = torch.channels_last
    out = {
        "x": (normal(B, C, H, W) * 2 + mean).contiguous(memory_format=last),
        "weight": normal(C),
        "bias": normal(C),
        "dy": normal(B, C, H, W).contiguous(memory_format=last),
    }
    if residual != "plain":
        out["residual"] = (normal(B, C, H, W) - 0.5).contiguous(memory_format=last)
    if residual == "shortcut_norm":
        out |= {"residual_weight": normal(C), "residual_bias": normal(C)}
    return out


def run(op, given: dict[str, torch.Tensor], groups: int, activation: str) -> dict[str, torch.Tensor]:
    """y and the gradients of every other tensor."""
    leaves = {name: given[name].detach().clone().requires_grad_() for name in given if name != "dy"}
    y = op(
        leaves["x"],
        leaves["weight"],
        leaves["bias"],
        groups,
        1e-5,
        leaves.get("residual"),
        activation,
        leaves.get("residual_weight"),
        leaves.get("residual_bias"),
    )
    gradients = torch.autograd.grad(y, list(leaves.values()), given["dy"])
    return {"y": y.detach(), **{f"d{name}": g for name, g in zip(leaves, gradients, strict=True)}}


def check_parity(shape: tuple[int, ...], activation: str, given: dict[str, torch.Tensor]) -> None:
    groups = shape[-1]
    exact = run(reference_op.group_norm_act, {k: v.double() for k, v in given.items()}, groups, activation)
    plain = run(reference_op.group_norm_act, given, groups, activation)
    ours = run(native_op.group_norm_act, given, groups, activation)
    for name, wanted in exact.items():
        scale = wanted.abs().max().item() + 1e-30
        error = (ours[name].double() - wanted).abs().max().item() / scale
        torch_error = (plain[name].double() - wanted).abs().max().item() / scale
        assert error <= max(2 * torch_error, 1e-6), f"{name}: error {error:.2e}, PyTorch's {torch_error:.2e}"


@pytest.mark.parametrize("activation", ["relu", "none"])
@pytest.mark.parametrize("residual", RESIDUALS)
@pytest.mark.parametrize("shape", SHAPES.values(), ids=SHAPES.keys())
def test_parity(shape, residual, activation, each_isa) -> None:
    check_parity(shape, activation, tensors(shape, residual=residual))


@needs_native
@pytest.mark.parametrize("mean", [100.0, 10000.0])
def test_mean_far_from_zero(mean: float) -> None:
    shape = (2, 16, 16, 16, 4)
    check_parity(shape, "none", tensors(shape, mean=mean))


@needs_native
@pytest.mark.parametrize("residual", RESIDUALS)
@pytest.mark.parametrize("shape", [(3, 15, 7, 5, 3), (2, 16, 7, 5, 4)], ids=["mask_from_y", "mask_of_bits"])
def test_every_element_is_written(shape, residual: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Fresh memory holds NaN (and bytes that are not zero); nothing of it is left."""

    def filled(tensor: torch.Tensor) -> torch.Tensor:
        return tensor.fill_(float("nan") if tensor.is_floating_point() else 255)

    empty, empty_like = torch.empty, torch.empty_like
    monkeypatch.setattr(torch, "empty", lambda *args, **kwargs: filled(empty(*args, **kwargs)))
    monkeypatch.setattr(torch, "empty_like", lambda *args, **kwargs: filled(empty_like(*args, **kwargs)))
    check_parity(shape, "relu", tensors(shape, residual=residual))


@needs_native
@pytest.mark.parametrize("residual", RESIDUALS)
@pytest.mark.parametrize("shape", [(7, 64, 32, 32, 4), (1, 64, 64, 64, 4)], ids=["over_samples", "over_parts"])
def test_same_bits_for_any_number_of_threads_and_again(shape, residual: str) -> None:
    given = tensors(shape, residual=residual)
    before = torch.get_num_threads()
    try:
        torch.set_num_threads(1)
        first = run(native_op.group_norm_act, given, 4, "relu")
        for threads in (1, 2, 5):
            torch.set_num_threads(threads)
            again = run(native_op.group_norm_act, given, 4, "relu")
            for name in first:
                assert torch.equal(first[name], again[name]), f"{name} with {threads} threads"
    finally:
        torch.set_num_threads(before)
    assert native.require().pool_size() >= 1


@needs_native
def test_nan_stays_nan() -> None:
    given = tensors((2, 8, 4, 4, 2))
    given["x"][1, 0, 0, 0] = float("nan")
    y = native_op.group_norm_act(given["x"], given["weight"], given["bias"], 2, 1e-5, None, "relu")
    assert torch.isfinite(y[0]).all()
    assert torch.isnan(y[1, :4]).all()
    assert torch.isfinite(y[1, 4:]).all()


@needs_native
@pytest.mark.parametrize("residual", RESIDUALS)
def test_gradients_through_a_nan_are_what_autograd_gives(residual: str, each_isa) -> None:
    """The ReLU of a NaN passes the gradient on."""
    given = tensors((2, 40, 4, 5, 2), residual=residual)
    given["residual" if residual == "residual" else "x"][1, 23, 2, 3] = float("nan")
    wanted, got = (run(op.group_norm_act, given, 2, "relu") for op in (reference_op, native_op))
    for name, value in wanted.items():
        torch.testing.assert_close(got[name], value, rtol=1e-3, atol=1e-4, equal_nan=True)


@needs_native
def test_constant_input_has_no_variance() -> None:
    x = torch.full((1, 4, 8, 8), 3.0).contiguous(memory_format=torch.channels_last)
    y = native_op.group_norm_act(x, torch.ones(4), torch.full((4,), 0.5), 2, 1e-5, None, "relu")
    assert torch.allclose(y, torch.full_like(y, 0.5), atol=1e-3)


def test_other_layouts_and_dtypes_are_right() -> None:
    given = tensors((2, 8, 6, 4, 2), residual="residual")
    wanted = reference_op.group_norm_act(given["x"], given["weight"], given["bias"], 2, 1e-5, given["residual"], "relu")
    sliced = torch.cat([given["x"], given["x"]], dim=3)[:, :, :, :4]
    for x in (given["x"].contiguous(), sliced):
        got = group_norm_act(x, given["weight"], given["bias"], 2, 1e-5, given["residual"].contiguous())
        assert torch.allclose(got, wanted, atol=1e-5)
    double = group_norm_act(given["x"].double(), given["weight"].double(), given["bias"].double(), 2)
    assert double.dtype == torch.float64


def test_gradient_of_an_expanded_tensor() -> None:
    given = tensors((2, 8, 6, 4, 2), residual="residual")
    leaves = [given[k].requires_grad_() for k in ("x", "weight", "bias", "residual")]
    ours = torch.autograd.grad(group_norm_act(*leaves[:3], 2, residual=leaves[3]).sum(), leaves)
    plain = torch.autograd.grad(reference_op.group_norm_act(*leaves[:3], 2, 1e-5, leaves[3], "relu").sum(), leaves)
    for a, b in zip(ours, plain, strict=True):
        assert torch.allclose(a, b, atol=1e-4)


@needs_native
def test_second_derivative_is_refused() -> None:
    given = tensors((1, 4, 4, 4, 2))
    x = given["x"].requires_grad_()
    y = native_op.group_norm_act(x, given["weight"], given["bias"], 2, 1e-5, None, "relu")
    with pytest.raises(RuntimeError, match="no second derivative"):
        torch.autograd.grad(y.sum(), x, create_graph=True)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"num_groups": 3}, "divisor of the 8 channels"),
        ({"num_groups": 0}, "divisor of the 8 channels"),
        ({"weight_C": torch.ones(7)}, "weight: expected shape"),
        ({"residual": torch.ones(2, 8, 6, 5)}, "residual: expected x's shape"),
        ({"residual_weight": torch.ones(8)}, "expected both or neither"),
        ({"residual_weight": torch.ones(8), "residual_bias": torch.ones(8)}, "no residual to normalise"),
        ({"activation": "gelu"}, "activation: expected one of"),
        ({"x_BCHW": torch.ones(2, 8)}, r"expected \[B, C, H, W\]"),
    ],
)
def test_wrong_arguments(change: dict, message: str) -> None:
    args = {"x_BCHW": torch.ones(2, 8, 6, 4), "weight_C": torch.ones(8), "bias_C": torch.ones(8), "num_groups": 2}
    with pytest.raises(ValueError, match=message):
        group_norm_act(**{**args, **change})


@needs_native
def test_native_checks_its_own_arguments() -> None:
    from torch.utils.dlpack import to_dlpack

    dense, w = torch.ones(2, 8, 6, 4), torch.ones(8)
    last = dense.contiguous(memory_format=torch.channels_last)

    def capsules(**given: torch.Tensor | None) -> dict:
        return {name: None if tensor is None else to_dlpack(tensor) for name, tensor in given.items()}

    def call(x: torch.Tensor, weight: torch.Tensor = w, y: torch.Tensor = last, mask=False, threads=1, **more):
        given = {"residual": None, "residual_weight": None, "residual_bias": None} | more
        given |= {"x": x, "weight": weight, "bias": w, "y": y}
        return native.require().group_norm_act_forward(
            **capsules(**given), keep_mask=mask, num_groups=2, eps=1e-5, relu=True, num_threads=threads
        )

    def back(kept, x: torch.Tensor, **more) -> None:
        given = {"residual": None, "y": None, "residual_weight": None, "dresidual": None}
        given |= {"dresidual_weight": None, "dresidual_bias": None} | more
        given |= {"dy": x, "x": x, "weight": w, "bias": w, "dx": torch.empty_like(x)}
        given |= {"dweight": torch.empty(8), "dbias": torch.empty(8)}
        native.require().group_norm_act_backward(kept, **capsules(**given), relu=True, num_threads=1)

    call(last)
    with pytest.raises(ValueError, match="x: expected channels_last memory"):
        call(dense)
    with pytest.raises(ValueError, match="weight: expected float32, got float64"):
        call(last, weight=w.double())
    with pytest.raises(ValueError, match=r"y: expected shape \[2, 8, 6, 4\], got \[1, 8, 6, 4\]"):
        call(last, y=last[:1])
    with pytest.raises(ValueError, match="keep_mask: expected a multiple of 16 channels"):
        call(last, mask=True)
    with pytest.raises(ValueError, match="residual: expected a tensor, got None"):
        call(last, residual_weight=w, residual_bias=w)
    with pytest.raises(ValueError, match="num_threads"):
        call(last, threads=0)
    kept = call(last)
    back(kept, last)
    with pytest.raises(ValueError, match="x: not of the forward pass's shape"):
        back(kept, last[:1])
    with pytest.raises(ValueError, match="residual_weight: expected one where the forward pass had one"):
        back(kept, last, residual=last, residual_weight=w)


def test_runs_without_the_native_module_and_says_so_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(native, "_load", lambda: (None, "not built, for this test"))
    native.warn_missing.cache_clear()
    dispatch.clear()
    given = tensors((2, 8, 6, 4, 2))
    try:
        with pytest.warns(RuntimeWarning, match="not built, for this test"):
            first = group_norm_act(given["x"], given["weight"], given["bias"], 2)
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            second = group_norm_act(given["x"], given["weight"], given["bias"], 2)
        assert torch.equal(first, second)
        assert "not built, for this test" in str(dispatch.explain("group_norm_act")[-1])
        with dispatch.use_backend("native"), pytest.raises(RuntimeError, match="not built, for this test"):
            group_norm_act(given["x"], given["weight"], given["bias"], 2)
    finally:
        native.warn_missing.cache_clear()
        dispatch.clear()
