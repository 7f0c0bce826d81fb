"""The data of a comparison: how its stores are made, and in which trials policies are tried."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any

__all__ = ["DataPlan", "find_data_set"]


@dataclass(frozen=True, kw_only=True)
class DataPlan:
    """One data set of a grid, as its file writes it.

    Attributes:
        about: one sentence.
        prior: options of ``ptr-fast collect`` that make the prior data, or one path: a store that is there.
        target: the same for the demonstrations of the new task; empty where there is no new task.
        task: instruction of the trials. kitchen: where they are.
        start, max_steps: of the trials, as options of ``ptr-fast rollout``.
    """

    about: str = ""
    prior: tuple[str, ...]
    target: tuple[str, ...] = ()
    task: str = "put block on plate"
    kitchen: str = "A"
    start: str = "easy"
    max_steps: int = 60


def find_data_set(name: str, plan: Mapping[str, Any] | None) -> DataPlan:
    """The data set of a name, or an own one.

    Args:
        plan: values of an own one; None looks the name up.

    Raises:
        ValueError: there is none of this name, or a value is unknown or missing.
    """
    if plan is None:
        raise ValueError(f"data: unknown data set {name!r}; give its plan: prior, target, task, kitchen")
    if not isinstance(plan, Mapping):
        raise ValueError(f"data: {name}: expected names and values such as 'prior: [...]', got {plan!r}")
    known = {f.name for f in fields(DataPlan)}
    if unknown := set(plan) - known:
        raise ValueError(f"data: {name}: unknown name {min(unknown)!r}; known: {', '.join(sorted(known))}")
    if not plan.get("prior"):
        raise ValueError(f"data: {name}: prior is missing: options of collect, or the path of a store")
    return DataPlan(**{**plan, "prior": _words(plan["prior"]), "target": _words(plan.get("target") or ())})


def _words(value: str | Sequence[Any]) -> tuple[str, ...]:
    return (value,) if isinstance(value, str) else tuple(map(str, value))
