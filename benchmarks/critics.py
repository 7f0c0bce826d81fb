"""What critics know, over the runs of a comparison: is Q higher where an episode ends well, and when does it matter.

    python -m benchmarks.critics states outputs/compare/states

A row per critic before any demonstration of a new task, from its evaluation on held-out episodes of the prior data,
which is made where it is missing: the chance that a good episode has the higher mean Q, and for each tenth of an
episode the gap of Q between recorded and random actions, where 1 is the mean of the episode.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from benchmarks.harness import environment, record
from ptr_fast.checkpoint import list_checkpoints
from ptr_robot.comparison.grid import load_grid
from ptr_robot.comparison.plan import make_plan
from ptr_robot.comparison.tables import title_of
from ptr_robot.evaluation.critical_moments import critical_profile, separation
from ptr_robot.evaluation.ranking import evaluated

__all__ = ["main", "rows_of"]


def rows_of(grid_name: str, folder: Path) -> Iterator[dict[str, Any]]:
    """A row per critic that was pre-trained, without the environment."""
    grid = load_grid(grid_name)
    plan, seen = make_plan(grid, folder), set()
    stages = {stage.name: stage for stage in plan.stages}
    for cell in plan.cells:
        if cell.phase == "after" and grid.data[cell.data].has_target:
            continue
        found = list_checkpoints(stages[cell.trained_by[-1]].makes.parent)
        if not found or found[-1] in seen:
            continue
        seen.add(found[-1])
        evaluation = evaluated(found[-1])
        if "score" not in evaluation["metrics"]:
            continue
        row: dict[str, Any] = {"case": f"{grid.name}, {cell.data}, {title_of(cell.method)}, seed {cell.seed}"}
        if (told := separation(evaluation)) is not None:
            low, high = told.interval
            row |= {"AUC": round(told.auc, 2), "AUC from": round(low, 2), "AUC to": round(high, 2)}
            row |= {"good episodes": told.num_good, "failed": told.num_failed}
        if (profile := critical_profile(evaluation)) is not None:
            row["tenth"] = {str(i + 1): round(float(value), 2) for i, value in enumerate(profile)}
        yield row


def main(grid_name: str, folder: Path) -> int:
    """Records the rows of a grid's folder."""
    for row in rows_of(grid_name, folder):
        record({"name": "critics", **row, "environment": environment()})
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1], Path(sys.argv[2])))
