"""The tables of README.md, made from ``results/*.jsonl``: ``python -m benchmarks.tables`` writes them in place.

Each table stands between ``<!-- table: NAME -->`` and ``<!-- end -->``. Per case the newest row counts.
"""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

from benchmarks.harness import RESULTS

__all__ = ["main", "render", "table"]

README = Path(__file__).resolve().parents[1] / "README.md"
_BLOCK = re.compile(r"(<!-- table: (\w+) -->\n).*?(<!-- end -->)", re.DOTALL)


def table(name: str) -> str:
    """A Markdown table of the newest row of every case in ``results/<name>.jsonl``."""
    rows: dict[str, dict[str, Any]] = {}
    for line in (RESULTS / f"{name}.jsonl").read_text(encoding="utf-8").splitlines():
        row = json.loads(line)
        rows[row["case"]] = row
    ours, *others = next(iter(rows.values()))["variants"]
    has_work = any("gflop" in row for row in rows.values())
    header = ["case", f"{ours} ms", *(f"times faster than {other}" for other in others)]
    header += ["GFLOP ours / port", "peak MB ours / port"] if has_work else []
    lines = [header + ["load"], ["---"] + ["---:"] * len(header)]
    for case, row in rows.items():
        cells = [case, f"{row['variants'][ours]['median_ms']:.3g}"]
        cells += [f"{row['speedup'][other]:.2f}" if other in row["speedup"] else "" for other in others]
        if has_work:
            for key in ("gflop", "peak_memory_mb"):
                cells.append(f"{row[key][ours]:.3g} / {row[key]['literal_port']:.3g}")
        lines.append([*cells, f"{row['load_average'][0]:.1f}"])
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)


def render(text: str) -> str:
    """The text with every table between its marks made anew."""
    return _BLOCK.sub(lambda match: match[1] + table(match[2]) + match[3], text)


def main() -> None:
    README.write_text(render(README.read_text(encoding="utf-8")), encoding="utf-8")


if __name__ == "__main__":
    main()
