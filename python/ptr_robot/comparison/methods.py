"""The methods that can be compared: which recipe, which way to the new task, how they act.

A method's recipe is ``SCALE-RECIPE``, e.g. ``states-bc`` or ``sim-cql``; see ``ptr_robot.recipes``.
"""

from __future__ import annotations

import difflib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

__all__ = ["METHODS", "Method", "find_method", "recipe_of"]

Route = Literal["finetune", "joint", "target", "encoder"]


@dataclass(frozen=True, kw_only=True)
class Method:
    """One column of the table.

    Attributes:
        name: as a grid names it.
        title: as tables show it.
        recipe: of the policy, without the scale.
        route: how the demonstrations of the target are used. ``finetune``: after pre-training on the prior data;
            ``joint``: mixed with them from the first update; ``target``: alone; ``encoder``: an image encoder is
            pre-trained on the prior data, and a policy of ``recipe`` learns from the demonstrations with it.
        modes: acting modes that are tried; the first is the method's own.
        encoder: recipe of the encoder's pre-training, of route ``encoder``.
        freeze: the encoder stays as it was pre-trained.
        critic: method whose pre-training, with the same seed, gives the critic that this one learns from.
        options: more options of every training of the policy.
    """

    name: str
    title: str
    recipe: str
    route: Route = "finetune"
    modes: tuple[str, ...] = ("mean",)
    encoder: str = ""
    freeze: bool = False
    critic: str = ""
    options: tuple[str, ...] = ()


def recipe_of(scale: str, method: str) -> str:
    """Name of a method's recipe at a scale."""
    name = f"{scale}-{method}"
    return _OLDER_NAMES.get(name, name)


_OLDER_NAMES = {"sim-cql": "sim", "smoke-cql": "smoke", "bridge-cql": "bridge"}

_ALL = (
    Method(name="cql", title="PTR (CQL as published)", recipe="cql", modes=("mean", "search")),
    Method(name="bc", title="BC", recipe="bc"),
    Method(name="bc-joint", title="BC, joint", recipe="bc", route="joint"),
    Method(name="bc-target", title="BC, target alone", recipe="bc", route="target"),
    Method(name="cog", title="COG (CQL, joint)", recipe="cql", route="joint", modes=("mean", "search")),
    Method(name="cql-target", title="CQL, target alone", recipe="cql", route="target", modes=("mean", "search")),
)
METHODS = {method.name: method for method in _ALL}


def find_method(name: str) -> Method:
    """The method of a name.

    Raises:
        ValueError: there is none; with the nearest.
    """
    if name in METHODS:
        return METHODS[name]
    close: Sequence[str] = difflib.get_close_matches(name, METHODS, n=1)
    hint = f" (did you mean {close[0]!r}?)" if close else ""
    raise ValueError(f"unknown method {name!r}{hint}; methods: {', '.join(METHODS)}")
