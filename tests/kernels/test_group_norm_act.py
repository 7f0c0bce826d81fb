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
ISAS = native.build_info()["isas"].split() if native.module() is not None else ["none"]

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


def tensors(shape: tuple[int, ...], *, mean: float = 1.0, residual: bool, seed: int = 0) -> dict[str, torch.Tensor]:
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
    if residual:
        out["residual"] = normal(B, C, H, W).contiguous(memory_format=last)
    return out


def run(op, given: dict[str, torch.Tensor], groups: int, activation: str) -> dict[str, torch.Tensor]:
    """y and the gradients of x, weight, bias and residual."""
    leaves = {name: given[name].detach().clone().requires_grad_() for name in given if name != "dy"}
    y = op(leaves["x"], leaves["weight"], leaves["bias"], groups, 1e-5, leaves.get("residual"), activation)
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


@pytest.fixture(params=ISAS)
def each_isa(request: pytest.FixtureRequest):
    if native.module() is None:
        pytest.skip(str(native.why_missing()))
    before = native.isa()
    try:
        native.set_isa(request.param)
    except ValueError as error:
        pytest.skip(str(error))
    yield request.param
    native.set_isa(before)


@pytest.mark.parametrize("activation", ["relu", "none"])
@pytest.mark.parametrize("residual", [False, True], ids=["plain", "residual"])
@pytest.mark.parametrize("shape", SHAPES.values(), ids=SHAPES.keys())
def test_parity(shape, residual, activation, each_isa) -> None:
    check_parity(shape, activation, tensors(shape, residual=residual))


@needs_native
@pytest.mark.parametrize("mean", [100.0, 10000.0])
def test_mean_far_from_zero(mean: float) -> None:
    shape = (2, 16, 16, 16, 4)
    check_parity(shape, "none", tensors(shape, mean=mean, residual=False))


@needs_native
def test_every_element_is_written() -> None:
    from torch.utils.dlpack import to_dlpack

    given = tensors((3, 15, 7, 5, 3), residual=True)
    last = torch.channels_last

    def nans(*shape: int) -> torch.Tensor:
        return torch.full(shape, float("nan"))

    y, dx, dresidual = (nans(3, 15, 7, 5).contiguous(memory_format=last) for _ in range(3))
    mean, rstd, dweight, dbias = nans(3, 3), nans(3, 3), nans(15), nans(15)
    x, w, b, r, dy = (to_dlpack(given[k]) for k in ("x", "weight", "bias", "residual", "dy"))
    module = native.require()
    module.group_norm_act_forward(x, w, b, r, to_dlpack(y), to_dlpack(mean), to_dlpack(rstd), 3, 1e-5, True, 1)
    module.group_norm_act_backward(
        dy, x, to_dlpack(y), w, b, to_dlpack(mean), to_dlpack(rstd), to_dlpack(dx), to_dlpack(dweight),
        to_dlpack(dbias), to_dlpack(dresidual), 3, True, 1,
    )  # fmt: skip
    for tensor in (y, mean, rstd, dx, dweight, dbias, dresidual):
        assert torch.isfinite(tensor).all()


@needs_native
@pytest.mark.parametrize("residual", [False, True], ids=["plain", "residual"])
def test_same_bits_for_any_number_of_threads_and_again(residual: bool) -> None:
    given = tensors((7, 64, 32, 32, 4), residual=residual)
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
    given = tensors((2, 8, 4, 4, 2), residual=False)
    given["x"][1, 0, 0, 0] = float("nan")
    y = native_op.group_norm_act(given["x"], given["weight"], given["bias"], 2, 1e-5, None, "relu")
    assert torch.isfinite(y[0]).all()
    assert torch.isnan(y[1, :4]).all()
    assert torch.isfinite(y[1, 4:]).all()


@needs_native
def test_constant_input_has_no_variance() -> None:
    x = torch.full((1, 4, 8, 8), 3.0).contiguous(memory_format=torch.channels_last)
    y = native_op.group_norm_act(x, torch.ones(4), torch.full((4,), 0.5), 2, 1e-5, None, "relu")
    assert torch.allclose(y, torch.full_like(y, 0.5), atol=1e-3)


def test_other_layouts_and_dtypes_are_right() -> None:
    given = tensors((2, 8, 6, 4, 2), residual=True)
    wanted = reference_op.group_norm_act(given["x"], given["weight"], given["bias"], 2, 1e-5, given["residual"], "relu")
    sliced = torch.cat([given["x"], given["x"]], dim=3)[:, :, :, :4]
    for x in (given["x"].contiguous(), sliced):
        got = group_norm_act(x, given["weight"], given["bias"], 2, 1e-5, given["residual"].contiguous())
        assert torch.allclose(got, wanted, atol=1e-5)
    double = group_norm_act(given["x"].double(), given["weight"].double(), given["bias"].double(), 2)
    assert double.dtype == torch.float64


def test_gradient_of_an_expanded_tensor() -> None:
    given = tensors((2, 8, 6, 4, 2), residual=True)
    leaves = [given[k].requires_grad_() for k in ("x", "weight", "bias", "residual")]
    ours = torch.autograd.grad(group_norm_act(*leaves[:3], 2, residual=leaves[3]).sum(), leaves)
    plain = torch.autograd.grad(reference_op.group_norm_act(*leaves[:3], 2, 1e-5, leaves[3], "relu").sum(), leaves)
    for a, b in zip(ours, plain, strict=True):
        assert torch.allclose(a, b, atol=1e-4)


@needs_native
def test_second_derivative_is_refused() -> None:
    given = tensors((1, 4, 4, 4, 2), residual=False)
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
    last, moments = dense.contiguous(memory_format=torch.channels_last), torch.ones(2, 2)

    def call(x: torch.Tensor, weight: torch.Tensor = w, y: torch.Tensor = last, threads: int = 1) -> None:
        capsules = [to_dlpack(t) for t in (x, weight, w)]
        native.require().group_norm_act_forward(
            *capsules, None, to_dlpack(y), to_dlpack(moments), to_dlpack(moments.clone()), 2, 1e-5, True, threads
        )

    call(last)
    with pytest.raises(ValueError, match="x: expected channels_last memory"):
        call(dense)
    with pytest.raises(ValueError, match="weight: expected float32, got float64"):
        call(last, weight=w.double())
    with pytest.raises(ValueError, match=r"y: expected shape \[2, 8, 6, 4\], got \[1, 8, 6, 4\]"):
        call(last, y=last[:1])
    with pytest.raises(ValueError, match="num_threads"):
        call(last, threads=0)


def test_runs_without_the_native_module_and_says_so_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(native, "_load", lambda: (None, "not built, for this test"))
    native.warn_missing.cache_clear()
    dispatch.clear()
    given = tensors((2, 8, 6, 4, 2), residual=False)
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
