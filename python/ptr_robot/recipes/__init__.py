"""Named presets for ``ptr-fast pretrain``; one file each, every value can be overridden by a dotted flag."""

from ptr_robot.recipes import bridge, sim, smoke

RECIPES = {**bridge.RECIPES, **sim.RECIPES, **smoke.RECIPES}
