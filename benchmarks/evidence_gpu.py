"""``ptr-fast compare`` on a GPU machine without a registry: ``python -m benchmarks.evidence_gpu compare GRID ...``.

What the machine lacks comes from wheels that ``make gpu-wheels GPU_WHEELS_ARGS=--simulator`` has gathered. Where
``OUT`` names a folder, rows, page and logs are copied there at the end, also when stages are left for the next call.
"""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Sequence
from pathlib import Path

from benchmarks.gpu import wheels

__all__ = ["main"]

BROUGHT_BACK = ("rows.jsonl", "page", "logs", "stages")


def main(arguments: Sequence[str]) -> int:
    """Runs the verb with its arguments; returns its exit code."""
    wheels.install()
    os.environ["PYTHONPATH"] = wheels.search_path()
    from ptr_robot import cli

    code = cli.main(list(arguments))
    if (back := os.environ.get("OUT")) and "--out" in arguments:
        grid = Path(arguments[arguments.index("--out") + 1])
        for name in BROUGHT_BACK:
            if (grid / name).is_dir():
                shutil.copytree(grid / name, Path(back) / grid.name / name, dirs_exist_ok=True)
            elif (grid / name).is_file():
                (Path(back) / grid.name).mkdir(parents=True, exist_ok=True)
                shutil.copy2(grid / name, Path(back) / grid.name / name)
    return code


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
