"""The host Block finds what is wrong in a kernel, whatever order its threads run in, and the device Block compiles."""

import ctypes
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest
import torch
from emulated_kernels import REPOSITORY, SOURCES, emulator

MISTAKES = {
    "no barrier": r"shared 'reversed'\[\d+\]: thread .* (reads what is written|writes what is read)",
    "wrong index": r"shared 'reversed': thread \d+ .* writes element 48 of 48",
    "wrong row": r"global\[\d+\]: thread \d+ of rank \d .* writes what is written",
    "no wait": r"shared 'mine'\[\d+\]: .* reads what a copy brings that nobody has waited for",
    "no cluster barrier": r"shared 'sum_of_rank'\[0\]: .* reads what is written",
    "ends too early": "after the last cluster_phase",
}


def _run(seed, mistake="none"):
    x = np.random.default_rng(0).uniform(0.5, 1.5, (5, 96)).astype(np.float32)
    y = np.full_like(x, np.nan)
    emulator().reversed_share(x, y, seed, mistake)
    return x, y


def test_the_right_kernel_is_right_in_any_order():
    x, first = _run(0)
    expected = x[:, ::-1].astype(np.float64) / x.astype(np.float64).sum(1, keepdims=True)
    np.testing.assert_allclose(first, expected, rtol=1e-6)
    for seed in range(1, 6):
        np.testing.assert_array_equal(_run(seed)[1], first)


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("mistake", MISTAKES)
def test_a_mistake_is_found(mistake, seed):
    with pytest.raises(emulator().BlockError, match=MISTAKES[mistake]):
        _run(seed, mistake)


def test_warp_products_have_the_hardwares_layout():
    rng = np.random.default_rng(0)
    a, b, c = rng.normal(size=(16, 16)), rng.normal(size=(16, 8)), np.zeros((16, 8), np.float32)
    a_bf16, b_bf16 = (torch.from_numpy(m).to(torch.bfloat16) for m in (a, b))
    emulator().warp_product_bf16(*(m.view(torch.uint16).numpy() for m in (a_bf16, b_bf16)), c)
    np.testing.assert_allclose(c, (a_bf16.double() @ b_bf16.double()).numpy(), rtol=0, atol=1e-6)

    a, b = a[:, :8].astype(np.float32), b[:8].astype(np.float32)
    emulator().warp_product_tf32(a, b, c)
    np.testing.assert_allclose(c, _tf32(a) @ _tf32(b), rtol=0, atol=1e-6)


def _tf32(values):
    """The nearest numbers with 10 bits of mantissa, float64."""
    mantissa, exponent = np.frexp(values.astype(np.float64))
    return np.ldexp(np.round(mantissa * 2**11) / 2**11, exponent)


needs_nvcc = pytest.mark.skipif(shutil.which("nvcc") is None, reason="nvcc is not on PATH")


@needs_nvcc
@pytest.mark.parametrize("architecture", [80, 90, 100, 120])
def test_the_device_block_compiles_without_spills(architecture, tmp_path: Path):
    ran = subprocess.run(
        ["nvcc", "-std=c++20", f"-I{REPOSITORY / 'csrc'}", f"-arch=sm_{architecture}", "-Xptxas", "-v", "-cubin"]
        + [str(SOURCES / "demonstration.cu"), "-o", str(tmp_path / "demonstration.cubin")],
        capture_output=True,
        text=True,
    )
    assert ran.returncode == 0, ran.stderr
    assert ran.stderr.count("0 bytes spill stores, 0 bytes spill loads") == 3, ran.stderr
    assert "warning" not in ran.stderr, ran.stderr


@needs_nvcc
@pytest.mark.cuda
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_the_device_block_does_what_the_host_block_does(tmp_path: Path):
    """Bulk copies, barriers of blocks and clusters, sums and warp products on a GPU, against the emulator."""
    library = tmp_path / "demonstration.so"
    subprocess.run(
        ["nvcc", "-std=c++20", f"-I{REPOSITORY / 'csrc'}", "-arch=native", "-shared", "-Xcompiler", "-fPIC"]
        + [str(SOURCES / "demonstration.cu"), "-o", str(library)],
        check=True,
    )
    device, stream = ctypes.CDLL(str(library)), ctypes.c_int64(torch.cuda.current_stream().cuda_stream)

    def call(function, *arrays, numbers=()):
        there = [torch.from_numpy(array).cuda() for array in arrays]
        pointers = [ctypes.c_void_p(tensor.data_ptr()) for tensor in there]
        getattr(device, function)(*pointers, *map(ctypes.c_int, numbers), stream)
        torch.cuda.synchronize()
        return there[-1].cpu().numpy()

    if torch.cuda.get_device_capability() >= (9, 0):  # before that there are no clusters
        x, expected = _run(0)
        np.testing.assert_allclose(call("reversed_share", x, np.zeros_like(x), numbers=x.shape), expected, rtol=1e-6)
    rng = np.random.default_rng(0)
    for function, kind, depth in (("warp_product_bf16", torch.bfloat16, 16), ("warp_product_tf32", torch.float32, 8)):
        a, b = (torch.from_numpy(rng.normal(size=size)).to(kind) for size in ((16, depth), (depth, 8)))
        arrays = [m.view(torch.int16).numpy() if kind == torch.bfloat16 else m.numpy() for m in (a, b)]
        expected = np.zeros((16, 8), np.float32)
        getattr(emulator(), function)(*arrays, expected)
        np.testing.assert_allclose(call(function, *arrays, np.zeros_like(expected)), expected, rtol=0, atol=1e-5)
