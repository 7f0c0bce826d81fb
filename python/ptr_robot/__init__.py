"""The programs: train, select, act, serve, convert, simulate and report, by the engine ``ptr_fast``."""

import sys

from ptr_robot.moved_names import MovedNames

sys.meta_path.append(MovedNames())  # last: asked only for modules that nobody else finds
