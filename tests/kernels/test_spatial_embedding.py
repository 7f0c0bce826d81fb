"""spatial_embedding: output and gradients against float64; errors at most twice those of plain PyTorch."""

from __future__ import annotations

import pytest
import torch

from ptr_fast import native
from ptr_fast.kernels import dispatch, triton_backend
from ptr_fast.kernels.spatial_embedding import batched, reference, spatial_embedding

LAST = torch.channels_last

# (B, C, H, W, F), with the reason for the shape
SHAPES = {
    "channels_of_conv3": (5, 32, 6, 8, 8),
    "wide_map": (3, 64, 4, 4, 8),
    "batch_one": (1, 16, 3, 5, 8),
    "few_features": (4, 16, 2, 3, 3),
    "more_features_than_a_block": (2, 16, 3, 3, 11),
    "one_pixel": (7, 16, 1, 1, 8),
    "odd_channels": (3, 5, 4, 6, 4),
}
BACKENDS = [
    pytest.param("native", marks=pytest.mark.skipif(native.module() is None, reason=str(native.why_missing()))),
    "batched",
    pytest.param("triton", marks=pytest.mark.triton),
]
DEVICES = [
    "cpu",
    pytest.param(
        "cuda", marks=[pytest.mark.cuda, pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no GPU")]
    ),
]


def run(op, x: torch.Tensor, kernel: torch.Tensor, dout: torch.Tensor) -> dict[str, torch.Tensor]:
    leaves = x.detach().clone().requires_grad_(), kernel.detach().clone().requires_grad_()
    out = op(*leaves)
    dx, dkernel = torch.autograd.grad(out, leaves, dout.to(out))
    return {"out": out.detach(), "dx": dx, "dkernel": dkernel}


def make(shape, layout=LAST, seed: int = 0) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    B, C, H, W, F = shape
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(B, C, H, W, generator=generator).contiguous(memory_format=layout)
    return x, torch.randn(C, H * W, F, generator=generator), torch.randn(B, C * F, generator=generator)


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("layout", [LAST, torch.contiguous_format], ids=["channels_last", "BCHW"])
@pytest.mark.parametrize("shape", SHAPES.values(), ids=SHAPES.keys())
@pytest.mark.parametrize("backend", BACKENDS)
def test_parity(backend, shape, layout, device) -> None:
    if backend == "triton":
        pytest.importorskip("triton")
        if (device == "cpu") != triton_backend.interpreting():
            pytest.skip("the interpreter is for CPU tensors, GPUs run compiled kernels")
    elif backend == "native" and device != "cpu":
        pytest.skip("the native kernel is for the CPU")
    given = make(shape, layout)
    exact = run(reference.spatial_embedding, *[t.double() for t in given])
    plain = run(reference.spatial_embedding, *given)
    moved = [t.to(device) for t in given]
    with dispatch.use_backend(f"spatial_embedding={backend}"):
        if backend == "native":
            lanes = native.require().spatial_embedding_lanes()
            if shape[1] % lanes or not given[0].is_contiguous(memory_format=LAST):
                with pytest.raises(RuntimeError, match="native kernel is for"):
                    spatial_embedding(*moved[:2])
                return
        got, again = run(spatial_embedding, *moved), run(spatial_embedding, *moved)
    for name, wanted in exact.items():
        scale = wanted.abs().max().item()
        error = (got[name].cpu().double() - wanted).abs().max().item() / scale
        bound = max(2 * (plain[name].double() - wanted).abs().max().item() / scale, 1e-6)
        assert error <= bound, f"{name}: {error:.2e} > {bound:.2e}"
        assert torch.equal(got[name], again[name])
    if layout is LAST:
        assert got["dx"].is_contiguous(memory_format=LAST)


@pytest.mark.skipif(native.module() is None, reason=str(native.why_missing()))
@pytest.mark.parametrize("isa", native.build_info()["isas"].split() if native.module() is not None else [])
def test_every_instruction_set_and_any_number_of_threads(isa) -> None:
    given, before, threads = make((7, 64, 16, 16, 9)), native.isa(), torch.get_num_threads()
    expected = run(batched.spatial_embedding, *given)
    try:
        try:
            native.set_isa(isa)
        except ValueError as error:
            pytest.skip(str(error))
        with dispatch.use_backend("spatial_embedding=native"):
            one = run(spatial_embedding, *given)
            torch.set_num_threads(3)
            three = run(spatial_embedding, *given)
    finally:
        native.set_isa(before)
        torch.set_num_threads(threads)
    for name, wanted in expected.items():
        torch.testing.assert_close(one[name], wanted, rtol=1e-5, atol=1e-4)
        assert torch.equal(one[name], three[name])


def test_one_gradient_alone_and_float64() -> None:
    x, kernel, dout = make((3, 16, 4, 4, 8))
    both = run(spatial_embedding, x, kernel, dout)
    for i, name in enumerate(("dx", "dkernel")):
        leaves = [t.clone().requires_grad_(k == i) for k, t in enumerate((x, kernel))]
        (gradient,) = torch.autograd.grad(spatial_embedding(*leaves), leaves[i], dout)
        assert torch.equal(gradient, both[name])
    double = spatial_embedding(x.double(), kernel.double())
    torch.testing.assert_close(double, reference.spatial_embedding(x.double(), kernel.double()))
    with pytest.raises(ValueError, match="expected a kernel"):
        spatial_embedding(x, kernel[:, 1:])


def test_a_map_whose_rows_lie_apart() -> None:
    x, kernel, _ = make((2, 16, 4, 6, 8))
    wide = torch.zeros(2, 16, 4, 8).contiguous(memory_format=LAST)
    wide[..., :6] = x
    apart = wide[..., :6]
    torch.testing.assert_close(spatial_embedding(apart, kernel), reference.spatial_embedding(apart, kernel))


@pytest.mark.parametrize("layout", [LAST, torch.contiguous_format], ids=["channels_last", "BCHW"])
@pytest.mark.parametrize("backend", [*BACKENDS, "reference"])
def test_a_bfloat16_map_gives_what_its_float32_copy_gives(backend, layout) -> None:
    """Bit by bit, the map's gradient rounded once."""
    if backend == "triton" and not triton_backend.interpreting():
        pytest.skip("the interpreter is off")
    if backend == "native" and layout is not LAST:
        pytest.skip("the native kernel is for channels_last")
    x, kernel, dout = make((3, 32, 4, 5, 8), layout)
    x = x.bfloat16()
    with dispatch.use_backend(f"spatial_embedding={backend}"):
        got, wanted = run(spatial_embedding, x, kernel, dout), run(spatial_embedding, x.float(), kernel, dout)
    assert got["out"].dtype == torch.float32
    assert torch.equal(got["out"], wanted["out"])
    assert torch.equal(got["dkernel"], wanted["dkernel"])
    assert got["dx"].dtype == torch.bfloat16
    rounded = wanted["dx"].bfloat16()
    if backend == "triton":  # the interpreter cuts off where a GPU rounds
        torch.testing.assert_close(got["dx"], rounded, rtol=2**-7, atol=0.0)
    else:
        assert torch.equal(got["dx"], rounded)


@pytest.mark.parametrize("backend", BACKENDS)
def test_the_default_dtype_of_torch_has_no_influence(backend) -> None:
    if backend == "triton" and not triton_backend.interpreting():
        pytest.skip("the interpreter is off")
    given = make((3, 32, 4, 5, 8))
    with dispatch.use_backend(f"spatial_embedding={backend}"):
        wanted = run(spatial_embedding, *given)
        torch.set_default_dtype(torch.float64)
        try:
            got = run(spatial_embedding, *given)
        finally:
            torch.set_default_dtype(torch.float32)
    for name, value in wanted.items():
        assert got[name].dtype == torch.float32
        assert torch.equal(got[name], value)


@pytest.mark.triton
def test_triton_adds_parts_in_their_order(monkeypatch) -> None:
    """However many parts a sum is split into; two runs give the same bits."""
    triton = pytest.importorskip("ptr_fast.kernels.spatial_embedding.triton")
    if not triton_backend.interpreting():
        pytest.skip("the interpreter is off")
    given = make((2, 16, 5, 7, 8))  # 35 pixels: five parts of 8 at most, the last of 3
    exact = run(reference.spatial_embedding, *[t.double() for t in given])
    for num_programs in (1, 2, 3, 1000):
        monkeypatch.setattr(triton, "_MIN_PROGRAMS", num_programs)
        with dispatch.use_backend("spatial_embedding=triton"):
            got, again = run(spatial_embedding, *given), run(spatial_embedding, *given)
        for name, wanted in exact.items():
            torch.testing.assert_close(got[name].double(), wanted, rtol=1e-4, atol=1e-5)
            assert torch.equal(got[name], again[name])
