"""counter_random: known answers of Random123, the same words from every backend, normals within rounding."""

from __future__ import annotations

import math
from importlib.util import find_spec

import pytest
import torch
from torch._subclasses.fake_tensor import FakeTensorMode

from ptr_fast import native
from ptr_fast.kernels import dispatch
from ptr_fast.kernels.counter_random import native as native_op
from ptr_fast.kernels.counter_random import normal, reference, uniform, uniform_bits

ISAS = native.build_info()["isas"].split() if native.module() is not None else []
BACKENDS = [*(f"native-{isa}" for isa in ISAS), pytest.param("triton", marks=pytest.mark.triton)]
CUDA = pytest.param(
    "cuda", marks=[pytest.mark.cuda, pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU")]
)
F = 0xFFFFFFFF


@pytest.fixture(params=BACKENDS)
def backend(request: pytest.FixtureRequest):
    if request.param == "triton":
        if find_spec("triton") is None or torch.cuda.is_available():
            pytest.skip("the interpreter needs triton, and no GPU")
        with dispatch.use_backend("counter_random=triton"):
            yield
        return
    before = native.isa()
    try:
        native.set_isa(request.param.removeprefix("native-"))
    except ValueError as error:
        pytest.skip(str(error))
    with dispatch.use_backend("counter_random=native"):
        yield
    native.set_isa(before)


# The file kat_vectors of the Random123 distribution, entries "philox4x32 10": counter, key, result.
KNOWN = [
    ((0, 0, 0, 0), (0, 0), (0x6627E8D5, 0xE169C58D, 0xBC57AC4C, 0x9B00DBD8)),
    ((F, F, F, F), (F, F), (0x408F276D, 0x41C83B0E, 0xA20BC7C6, 0x6D5451FD)),
    (
        (0x243F6A88, 0x85A308D3, 0x13198A2E, 0x03707344),
        (0xA4093822, 0x299F31D0),
        (0xD16CFE09, 0x94FDCCEB, 0x5001E420, 0x24126EA1),
    ),
]


@pytest.mark.parametrize(("counter", "key", "expected"), KNOWN)
def test_the_reference_gives_the_published_words(counter, key, expected):
    words = reference.philox4x32(tuple(torch.tensor([c]) for c in counter), key)
    assert [int(word) for word in words] == list(expected)


def test_every_backend_gives_the_published_words(backend):
    assert uniform_bits(0, 0, 0, range(1), 4).tolist() == [list(KNOWN[0][2])]


def reference_words(seed, stream, step, samples, num_words):
    with dispatch.use_backend("counter_random=reference"):
        return uniform_bits(seed, stream, step, samples, num_words)


# (seed, stream, step, samples, words of a sample), with the reason
CASES = {
    "actions": (42, 1, 1000, range(64), 28),
    "a rank's share, one block and a part": (42, 3, 7, range(1, 37, 4), 7),
    "one word": (0, 6, 0, range(5), 1),
    "large numbers everywhere": (2**64 - 3, F, F, range(2**32 - 20, 2**32), 9),
    "negative seed, numbers from a tensor": (-1, 5, 12, torch.tensor([3, 1, 2**40 + 1, 3]), 8),
    "every second number of a tensor": (1, 4, 3, torch.arange(20)[::2], 5),
    "one sample": (1, 0, 2, range(9, 10), 3),
    "no sample": (1, 0, 2, range(0), 3),
}


@pytest.mark.parametrize("case", CASES.values(), ids=CASES.keys())
def test_words_are_equal_bit_by_bit(case, backend):
    words = uniform_bits(*case)
    assert words.dtype == torch.int64
    assert torch.equal(words, reference_words(*case))
    assert torch.equal(uniform(*case), (words >> 8).float() / 2**24)


@pytest.mark.parametrize("case", CASES.values(), ids=CASES.keys())
def test_normals_are_those_of_the_words(case, backend):
    words = reference_words(*case[:4], 2 * ((case[4] + 1) // 2)).double()
    radius = (-2.0 * ((words[:, 0::2] + 0.5) / 2**32).log()).sqrt()
    angle = words[:, 1::2] * (2.0 * math.pi / 2**32)
    exact = torch.stack([radius * angle.cos(), radius * angle.sin()], dim=2).flatten(1)[:, : case[4]]
    ours = normal(*case)
    assert ours.dtype == torch.float32
    assert ours.shape == exact.shape
    # Where the first word is close to 2**32, the float beside it decides over the radius, which is then below 1e-2.
    assert float((ours.double() - exact).abs().max() if ours.numel() else 0.0) < 4e-6
    assert torch.equal(ours, normal(*case))


def test_the_edges_of_the_words_give_finite_normals():
    words = torch.tensor([0, 1, 2**31, F - 1, F])
    for radius in words:
        assert bool(reference.box_muller(radius.expand(5), words).isfinite().all())
    assert float(reference.box_muller(words[:1], words[:1]).abs().max()) < 6.8


def test_every_element_is_written():
    from torch.utils.dlpack import to_dlpack

    if native.module() is None:
        pytest.skip(str(native.why_missing()))
    for kind, dtype in ((1, torch.float32), (2, torch.float32)):
        out = torch.full((13, 7), float("nan"), dtype=dtype)
        native.require().counter_random(kind, 3, 0, 0, None, 0, 1, to_dlpack(out))
        assert not bool(out.isnan().any())


def test_a_million_normals_look_normal():
    x = normal(7, 0, 3, range(1000), 1000).double()
    assert abs(float(x.mean())) < 4e-3
    assert abs(float(x.square().mean()) - 1.0) < 6e-3
    assert abs(float(x.pow(4).mean()) - 3.0) < 4e-2
    neighbours = (x[:, 1:] * x[:, :-1]).mean(), (x[1:] * x[:-1]).mean(), (x[:, 0::2] * x[:, 1::2]).mean()
    assert max(abs(float(c)) for c in neighbours) < 6e-3
    counts = torch.histc(uniform(7, 1, 3, range(1000), 1000), 100, 0.0, 1.0)
    assert float(((counts - 1e4).square() / 1e4).sum()) < 160  # chi-squared with 99 degrees of freedom


def test_a_sample_depends_on_its_number_alone(backend):
    whole = uniform_bits(5, 2, 11, range(24), 6)
    for rank in range(4):
        assert torch.equal(uniform_bits(5, 2, 11, range(rank, 24, 4), 6), whole[rank::4])
    assert torch.equal(uniform_bits(5, 2, 11, range(24), 4), whole[:, :4])
    assert torch.equal(uniform_bits(5, 2, torch.tensor(11), torch.arange(24), 6), whole)
    for other in ((6, 2, 11), (5, 3, 11), (5, 2, 12)):
        assert not bool((uniform_bits(*other, range(24), 6) == whole).any())


@pytest.mark.parametrize("device", [CUDA])
def test_a_gpu_draws_the_same(device):
    step, samples = torch.tensor(9, device=device), torch.arange(33, device=device)
    ours = uniform_bits(8, 1, step, samples, 7)
    assert ours.device.type == "cuda"
    assert torch.equal(ours.cpu(), reference_words(8, 1, 9, range(33), 7))
    assert torch.equal(ours, uniform_bits(8, 1, 9, range(33), 7, device))
    on_cpu = normal(8, 1, 9, range(33), 7)
    assert float((normal(8, 1, step, samples, 7).cpu() - on_cpu).abs().max()) < 1e-5
    with dispatch.use_backend("counter_random=reference"):
        assert torch.equal(uniform_bits(8, 1, step, samples, 7), ours)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((0, 0, 2**32, range(2), 1), "step: expected 0 to"),
        ((0, 0, -1, range(2), 1), "step: expected 0 to"),
        ((0, 0, torch.tensor(2**32), range(2), 1), "step: expected 0 to"),
        ((0, 0, torch.tensor([1]), range(2), 1), "step: expected an int or a 0-d"),
        ((0, -1, 0, range(2), 1), "stream: expected"),
        ((0, 0, 0, torch.arange(2.0), 1), r"samples: expected int64 \[B\], got torch.float32"),
        ((0, 0, 0, torch.zeros(2, 2, dtype=torch.long), 1), r"samples: expected int64 \[B\]"),
        ((0, 0, 0, range(2), 0), "num_words: expected at least 1"),
        ((0, 0, 0, torch.arange(2), 1, "meta"), "samples: expected a tensor on meta"),
    ],
)
def test_wrong_arguments_are_named(arguments, message):
    with pytest.raises(ValueError, match=message):
        uniform_bits(*arguments)


def test_why_a_backend_does_not_run():
    assert "CPU" in str(native_op.supports(torch.device("cuda")))
    [choice] = dispatch.explain("counter_random", torch.device("cpu"))
    assert choice.backend.name == ("native" if native.module() is not None else "reference")
    assert "triton" in choice.reasons


def test_numbers_are_made_on_the_device_of_the_tensors(monkeypatch):
    """Whichever GPU is the current one."""
    seen = []

    def select(op, where):
        seen.append(where)
        raise InterruptedError

    monkeypatch.setattr(dispatch, "select", select)
    with FakeTensorMode():
        samples = torch.empty(4, dtype=torch.int64, device="cuda:1")
        step = torch.empty((), dtype=torch.int64, device="cuda:1")
    for arguments in ((0, samples), (step, samples), (step, range(4))):
        for device in ("cuda", "cuda:1"):
            with pytest.raises(InterruptedError):
                uniform(0, 0, *arguments, 1, device)
            assert seen.pop() == torch.device("cuda", 1)
    with pytest.raises(ValueError, match="samples: expected a tensor on cuda:0, got one on cuda:1"):
        uniform(0, 0, 0, samples, 1, "cuda:0")
    with pytest.raises(ValueError, match="step: expected a tensor on cuda:0, got one on cuda:1"):
        uniform(0, 0, step, range(4), 1, "cuda:0")
