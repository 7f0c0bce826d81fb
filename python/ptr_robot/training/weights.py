"""``--data.weights``: how often the steps of a store or of a task are drawn, compared with all others.

``--data.weights kitchen_b=2.0 "task:open drawer=0.5"`` draws a step of the store ``kitchen_b`` twice as often as one of
any other store, and a step of the task half as often as one of any other task. A step that both name has both factors.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

__all__ = ["Weight", "check_weights", "factors", "parse_weights"]

TASK = "task:"


@dataclass(frozen=True)
class Weight:
    """One factor.

    Attributes:
        kind: ``store`` or ``task``.
        name: the store's folder (a path, or its last name alone), or the task's name.
        factor: positive and finite.
    """

    kind: str
    name: str
    factor: float

    def __str__(self) -> str:
        return f"{TASK if self.kind == 'task' else ''}{self.name}={self.factor!r}"

    def is_of(self, store: Path) -> bool:
        """Whether it names this store."""
        return self.kind == "store" and (Path(self.name).resolve() == store.resolve() or self.name == store.name)

    def placed(self, place: Callable[[Path], Path]) -> Weight:
        """With the present place of a store that is named by its path."""
        by_path = self.kind == "store" and len(Path(self.name).parts) > 1
        return Weight(self.kind, str(place(Path(self.name).resolve())), self.factor) if by_path else self


def parse_weights(texts: Iterable[str]) -> list[Weight]:
    """Reads ``STORE=FACTOR`` and ``task:NAME=FACTOR``.

    Raises:
        ValueError: another form, a factor that is not a positive number, or something named twice.
    """
    weights: list[Weight] = []
    for text in texts:
        name, _, number = text.rpartition("=")
        kind = "task" if name.startswith(TASK) else "store"
        name = name.removeprefix(TASK) if kind == "task" else name
        try:
            factor = float(number)
        except ValueError:
            factor = math.nan
        if not name or not 0.0 < factor < math.inf:
            raise ValueError(
                f"data.weights: expected STORE=FACTOR or {TASK}NAME=FACTOR with a positive factor, got {text!r}"
            )
        if any((other.kind, other.name) == (kind, name) for other in weights):
            raise ValueError(f"data.weights: {kind} {name!r} is named twice")
        weights.append(Weight(kind, name, factor))
    return weights


def check_weights(weights: Sequence[Weight], stores: Sequence[Path], tasks: Iterable[str]) -> None:
    """Refuses a weight of a store or task that is not trained on, a name that fits two stores, and two of one store.

    Raises:
        ValueError: with those that are trained on.
    """
    known = sorted(set(tasks))
    for weight in weights:
        if weight.kind == "task" and weight.name not in known:
            raise ValueError(f"data.weights: no episode of the task {weight.name!r} is trained on; tasks: {known}")
        num_stores = sum(weight.is_of(store) for store in stores)
        if weight.kind == "store" and num_stores != 1:
            told = "no store is" if num_stores == 0 else f"{num_stores} stores are"
            raise ValueError(
                f"data.weights: {told} named {weight.name!r}; give the path of one of {', '.join(map(str, stores))}"
            )
    for store in stores:
        if len(names := [weight.name for weight in weights if weight.is_of(store)]) > 1:
            raise ValueError(f"data.weights: {store} is named twice, as {' and '.join(map(repr, names))}")


def factors(weights: Sequence[Weight], store: Path, tasks: Iterable[str]) -> dict[str, float]:
    """The factor of the steps of every task in a store; tasks whose factor is 1 are left out."""
    of_store = math.prod(weight.factor for weight in weights if weight.is_of(store))
    found = {
        task: math.prod([of_store, *(w.factor for w in weights if (w.kind, w.name) == ("task", task))])
        for task in tasks
    }
    return {task: factor for task, factor in found.items() if factor != 1.0}
