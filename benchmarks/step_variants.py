"""The variants of one update that are timed against each other, each behind the same three calls.

F ours; E the same algebra in plain PyTorch under ``torch.compile``; D the same eagerly; C a literal port of the
published step to PyTorch; B the algebra in JAX; A the published computation graph in JAX. Every variant starts from the
same weights and takes the gate's step on the same batch and draws; from then on each draws its own numbers.
"""

from __future__ import annotations

import functools
import tempfile
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from torch.utils.flop_counter import FlopCounterMode

from benchmarks.cases import StepCase, export, make_batch, make_learner, parameters_by_name
from benchmarks.harness import Milliseconds
from benchmarks.peers.client import Worker, interpreter_with
from benchmarks.peers.literal_port import LiteralPort
from benchmarks.peers.plain_step import PlainStep
from ptr_fast.kernels import dispatch
from ptr_fast.learners import CqlLearner, Draws
from ptr_fast.learners.optimizer import AdamPolyak

__all__ = ["LOSSES", "JaxVariant", "TorchVariant", "Variant", "ablations", "count_gflop", "gate"]

LOSSES = ("critic_loss", "bellman_loss", "cql_loss", "actor_loss", "temperature_loss")
JAX_PACKAGES = ("jax", "flax", "optax")


class Variant(Protocol):
    """One way to run an update.

    Attributes:
        details: what the row should say of it: ``gflop``, ``compile_s`` ...
    """

    details: dict[str, Any]

    def check(self) -> tuple[dict[str, float], dict[str, torch.Tensor]]:
        """Losses of the gate's step, and the weights after it."""

    def step(self) -> Any:
        """One timed step."""

    def close(self) -> None:
        """Let go of processes."""


class TorchVariant:
    """A variant in this process.

    Args:
        case: sizes.
        kind: ``ours``, ``plain``, ``compiled`` or ``literal``.
        backend: forced in ``ptr_fast.kernels.dispatch`` while it runs, e.g. ``cql_head=reference``.
        torch_adam: ours with PyTorch's fused Adam and a foreach average in place of the fused pass.
        dtype: of the encoder's activations.
        compile_options: of ``torch.compile`` for the kind ``compiled``.
        device: where it runs.
    """

    def __init__(
        self,
        case: StepCase,
        kind: str,
        *,
        backend: str | None = None,
        torch_adam: bool = False,
        dtype: torch.dtype = torch.float32,
        compile_options: dict[str, Any] | None = None,
        device: str = "cpu",
    ) -> None:
        self.case, self.kind, self.backend, self.device = case, kind, backend, device
        narrow = {} if dtype == torch.float32 else {"encoder_dtype": dtype}
        self.learner: CqlLearner = make_learner(case, device, **(narrow if kind == "ours" else {}))
        self.batch = make_batch(case, device)
        self.draws = self.learner.draw(range(case.num_batch), 1)
        self.number, self.details = 1, {}
        if torch_adam:
            for name in ("_actor_adam", "_critic_adam", "_temperature_adam"):
                setattr(self.learner, name, _TorchAdam(getattr(self.learner, name)))
        if kind == "ours":
            self._update: Callable[..., Any] = self._ours
        elif kind == "literal":
            port = LiteralPort(self.learner, dtype)
            self._update = lambda draws: _losses(port.update_with_terms(self.batch, 0, draws))
        else:
            plain = PlainStep(self.learner, dtype, compile_options if kind == "compiled" else None)
            self._plain, self._update = plain, lambda draws: plain.update(self.batch, draws)

    def check(self) -> tuple[dict[str, float], dict[str, torch.Tensor]]:
        begin = time.perf_counter()
        if self.kind == "compiled":
            losses = self.run(self.draws)
            self.details["compile_s"] = round(time.perf_counter() - begin, 1)
        else:
            losses = self.run(self.draws)
            self.details["gflop"] = count_gflop(self.case, self.kind)
        weights = self._plain.weights if hasattr(self, "_plain") else parameters_by_name(self.learner)
        return {k: float(v) for k, v in losses.items()}, {k: v.detach().cpu() for k, v in weights.items()}

    def step(self) -> torch.Tensor:
        self.number += 1
        return self.run(None)["critic_loss"]

    def close(self) -> None:
        """Nothing to let go of."""

    def run(self, draws: Draws | None) -> dict[str, torch.Tensor]:
        if self.backend is None:
            return self._update(draws)
        with dispatch.use_backend(self.backend):
            return self._update(draws)

    def _ours(self, draws: Draws | None) -> dict[str, torch.Tensor]:
        return _losses(self.learner.update_with_terms(self.batch, self.number, draws))


@functools.cache
def count_gflop(case: StepCase, kind: str) -> float:
    """Floating-point operations of one update, 1e9; those of our own kernels by their reference.

    Counted on the CPU at batch 2: they are proportional to the batch.
    """
    variant = TorchVariant(replace(case, num_batch=2), kind, backend="cql_head=reference" if kind == "ours" else None)
    with FlopCounterMode(display=False) as counter:
        variant.run(variant.draws)
    return round(counter.get_total_flops() / 2e9 * case.num_batch, 3)


class JaxVariant:
    """A variant in a process of its own.

    Args:
        case: sizes.
        shared_forwards: nine encoder forwards instead of the published 19.
        dtype: of the encoder: ``float32`` or ``bfloat16``.
        platform: ``cpu`` or ``cuda``.
        count: steps that are launched one after another and timed as one.

    Raises:
        ModuleNotFoundError: JAX, Flax or Optax are not installed.
    """

    def __init__(
        self, case: StepCase, shared_forwards: bool, dtype: str = "float32", platform: str = "cpu", count: int = 1
    ) -> None:
        python = interpreter_with(*JAX_PACKAGES)
        if python is None:
            raise ModuleNotFoundError("jax, flax and optax are not installed (make peers)")
        self._folder = tempfile.TemporaryDirectory()
        cache = Path(tempfile.gettempdir()) / "ptr-fast-bench-jax"
        environment = {"JAX_PLATFORMS": platform, "PTR_FAST_BENCH_JAX_CACHE": str(cache)}
        if platform == "cpu":
            environment["PTR_FAST_BENCH_THREADS"] = str(torch.get_num_threads())
        self._worker = Worker("benchmarks.peers.jax_worker", python, environment)
        self._case, self._shared, self._dtype = case, shared_forwards, dtype
        self._number, self._count, self.details = 1, count, {}

    def check(self) -> tuple[dict[str, float], dict[str, torch.Tensor]]:
        learner = make_learner(self._case)
        config, encoder = learner.config, learner.config.encoder
        before, after = Path(self._folder.name) / "before.npz", Path(self._folder.name) / "after.npz"
        export(before, learner, make_batch(self._case), learner.draw(range(self._case.num_batch), 1))
        sizes = {
            "encoder": encoder.name,
            "num_filters": encoder.num_filters,
            "num_groups": encoder.num_groups,
            "num_features": encoder.num_spatial_blocks,
            "embedding_dim": encoder.embedding_dim,
            "action_dim": learner.spec.action.dim,
            "num_task_slots": learner.spec.tasks.num_slots,
            "target_entropy": learner.target_entropy,
            "hidden_dims": list(config.hidden_dims),
        }
        names = ("num_critics", "num_action_samples", "discount", "tau", "cql_alpha")
        sizes |= {name: getattr(config, name) for name in (*names, "actor_lr", "critic_lr", "temperature_lr")}
        answer = self._worker.ask(
            "setup", file=str(before), sizes=sizes, shared_forwards=self._shared, dtype=self._dtype
        )
        self.details = {key: answer[key] for key in ("gflop", "compile_s", "device", "versions")}
        self._worker.ask("weights", file=str(after))
        with np.load(after) as weights:
            return answer["losses"], {name: torch.from_numpy(weights[name]) for name in weights.files}

    def step(self) -> Milliseconds:
        self._number += self._count
        return Milliseconds(self._worker.ask("step", number=self._number, count=self._count)["ms"])

    def close(self) -> None:
        self._worker.close()
        self._folder.cleanup()


def gate(
    case: StepCase,
    variants: dict[str, Variant],
    loss_bound: float,
    update_bound: float,
    dropped: dict[str, str] | None = None,
) -> dict[str, dict[str, float]]:
    """Every variant's first step against that of the first one.

    Args:
        case: for the weights before the step.
        variants: name -> variant; the first is ours.
        loss_bound: largest relative difference of a loss.
        update_bound: largest difference of the weights' change, relative to ours, in the 2-norm of all weights. Adam's
            first step is the sign of the gradient, so elements whose gradient is rounding noise may differ in sign.
        dropped: a variant other than ours that raises or computes something else is taken out of ``variants`` and
            closed, and the reason put in here; None: it raises.

    Returns:
        Per variant ``loss`` and ``update``: what was found.

    Raises:
        AssertionError: a variant computes something else.
    """
    before = {name: value.detach() for name, value in parameters_by_name(make_learner(case)).items()}
    found: dict[str, dict[str, float]] = {}
    ours: tuple[dict[str, float], torch.Tensor] | None = None
    for name, variant in list(variants.items()):
        try:
            losses, weights = variant.check()
            if torch.cuda.is_available():
                torch.cuda.synchronize()  # what goes wrong on the device is this variant's fault
            change = torch.cat([(weights[key] - value).flatten() for key, value in before.items()])
            ours = ours or (losses, change)
            # np.max is NaN where one of them is; Python's would pass it over.
            loss = float(np.max([abs(losses[key] - ours[0][key]) / max(abs(ours[0][key]), 1e-3) for key in LOSSES]))
            update = float((change - ours[1]).norm() / ours[1].norm())
            found[name] = {"loss": round(loss, 6), "update": round(update, 4)}
            assert loss <= loss_bound, f"{name}: losses {losses}, ours {ours[0]}"
            assert update <= update_bound, f"{name}: the update is {update:.3f} away from ours"
        except ModuleNotFoundError:
            raise  # a peer that is not installed: the row says so
        except Exception as error:
            if dropped is None or variant is next(iter(variants.values())):
                raise
            dropped[name] = f"{type(error).__name__}: {error}"[:500]
            variants.pop(name).close()
    return found


class _TorchAdam(torch.optim.Adam):
    """PyTorch's fused Adam, then a foreach average, with the parameters, rate and averages of our optimiser."""

    def __init__(self, ours: AdamPolyak) -> None:
        self._average, self._tau, parameters = ours._averages, ours._tau, ours._parameters
        rate = ours.param_groups[0]["lr"]
        super().__init__(
            parameters, lr=rate, betas=(0.9, 0.999), eps=1e-8, fused=True, capturable=parameters[0].is_cuda
        )
        self._parameters = parameters

    @torch.no_grad()
    def step(self, closure: None = None) -> None:  # type: ignore[override]
        super().step()
        if self._average is not None:
            torch._foreach_lerp_(list(self._average), list(self._parameters), self._tau)


def ablations(explained: list[dispatch.Choice], device: str = "cpu") -> dict[str, dict[str, Any]]:
    """Name -> options of :class:`TorchVariant`: without each fast kernel that ran, and without all of them.

    Instead of a kernel runs what stands after it in its op's list and can run on the device; instead of
    ``adam_polyak``, whose reference is written to be read, PyTorch's fused Adam and a foreach average.
    """
    instead: dict[str, str] = {}
    for choice in explained:
        names = dispatch.possible(choice.op, torch.device(device))
        if choice.backend.name != names[-1] and not choice.forced:
            instead[choice.op] = names[names.index(choice.backend.name) + 1]
    has_adam = instead.pop("adam_polyak", None) is not None
    forced = {op: f"{op}={backend}" for op, backend in sorted(instead.items())}
    made: dict[str, dict[str, Any]] = {f"without_{op}": {"backend": pair} for op, pair in forced.items()}
    if has_adam:
        made["without_adam_polyak"] = {"torch_adam": True}
    if made:
        made["without_any_kernel"] = {"backend": ",".join(forced.values()) or None, "torch_adam": has_adam}
    return made


def _losses(terms: Any) -> dict[str, torch.Tensor]:
    return {name: getattr(terms, name) for name in LOSSES}
