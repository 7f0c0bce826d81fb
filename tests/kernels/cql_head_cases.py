"""Calls of cql_head for its tests: sizes, tensors by name, and all that both passes give."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch


@dataclass(frozen=True)
class Case:
    """Sizes of one call; which layers see the action and the state (a layer that does not see it has a bias)."""

    num_critics: int
    num_states: int
    num_actions: int
    action_dim: int
    hidden_dims: tuple[int, ...]
    sees_action: str = "all"  # or "first"
    sees_state: str = "all"  # or "first"


CASES = {
    "papers_form": Case(2, 5, 9, 7, (64, 64, 64)),
    "plain_form": Case(2, 6, 5, 3, (48, 48), "first", "first"),
    "action_again_but_no_state": Case(2, 6, 5, 3, (48, 40), "all", "first"),
    "one_action": Case(3, 20, 1, 4, (32, 32)),
    "one_critic_one_state": Case(1, 1, 50, 2, (32, 32)),
    "one_hidden_layer": Case(2, 4, 3, 2, (17,)),
    "odd_widths": Case(2, 3, 7, 5, (37, 13, 70)),
    "width_one": Case(1, 2, 2, 1, (1, 1)),
    "more_rows_than_a_tile": Case(1, 3, 131, 3, (24, 24)),
}


def make(case: Case, seed: int = 0, scale: float = 1.0) -> dict[str, torch.Tensor | None]:
    """Named tensors: ``state0`` .., ``action0`` .., ``hidden1`` .., ``actions``, ``log_weight``, ``dq``, ``dlse``."""
    generator = torch.Generator().manual_seed(seed)

    def normal(*size: int) -> torch.Tensor:
        return torch.randn(*size, generator=generator)

    E, B, K, A = case.num_critics, case.num_states, case.num_actions, case.action_dim
    out: dict[str, torch.Tensor | None] = {}
    before = 0
    for i, H in enumerate((*case.hidden_dims, 1)):
        rows = B if i == 0 or case.sees_state == "all" else 1
        out[f"state{i}"] = normal(E, rows, H)
        out[f"action{i}"] = normal(E, A, H) / math.sqrt(A) if i == 0 or case.sees_action == "all" else None
        if i > 0:
            # A view into a kernel with other rows, as the hoisted weights are.
            out[f"hidden{i}"] = (normal(E, before + 3, H) * (scale * math.sqrt(2.0 / before)))[:, :before]
        before = H
    log_weight = normal(B, K)
    log_weight[:, 0] = -math.inf if K > 1 else 0.0
    return {
        **out,
        "actions": 2 * torch.rand(B, K, A, generator=generator) - 1,
        "log_weight": log_weight,
        "dq": normal(E, B, K),
        "dlse": normal(E, B),
    }


def arguments(given: dict[str, torch.Tensor | None], with_lse: bool = True) -> tuple:
    def layers(name: str, first: int) -> tuple:
        return tuple(given[f"{name}{i}"] for i in range(first, 99) if f"{name}{i}" in given)

    log_weight = given["log_weight"] if with_lse else None
    return layers("state", 0), layers("action", 0), layers("hidden", 1), given["actions"], log_weight


def call(op, given: dict[str, torch.Tensor | None], with_lse: bool = True):
    return op(*arguments(given, with_lse))


def run(op, given: dict[str, torch.Tensor | None], with_lse: bool = True) -> dict[str, torch.Tensor]:
    """q, lse and the gradients of everything else."""
    constants = ("log_weight", "dq", "dlse")
    leaves = {n: t.detach().requires_grad_() for n, t in given.items() if t is not None and n not in constants}
    q, lse = call(op, {**given, **leaves}, with_lse)
    outputs, weights = ((q, lse), (given["dq"], given["dlse"])) if with_lse else ((q,), (given["dq"],))
    gradients = torch.autograd.grad(outputs, list(leaves.values()), weights)
    out = {"q": q.detach(), **{f"d{name}": g for name, g in zip(leaves, gradients, strict=True)}}
    return {**out, "lse": lse.detach()} if with_lse else out


def double(given: dict[str, torch.Tensor | None]) -> dict[str, torch.Tensor | None]:
    return {name: None if t is None else t.double() for name, t in given.items()}
