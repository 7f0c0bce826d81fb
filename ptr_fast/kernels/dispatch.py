"""The one door through which an op finds its implementation.

An op registers its implementations, fastest first and the reference last. :func:`select` takes the first one that
supports the arguments; the choice is remembered per op, shapes, strides, dtypes, devices and precision of products in
PyTorch. A backend that is forced, by :func:`use_backend` or by ``PTR_FAST_BACKEND``, runs or raises.

``PTR_FAST_BACKEND`` is a name for every op (``native``) or pairs (``group_norm_act=reference,adam_polyak=native``).
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import Any

import torch

__all__ = [
    "Backend",
    "Choice",
    "check_forced",
    "clear",
    "explain",
    "forced",
    "ops",
    "possible",
    "register",
    "select",
    "use_backend",
]


@dataclass(frozen=True)
class Backend:
    """One implementation of an op.

    Attributes:
        name: ``native``, ``triton``, ``reference`` ...
        run: the implementation; every backend of an op has the same signature.
        supports: of the same arguments; None where it can run, else the reason why not.
        why_not_on: of a device; None where it can run there on some arguments, else the reason why not.
        slower: of the same arguments; None where it is taken, else why a later one is there: what was measured, or that
            nothing was. It is then taken only where it is forced.
    """

    name: str
    run: Callable[..., Any]
    supports: Callable[..., str | None]
    why_not_on: Callable[[torch.device], str | None] = lambda device: None
    slower: Callable[..., str | None] = lambda *args: None


@dataclass(frozen=True)
class Choice:
    """What :func:`select` decided for one op and one kind of arguments.

    Attributes:
        op: name of the op.
        backend: the implementation that runs.
        reasons: per faster implementation that does not run, why.
        arguments: shapes, dtypes and devices that were decided for.
        forced: whether the user asked for this backend.
    """

    op: str
    backend: Backend
    reasons: dict[str, str] = field(default_factory=dict)
    arguments: str = ""
    forced: bool = False

    def __str__(self) -> str:
        why = "; ".join(f"not {name}: {reason}" for name, reason in self.reasons.items())
        tail = " (forced)" if self.forced else f" ({why})" if why else ""
        return f"{self.op}({self.arguments}) -> {self.backend.name}{tail}"


_ops: dict[str, tuple[Backend, ...]] = {}
_choices: dict[tuple[Any, ...], Choice] = {}
_forced: ContextVar[str | None] = ContextVar("ptr_fast_backend", default=None)


def register(op: str, backends: tuple[Backend, ...]) -> None:
    """Declares the implementations of ``op``, fastest first, the reference last."""
    if op in _ops:
        raise ValueError(f"op {op!r} is registered already")
    if not backends or backends[-1].name != "reference":
        raise ValueError(f"op {op!r}: the last backend must be the reference, got {[b.name for b in backends]}")
    _ops[op] = backends


def ops() -> dict[str, tuple[str, ...]]:
    """Names of the registered ops and of their backends, in the order in which they are tried."""
    return {op: tuple(backend.name for backend in backends) for op, backends in _ops.items()}


def possible(op: str, device: torch.device) -> list[str]:
    """Names of an op's backends that can run on a device, in the order in which they are tried."""
    return [backend.name for backend in _ops[op] if backend.why_not_on(device) is None]


def select(op: str, *args: Any) -> Backend:
    """The implementation of ``op`` for these (positional) arguments.

    Raises:
        ValueError: an unknown op, or a forced backend that the op does not have.
        RuntimeError: the forced backend cannot run; the message carries its reason.
    """
    names = _forced_names()
    key = (op, names, torch.get_float32_matmul_precision(), *[_kind(arg) for arg in args])
    choice = _choices.get(key)
    if choice is None:
        choice = _choices[key] = _choose(op, names, args)
    return choice.backend


def explain(op: str | None = None, *args: Any) -> list[Choice]:
    """What was chosen so far (for ``op``), or, with arguments, what would be chosen for them; nothing is run."""
    if args:
        if op is None:
            raise ValueError("explain: arguments need an op")
        return [_choose(op, _forced_names(), args)]
    return [choice for choice in _choices.values() if op in (None, choice.op)]


def forced(op: str) -> str | None:
    """The backend that is forced for ``op`` here and now, or None."""
    return _wanted(op, _forced_names())


def check_forced(device: torch.device) -> None:
    """Refuses a forced backend that cannot be had before anything is run, for a program that writes files before that.

    Raises:
        ValueError: an unknown op, a backend that an op does not have, or one that cannot run on the device.
    """
    names = _forced_names()
    if names is None:
        return
    wanted = {op: _wanted(op, names) for op in _ops}
    if "=" not in names:
        known = sorted({name for backends in ops().values() for name in backends})
        if names not in known:
            raise ValueError(f"PTR_FAST_BACKEND or use_backend: no op has a backend {names!r}; there are {known}")
    for op, backends in _ops.items():
        name = wanted[op]
        if name is None:
            continue
        reasons = [backend.why_not_on(device) for backend in backends if backend.name == name]
        reason = reasons[0] if reasons else "it has none of this name"
        if reason is not None:
            raise ValueError(
                f"PTR_FAST_BACKEND or use_backend: {op} has no backend {name!r} here ({reason}); "
                f"on this {device.type} it has {possible(op, device)}"
            )


def clear() -> None:
    """Forgets all choices (after a change of what is available: for tests)."""
    _choices.clear()


@contextmanager
def use_backend(name: str) -> Iterator[None]:
    """Forces a backend inside the ``with`` block; the same syntax as ``PTR_FAST_BACKEND``."""
    token = _forced.set(name)
    try:
        yield
    finally:
        _forced.reset(token)


def _forced_names() -> str | None:
    return _forced.get() or os.environ.get("PTR_FAST_BACKEND") or None


def _kind(arg: Any) -> Any:
    if isinstance(arg, torch.Tensor):
        return arg.shape, arg.stride(), arg.dtype, arg.device
    if isinstance(arg, tuple):  # of tensors, which must not be kept alive here
        return tuple(_kind(item) for item in arg)
    return getattr(arg, "kind", arg)  # what holds many tensors says by its kind what a choice depends on


def _choose(op: str, forced: str | None, args: tuple[Any, ...]) -> Choice:
    if op not in _ops:
        raise ValueError(f"unknown op {op!r}; known: {sorted(_ops)}")
    backends = _ops[op]
    arguments = ", ".join(_describe(arg) for arg in args)
    wanted = _wanted(op, forced)
    if wanted is not None:
        for backend in backends:
            if backend.name == wanted:
                reason = backend.supports(*args)
                if reason is not None:
                    raise RuntimeError(f"{op}: backend {wanted!r} was asked for and cannot run: {reason}")
                return Choice(op, backend, arguments=arguments, forced=True)
        raise ValueError(f"{op} has no backend {wanted!r}; it has {[b.name for b in backends]}")
    reasons: dict[str, str] = {}
    for backend in backends:
        reason = backend.supports(*args) or backend.slower(*args)
        if reason is None:
            return Choice(op, backend, reasons, arguments)
        reasons[backend.name] = reason
    raise ValueError(f"{op}: no backend can run: {reasons}")


def _wanted(op: str, forced: str | None) -> str | None:
    if forced is None or "=" not in forced:
        return forced
    parts = [part.partition("=") for part in forced.split(",")]
    if not all(name and equals and backend for name, equals, backend in parts):
        raise ValueError(f"PTR_FAST_BACKEND or use_backend: expected op=backend,op=backend, got {forced!r}")
    pairs = {name: backend for name, _, backend in parts}
    if len(pairs) < len(parts):
        raise ValueError(f"PTR_FAST_BACKEND or use_backend: expected every op once, got {forced!r}")
    unknown = [name for name in pairs if name not in _ops]
    if unknown:
        raise ValueError(f"PTR_FAST_BACKEND or use_backend names unknown ops {unknown}; known: {sorted(_ops)}")
    return pairs.get(op)


def _describe(arg: Any) -> str:
    if isinstance(arg, torch.Tensor):
        dtype = str(arg.dtype).removeprefix("torch.")
        return f"{dtype}{list(arg.shape)}@{arg.device.type}"
    if isinstance(arg, tuple):
        return f"({', '.join(_describe(item) for item in arg)})"
    return repr(arg)
