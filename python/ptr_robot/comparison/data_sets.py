"""The data of a comparison: how its stores are made, and in which trials policies are tried."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any, get_args

if TYPE_CHECKING:
    from ptr_robot.sim.data_sets import DataSet

__all__ = ["DataPlan", "are_words", "find_data_set", "refuse_decided"]

DECIDED = {
    **{"--seed": "data_seed", "--observe": "scale", "--workers": "compare's own --workers"},
    **{"--out": "compare's own --out", "--preset": "the name of the preset in place of a plan"},
}
"""Options of ``collect`` that follow from the grid, by what in it decides them."""


@dataclass(frozen=True, kw_only=True)
class DataPlan:
    """One data set of a grid, as its file writes it.

    Attributes:
        about: one sentence.
        preset: name of a data set of ``ptr_robot.sim.data_sets``, which then says all that follows.
        prior: options of ``ptr-fast collect`` that make the prior data, or one path: a store that is there.
        target: the same for the demonstrations of the new task; empty where there is no new task.
        task: instruction of the trials. kitchen: where they are.
        start, max_steps: of the trials, as options of ``ptr-fast rollout``.
    """

    about: str = ""
    preset: str = ""
    prior: tuple[str, ...] = ()
    target: tuple[str, ...] = ()
    task: str = "put block on plate"
    kitchen: str = "A"
    start: str = "easy"
    max_steps: int = 60

    def __post_init__(self) -> None:
        from ptr_robot.sim.kitchens import find_kitchen
        from ptr_robot.sim.tasks import find_task
        from ptr_robot.sim.worlds import StartRange

        for name in ("about", "task", "kitchen", "start"):
            if not isinstance(getattr(self, name), str):
                raise ValueError(f"{name}: expected a text, got {getattr(self, name)!r}")
        if type(self.max_steps) is not int or self.max_steps < 1:
            raise ValueError(f"max_steps: expected a whole number of decisions from 1 on, got {self.max_steps!r}")
        find_task(self.task)
        find_kitchen(self.kitchen)
        if self.start not in get_args(StartRange):
            raise ValueError(f"unknown start {self.start!r}; starts: {', '.join(get_args(StartRange))}")

    @property
    def has_target(self) -> bool:
        """Whether there are demonstrations of a new task."""
        return bool(self.target) if not self.preset else _preset(self.preset).target is not None

    def num_episodes(self, part: str) -> int:
        """Episodes that collecting a part makes: ``prior``, ``target``, or ``both`` of a preset."""
        if not self.preset:
            words = getattr(self, part)
            return int(words[words.index("--episodes") + 1]) if "--episodes" in words else 40
        preset = _preset(self.preset)
        stores = [preset.prior, *([preset.target] if preset.target else [])]
        return sum(each.episodes * len(each.task) * len(each.kitchens) for each in stores)


def _preset(name: str) -> DataSet:
    from ptr_robot.sim import data_sets

    return data_sets.find_data_set(name)


def find_data_set(name: str, plan: Mapping[str, Any] | None) -> DataPlan:
    """The data set of a name, or an own one.

    Args:
        plan: values of an own one; None looks the name up.

    Raises:
        ValueError: there is none of this name, or a value is unknown or missing.
    """
    if plan is None:
        try:
            preset = _preset(name)
        except ValueError as error:
            raise ValueError(f"data: {error}; or give its plan: prior, target, task, kitchen") from error
        return DataPlan(about=preset.what, preset=name, **asdict(preset.trials))
    if not isinstance(plan, Mapping):
        raise ValueError(f"data: {name}: expected names and values such as 'prior: [...]', got {plan!r}")
    known = {f.name for f in fields(DataPlan)} - {"preset"}
    if unknown := set(plan) - known:
        raise ValueError(f"data: {name}: unknown name {min(unknown)!r}; known: {', '.join(sorted(known))}")
    if not plan.get("prior"):
        raise ValueError(f"data: {name}: prior is missing: options of collect, or the path of a store")
    stores = {part: _words(f"data: {name}: {part}", plan.get(part, [])) for part in ("prior", "target")}
    try:
        return DataPlan(**{**plan, **stores})
    except ValueError as error:
        raise ValueError(f"data: {name}: {error}") from error


def are_words(value: Any) -> bool:
    """Whether a value of a YAML file can be options of a verb."""
    return isinstance(value, list) and all(isinstance(word, str | int | float) for word in value)


def refuse_decided(where: str, words: Sequence[Any], decided: Mapping[str, str]) -> None:
    """Passes where no option is among those that the grid decides: it would be overruled in silence.

    Args:
        where: for the message. words: options. decided: option -> what decides it.

    Raises:
        ValueError: names the option, and what decides it.
    """
    for word in map(str, words):
        if (name := word.partition("=")[0].replace("_", "-")) in decided:
            raise ValueError(f"{where}: {name} is not for here, {decided[name]} decides it")


def _words(where: str, value: Any) -> tuple[str, ...]:
    """Options of ``collect``, or the path of a store, which has to be there: no stage makes it."""
    words = [value] if isinstance(value, str) else value
    if not are_words(words):
        raise ValueError(f"{where}: expected a list of options of collect, or the path of a store, got {value!r}")
    if words and not str(words[0]).startswith("--"):
        if len(words) > 1 or not (Path(str(words[0])) / "meta.json").exists():
            raise ValueError(f"{where}: {' '.join(map(str, words))}: no store there; options of collect begin with --")
    elif joined := [word for word in words if re.search(r"^--.*[\s=]", str(word))]:
        raise ValueError(f"{where}: expected options and values as words of a list, got {joined[0]!r} as one")
    refuse_decided(where, words, DECIDED)
    if "--episodes" in words:
        number = "".join(map(str, words[words.index("--episodes") + 1 :][:1]))
        if not re.fullmatch(r"[1-9]\d*", number):
            raise ValueError(f"{where}: --episodes: expected a whole number from 1 on behind it, got {number!r}")
    return tuple(map(str, words))
