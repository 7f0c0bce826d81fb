"""Whether critics knew a task before fine-tuning, over the runs of a comparison.

    python -m benchmarks.familiarity outputs/compare/longer

A row per critic and task: how Q climbs along the demonstrations and along old episodes, before the first update.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from benchmarks.harness import environment, record
from ptr_fast.checkpoint import list_checkpoints, read_checkpoint
from ptr_fast.learners import Ranks
from ptr_fast.learners.registry import traits_of
from ptr_robot.evaluation.before_training import familiarity_of
from ptr_robot.training.loop import open_run
from ptr_robot.training.run_record import RunRecord
from ptr_robot.training.sources import Source

__all__ = ["main", "rows_of"]


def rows_of(folder: Path) -> Iterator[dict[str, Any]]:
    """A row per critic that chooses among proposals, by its weights, and target, without the environment."""
    seen = set()
    for path in sorted((folder / "runs").iterdir()):
        found = list_checkpoints(path)
        if not found or found[0].name != "000000":
            continue
        info = read_checkpoint(found[0])
        told, parent = RunRecord.from_json(info.run, str(found[0])), info.run["parent"]["weights"]
        key = parent, told.sources[-1].fingerprint
        if not traits_of(info.config).num_proposals or key in seen:
            continue
        seen.add(key)
        sources = [Source.from_record(source) for source in told.sources]
        knows = familiarity_of(open_run(folder / "none", told, sources, Ranks(), lambda: info))  # noqa: B023 (at once)
        if knows is not None:
            values = {"demonstrations": round(knows.demonstrations, 3), "old episodes": round(knows.old, 3)}
            values["lower by"] = round(knows.old - knows.demonstrations, 3)
            counts = {"of demonstrations": knows.num_demonstrations, "of old episodes": knows.num_old}
            case = f"{folder.name}, {told.config['task']}, seed {told.loop.seed}"
            yield {"case": case, **values, **counts}


def main(folder: Path) -> int:
    """Records the rows of a grid's folder."""
    for row in rows_of(folder):
        record({"name": "familiarity", **row, "environment": environment()})
    return 0


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1])))
