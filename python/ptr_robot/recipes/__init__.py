"""Named presets for ``ptr-fast pretrain``; one file each, every value can be overridden by a dotted flag."""

from __future__ import annotations

import difflib
import importlib
from typing import Any

from ptr_robot.recipes import bridge, conservative, imitation, offline, sim, smoke

__all__ = ["RECIPES", "all_recipes", "recipe_named"]

_FILES = (bridge, sim, smoke, imitation, conservative, offline)
RECIPES = {name: recipe for file in _FILES for name, recipe in file.RECIPES.items()}
"""All but those of ``representation``: the options of their encoder are looked up where torch has to be imported."""


def all_recipes() -> dict[str, tuple[str, Any]]:
    """These presets and those of all registered learners, by name.

    Raises:
        ValueError: a learner's presets cannot be imported, or one of their names is taken.
    """
    from ptr_fast.learners.registry import kinds
    from ptr_robot.recipes import representation

    recipes: dict[str, tuple[str, Any]] = {**RECIPES, **representation.RECIPES}
    for kind in kinds().values():
        if not kind.recipes:
            continue
        try:
            own = importlib.import_module(kind.recipes).RECIPES
        except (ImportError, AttributeError) as error:
            raise ValueError(f"learner {kind.tag!r}: its recipes in {kind.recipes} cannot be had: {error}") from error
        if taken := set(own) & set(recipes):
            raise ValueError(f"learner {kind.tag!r}: recipe {min(taken)!r} of {kind.recipes} is taken")
        recipes |= own
    return recipes


def recipe_named(name: str) -> Any:
    """The configuration of a preset.

    Raises:
        ValueError: there is none of this name; with the nearest, and the learners that could not be imported.
    """
    from ptr_fast.learners.registry import broken_entry_points

    if name in RECIPES:
        return RECIPES[name][1]
    recipes = all_recipes()
    if name in recipes:
        return recipes[name][1]
    close = difflib.get_close_matches(name, recipes, n=1)
    hint = f" (did you mean {close[0]!r}?)" if close else ""
    raise ValueError(f"unknown recipe {name!r}{hint}; recipes: {', '.join(recipes)}{broken_entry_points()}")
