"""``ptr-fast compare`` on a GPU machine without a registry: ``python -m benchmarks.evidence_gpu compare GRID ...``.

What the machine lacks comes from wheels that ``make gpu-wheels GPU_WHEELS_ARGS=--simulator`` has gathered. Where
``OUT`` names a folder, everything of the grid but its data and networks is packed into one archive there at the end,
also when stages are left for the next call.
"""

from __future__ import annotations

import os
import sys
import tarfile
from collections.abc import Sequence
from pathlib import Path

from benchmarks.gpu import wheels

__all__ = ["main"]

BROUGHT_BACK = ("rows.jsonl", "page", "trials", "stages", "logs")


def main(arguments: Sequence[str]) -> int:
    """Runs the verb with its arguments; returns its exit code."""
    wheels.install()
    os.environ["PYTHONPATH"] = wheels.search_path()
    from ptr_robot import cli

    code = cli.main(list(arguments))
    if (back := os.environ.get("OUT")) and "--out" in arguments:
        grid = Path(arguments[arguments.index("--out") + 1])
        with tarfile.open(Path(back) / f"{grid.name}.tar.gz", "w:gz") as archive:
            for name in BROUGHT_BACK:
                if (grid / name).exists():
                    archive.add(grid / name, f"{grid.name}/{name}")
    return code


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
