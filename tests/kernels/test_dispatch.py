"""dispatch: the choice of an implementation, its reasons, and what forcing one means."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from types import SimpleNamespace

import pytest
import torch
from torch._subclasses.fake_tensor import FakeTensorMode

from ptr_fast.kernels import dispatch, triton_backend
from ptr_fast.kernels.dispatch import Backend


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[torch.Size]:
    """An op ``double`` with a backend ``fast`` for even sizes; the list says what ``fast`` was asked about."""
    monkeypatch.setattr(dispatch, "_ops", {})
    monkeypatch.setattr(dispatch, "_choices", {})
    monkeypatch.delenv("PTR_FAST_BACKEND", raising=False)
    asked: list[torch.Size] = []

    def supports(x: torch.Tensor) -> str | None:
        asked.append(x.shape)
        return None if x.shape[0] % 2 == 0 else "odd size"

    fast = Backend("fast", lambda x: x + x, supports)
    dispatch.register("double", (fast, Backend("reference", lambda x: 2 * x, lambda x: None)))
    return asked


def test_first_that_supports_wins_and_is_remembered(asked: list[torch.Size]) -> None:
    even, odd = torch.ones(4), torch.ones(3)
    assert dispatch.select("double", even).name == "fast"
    assert dispatch.select("double", odd).name == "reference"
    assert len(asked) == 2
    dispatch.select("double", even)
    dispatch.select("double", odd)
    assert len(asked) == 2
    dispatch.select("double", even.double())
    assert len(asked) == 3


def test_what_is_slower_on_some_arguments_is_taken_there_only_where_it_is_forced(asked: list[torch.Size]) -> None:
    small = Backend("small", lambda x: x * 2, lambda x: None, slower=lambda x: "large" if len(x) > 4 else None)
    dispatch.register("twice", (small, Backend("reference", lambda x: 2 * x, lambda x: None)))
    few, many = torch.ones(4), torch.ones(5)
    assert dispatch.select("twice", few).name == "small"
    assert dispatch.select("twice", many).name == "reference"
    assert dispatch.explain("twice", many)[0].reasons == {"small": "large"}
    with dispatch.use_backend("small"):
        assert dispatch.select("twice", many).name == "small"


def test_explain(asked: list[torch.Size]) -> None:
    assert dispatch.explain() == []
    dispatch.select("double", torch.ones(3))
    assert [str(c) for c in dispatch.explain()] == ["double(float32[3]@cpu) -> reference (not fast: odd size)"]
    (hypothetical,) = dispatch.explain("double", torch.ones(8))
    assert hypothetical.backend.name == "fast"
    assert len(dispatch.explain("double")) == 1


def test_forced_runs_or_raises(asked: list[torch.Size], monkeypatch: pytest.MonkeyPatch) -> None:
    with dispatch.use_backend("reference"):
        assert dispatch.select("double", torch.ones(4)).name == "reference"
    assert dispatch.select("double", torch.ones(4)).name == "fast"
    with dispatch.use_backend("fast"), pytest.raises(RuntimeError, match=r"'fast' was asked for.*odd size"):
        dispatch.select("double", torch.ones(3))
    with dispatch.use_backend("triton"), pytest.raises(ValueError, match="no backend 'triton'"):
        dispatch.select("double", torch.ones(4))
    monkeypatch.setenv("PTR_FAST_BACKEND", "reference")
    assert dispatch.select("double", torch.ones(4)).name == "reference"
    monkeypatch.setenv("PTR_FAST_BACKEND", "double=fast")
    assert dispatch.select("double", torch.ones(4)).name == "fast"
    monkeypatch.setenv("PTR_FAST_BACKEND", "treble=fast")
    with pytest.raises(ValueError, match="unknown ops"):
        dispatch.select("double", torch.ones(4))


@pytest.mark.parametrize(
    ("names", "message"),
    [
        ("fats", "no op has a backend 'fats'"),
        ("double=fats", "double has no backend 'fats'"),
        ("treble=fast", "unknown ops"),
        ("double=fast,fast", "expected op=backend"),
        ("double=fast,double=reference", "every op once"),
    ],
)
def test_a_backend_that_there_is_not_is_refused_before_the_first_op(
    asked: list[torch.Size], names: str, message: str
) -> None:
    with dispatch.use_backend(names), pytest.raises(ValueError, match=message):
        dispatch.check_forced(torch.device("cpu"))
    assert asked == []
    for right in ("fast", "reference", "double=fast"):
        with dispatch.use_backend(right):
            dispatch.check_forced(torch.device("cpu"))


@pytest.mark.parametrize(
    ("names", "device", "message"),
    [
        ("triton", "cpu", "no backend 'triton' here .*GPUs.*; on this cpu it has .*'reference'"),
        (
            "augment=triton",
            "cpu",
            "augment has no backend 'triton' here .*; on this cpu it has .*'planar', 'reference'",
        ),
        ("native", "cuda", "native kernels are for the CPU"),
        ("planar", "cpu", "has no backend 'planar' here .it has none of this name"),
    ],
)
def test_a_backend_of_another_device_is_refused_before_the_first_op(names, device, message, monkeypatch) -> None:
    for op in ("augment", "cql_head", "group_norm_act"):  # who imports an op registers it
        importlib.import_module(f"ptr_fast.kernels.{op}")
    monkeypatch.delenv("TRITON_INTERPRET", raising=False)
    with dispatch.use_backend(names), pytest.raises(ValueError, match=message):
        dispatch.check_forced(torch.device(device))
    with dispatch.use_backend("reference"):
        dispatch.check_forced(torch.device(device))


def test_registration_errors(asked: list[torch.Size]) -> None:
    only = Backend("fast", lambda x: x, lambda x: None)
    with pytest.raises(ValueError, match="registered already"):
        dispatch.register("double", (only,))
    with pytest.raises(ValueError, match="last backend must be the reference"):
        dispatch.register("treble", (only,))
    with pytest.raises(ValueError, match="unknown op 'treble'"):
        dispatch.select("treble", torch.ones(1))


def test_triton_kernels_are_launched_on_the_device_of_their_tensors(monkeypatch: pytest.MonkeyPatch) -> None:
    """Triton launches on the current device, which may be another one."""
    launched: list[tuple[object, ...]] = []
    current = [torch.device("cuda", 0)]

    @contextmanager
    def device(wanted: torch.device) -> Iterator[None]:
        current.append(wanted)
        yield
        current.pop()

    op = SimpleNamespace(toy=lambda *args: launched.append((current[-1], *args)))
    monkeypatch.setitem(sys.modules, "ptr_fast.kernels.toy.triton", op)
    monkeypatch.setattr(torch.cuda, "device", device)
    with FakeTensorMode():
        first, second = (torch.empty(2, device=f"cuda:{i}") for i in range(2))
    run = triton_backend.lazy_backend("toy").run
    for args in ((first, 1), (1.0, second), ((None, second), None), (torch.device("cuda", 1), 0), (torch.ones(1), 0)):
        run(*args)
    assert [place[0].index for place in launched] == [0, 1, 1, 1, 0]
