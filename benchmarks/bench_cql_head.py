"""cql_head against hoisted PyTorch and against the plain concatenation, forward and with backward; one thread.

``concat`` is what the reference, CORL and d3rlpy do: every sampled action with its own copy of the state (for a head
that sees embedding or action in every layer, of every layer's input), all critics in one batched product. ``hoisted``
is the same algebra as ours in PyTorch (``reference.py``). Peak memory is the growth of the resident set of a fresh
process.
"""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch

from benchmarks.harness import compare, one_thread_clock
from ptr_fast import native
from ptr_fast.kernels.cql_head import native as native_op
from ptr_fast.kernels.cql_head import reference
from ptr_fast.nets.critic import EnsembleHead
from ptr_fast.nets.init import keyed_generator


@dataclass(frozen=True)
class Case:
    num_critics: int
    num_states: int
    num_actions: int
    hidden_dims: tuple[int, ...]
    embedding_dim: int
    state_dim: int = 7
    action_dim: int = 7
    form: str = "reinject_all"
    rounds: int = 25


CASES = {
    "ptr_b64": Case(2, 64, 9, (256,) * 3, 256),
    "ptr_b256": Case(2, 256, 9, (256,) * 3, 256, rounds=15),
    "ptr_b64_k17": Case(2, 64, 17, (256,) * 3, 256),
    "ptr_b256_k17": Case(2, 256, 17, (256,) * 3, 256, rounds=9),
    "ptr_target_b64": Case(2, 64, 4, (256,) * 3, 256),
    "ptr_actor_b64": Case(2, 64, 1, (256,) * 3, 256),
    "sim_b64": Case(2, 64, 17, (128,) * 3, 64),
    "sim_search": Case(2, 1, 50, (128,) * 3, 64),
    "state_only_b256": Case(2, 256, 31, (256,) * 3, 0, 17, 6, "plain", rounds=9),
    "ten_critics": Case(10, 32, 91, (256,) * 3, 512, rounds=5),
}
VARIANTS = ("native", "hoisted", "concat")


class Work:
    """One case: the head, its inputs, and the three ways to run it."""

    def __init__(self, case: Case) -> None:
        self.case, generator = case, keyed_generator(0)
        self.head = EnsembleHead(
            case.form,
            case.num_critics,
            embedding_dim=case.embedding_dim,
            state_dim=case.state_dim,
            num_task_slots=16,
            action_dim=case.action_dim,
            hidden_dims=case.hidden_dims,
        )
        self.head.initialise(generator)
        B, K = case.num_states, case.num_actions
        self.embedding = torch.randn(B, case.embedding_dim, generator=generator).requires_grad_()
        self.state = torch.randn(B, case.state_dim, generator=generator)
        self.task = torch.zeros(B, dtype=torch.int64)
        self.actions = 2 * torch.rand(B, K, case.action_dim, generator=generator) - 1
        self.log_weight = torch.randn(B, K, generator=generator)
        if K > 1:
            self.log_weight[:, 0] = -torch.inf
        self.leaves = [*self.head.parameters()] + ([self.embedding] if case.embedding_dim else [])

    def q(self, variant: str) -> tuple[torch.Tensor, torch.Tensor]:
        """Q and the log-sum-exp, hoisting included."""
        if variant == "concat":
            q = self._concat()
            return q, (q + self.log_weight).logsumexp(dim=2)
        op = native_op if variant == "native" else reference
        hoisted = self.head.hoist(self.embedding, self.state, self.task)
        args = hoisted.state_terms, hoisted.action_weights, hoisted.hidden_weights
        return op.cql_head(*args, self.actions, self.log_weight)

    def _concat(self) -> torch.Tensor:
        E, B, K = self.case.num_critics, self.case.num_states, self.case.num_actions
        rows = {
            "embedding": self.embedding[:, None].expand(-1, K, -1).reshape(B * K, -1),
            "state": self.state[:, None].expand(-1, K, -1).reshape(B * K, -1),
            "task": torch.nn.functional.one_hot(self.task, 16).float()[:, None].expand(-1, K, -1).reshape(B * K, -1),
            "action": self.actions.reshape(B * K, -1),
        }
        inputs = {name: value.expand(E, -1, -1) for name, value in rows.items()}
        out = torch.empty(0)
        for parts, kernel, bias in zip(self.head.inputs, self.head.kernels, self.head.biases, strict=True):
            out = torch.baddbmm(bias[:, None], torch.cat([inputs[name] for name, _ in parts], dim=2), kernel)
            inputs["hidden"] = out.relu()
        return out.view(E, B, K)

    def forward(self, variant: str) -> tuple[torch.Tensor, torch.Tensor]:
        with torch.no_grad():
            return self.q(variant)

    def forward_backward(self, variant: str) -> list[torch.Tensor]:
        q, lse = self.q(variant)
        loss = (lse - q[:, :, 0]).mean() + q[:, :, 0].square().mean()
        return [q.detach(), *torch.autograd.grad(loss, self.leaves)]

    def action_gradient(self, variant: str) -> list[torch.Tensor]:
        """What the actor step does: a frozen critic, hoisted without gradients."""
        actions = self.actions.detach().requires_grad_()
        with torch.no_grad():
            hoisted = self.head.hoist(self.embedding, self.state, self.task)
        op = native_op if variant == "native" else reference
        args = hoisted.state_terms, hoisted.action_weights, hoisted.hidden_weights
        return list(torch.autograd.grad(op.cql_head(*args, actions, None)[0].mean(), actions))

    def gate(self) -> None:
        wanted = self.forward_backward("concat")
        # The gradient of the last bias is the sum of a softmax minus one: rounding, and as large as that of the others.
        floor = 1e-6 * max(b.norm().item() for b in wanted[1:])
        for variant in ("native", "hoisted"):
            for a, b in zip(self.forward_backward(variant), wanted, strict=True):
                # In norm: single units within rounding of 0 may pass the ReLU in one and not in the other.
                assert (a - b).norm().item() <= 1e-4 * b.norm().item() + floor, variant


def gflop(case: Case) -> float:
    """Of one forward pass after hoisting: products of rows with hidden and action weights, 1e9 operations."""
    rows = case.num_critics * case.num_states * case.num_actions
    widths = (*case.hidden_dims, 1)
    per_row = sum(a * b for a, b in zip(widths, widths[1:], strict=False))
    seen = widths[:1] if case.form == "plain" else widths
    return 2e-9 * rows * (per_row + case.action_dim * sum(seen))


def peak_memory_mb(variant: str, name: str) -> float:
    """Growth of the resident set over one forward and backward in a fresh process, MB."""
    command = [sys.executable, "-m", "benchmarks.bench_cql_head", variant, name]
    return float(subprocess.run(command, check=True, capture_output=True, text=True).stdout)


def _status_mb(field: str) -> float:
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(field):
            return float(line.split()[1]) / 1024
    raise RuntimeError(f"/proc/self/status has no {field}")


@pytest.mark.skipif(native.module() is None, reason="there is no native module to measure")
@pytest.mark.parametrize("name", CASES)
def test_cql_head(name: str) -> None:
    case = CASES[name]
    work = Work(case)
    modes: dict[str, Callable] = {"forward": work.forward}
    if case.num_states > 1:
        modes["forward+backward"] = work.forward_backward
    if case.num_actions == 1:
        modes["forward+gradient of the actions"] = work.action_gradient
    sizes = (
        f"{case.num_critics} critics x {case.num_states} x {case.num_actions}, {'x'.join(map(str, case.hidden_dims))}"
    )
    for mode, run in modes.items():
        extra = {}
        if mode != "forward" and name in ("ptr_b256", "ten_critics"):
            extra["peak_memory_mb"] = {variant: round(peak_memory_mb(variant, name), 1) for variant in VARIANTS}
        variants = VARIANTS if run != work.action_gradient else VARIANTS[:2]
        compare(
            "cql_head",
            f"{name} ({sizes}, {case.form}) {mode}",
            {variant: lambda variant=variant, run=run: run(variant) for variant in variants},
            work.gate,
            clock=one_thread_clock(),
            num_rounds=case.rounds,
            gflop_forward=round(gflop(case), 3),
            **extra,
        )


if __name__ == "__main__":
    torch.set_num_threads(1)
    native.keep_freed_memory()
    the_work = Work(CASES[sys.argv[2]])
    before = _status_mb("VmRSS")
    the_work.forward_backward(sys.argv[1])
    print(_status_mb("VmHWM") - before)
