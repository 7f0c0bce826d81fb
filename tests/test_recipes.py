"""The presets of pretrain: each can be trained and acts in a mode that its learner has."""

from __future__ import annotations

import pytest

from ptr_fast.learners.registry import traits_of
from ptr_robot.recipes import all_recipes, imitation, kinds


@pytest.mark.parametrize("name", sorted(all_recipes()))
def test_every_recipe_is_possible(name):
    config = all_recipes()[name][1]
    traits = traits_of(config.learner)
    assert not traits.modes or config.act.mode in traits.modes
    traits.check_rewards(config.rewards)


def test_methods_that_imitate_are_compared_at_the_same_sizes_and_rates():
    names = sorted({name.removeprefix("states-") for name in imitation.RECIPES if name.startswith("states-")} - {"bc"})
    for kind, (_, sizes, loop) in kinds.KINDS.items():
        for name in names:
            config = imitation.RECIPES[f"{kind}-{name}"][1]
            assert config.loop == loop
            shared = {key: value for key, value in sizes.items() if hasattr(config.learner, key)}
            assert {key: getattr(config.learner, key) for key in shared} == shared, (kind, name)
            assert config.data.outcomes == (("success",) if name == "bc-success" else ())
