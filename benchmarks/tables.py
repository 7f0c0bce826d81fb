"""The tables of ``PAGES``, made from ``results/*.jsonl``: ``python -m benchmarks.tables`` writes them.

Each table stands between ``<!-- table: NAME -->`` and ``<!-- end -->``. Per case and kind of processor, which is an
instruction set or a GPU, the newest row counts: no processor takes the place of another. A row that failed counts too,
and says so; one for which no time was left takes the place of no other.
"""

from __future__ import annotations

import json
import math
import re
from pathlib import Path
from typing import Any

from benchmarks.comparison import comparison_table
from benchmarks.harness import RESULTS, ran_on
from benchmarks.overviews import beside_published, claims, from_states, three_targets

__all__ = ["PAGES", "main", "render", "table"]

_ROOT = Path(__file__).resolve().parents[1]
PAGES = tuple(_ROOT / name for name in ("README.md", "docs/benchmarks.md", "docs/compare.md", "benchmarks/RESULTS.md"))
OVERVIEWS = {each.__name__: each for each in (beside_published, claims, from_states, three_targets)}
_BLOCK = re.compile(r"(<!-- table: ([\w-]+) -->\n).*?(<!-- end -->)", re.DOTALL)


def table(name: str) -> str:
    """A Markdown table of the newest row of every case in ``results/<name>.jsonl``.

    ``shares`` is made of rows of steps, and the tables of ``OVERVIEWS`` of those of grids.
    """
    if name in OVERVIEWS:
        return _markdown(OVERVIEWS[name]())
    if name.startswith("compare_"):
        lines = comparison_table(name, RESULTS)
        return _markdown(lines) if lines else "No rows yet.\n"
    if name == "demo":
        return _demo(newest(name))
    if name == "shares":
        return _shares([*newest("step"), *newest("gpu_step")])
    rows = newest(name)
    if name == "steering":
        return _steering(rows)
    if any("delay" in row for row in rows):
        return _delays(rows)
    if any("lock_step" in row for row in rows):
        return _late_cameras(rows)
    return _compared(rows) if any("variants" in row for row in rows) else _facts(rows)


def _demo(rows: list[dict[str, Any]]) -> str:
    """What ``make demo`` printed, a column per seed and processor: successes before and after the demonstrations."""
    sets = [{"DEFAULT": "SSE"}.get(row["instruction_set"], row["instruction_set"]) for row in rows]  # PyTorch's name
    cases = [f"{row['case']}, {isa}: before, after (steps)" for row, isa in zip(rows, sets, strict=True)]
    header = ["policy", "acts by", *cases]
    lines = [header, ["---"] * 2 + ["---:"] * len(rows)]
    for i, policy in enumerate(rows[0]["rows"] if rows else ()):
        cells = [policy["policy"], policy["mode"]]
        for row in rows:
            before, after = row["rows"][i]["before"], row["rows"][i]["after"]
            told = f"{before['successes']}/{before['num_trials']}"
            if after:
                steps = "" if after["mean_steps"] is None else f" ({after['mean_steps']:.0f})"
                told += f", **{after['successes']}/{after['num_trials']}**{steps}"
            cells.append(told)
        lines.append(cells)
    return _markdown(lines)


def _steering(rows: list[dict[str, Any]]) -> str:
    """Trials of a policy alone and steered: successes with their interval, and what the critic preferred."""
    header = ["case", "on", "policy", "successes", "95 % interval", "decisions to success"]
    header += ["Q preferred another than the first", "by, of Q"]
    lines = [header, ["---"] * 3 + ["---:"] * 5]
    for row in rows:
        for name, policy in row["policies"].items():
            low, high = policy["interval95"]
            steps, log = policy["mean_steps_of_successes"], policy.get("steering")
            cells = [row["case"], ran_on(row), name, f"{policy['successes']}/{row['num_trials']}"]
            cells += [f"{low:.0%} to {high:.0%}", "" if steps is None else f"{steps:.0f}"]
            if log:
                cells += [f"{log['preferred_other'] / log['compared']:.0%}", f"{log['sum_gain'] / log['compared']:.2f}"]
            lines.append([*cells, *([] if log else ["", ""])])
    return _markdown(lines)


def newest(name: str) -> list[dict[str, Any]]:
    """The newest row of every case on every kind of processor, in the order of the cases' first rows.

    None where the file is absent.
    """
    path = RESULTS / f"{name}.jsonl"
    rows: dict[str, dict[str, dict[str, Any]]] = {}
    for line in path.read_text(encoding="utf-8").splitlines() if path.exists() else ():
        row = json.loads(line)
        of_case = rows.setdefault(row["case"], {})
        if not (ran_on(row) in of_case and isinstance(row.get("skipped"), str)):  # tests count theirs: a number
            of_case[ran_on(row)] = row
    return [row for by_processor in rows.values() for row in by_processor.values()]


def _compared(rows: list[dict[str, Any]]) -> str:
    """Rows of :func:`benchmarks.harness.compare`: our time, and how many times slower each other variant is."""
    measured = [row for row in rows if "variants" in row]
    first = list(dict.fromkeys(next(iter(row["variants"])) for row in measured))
    named = [(*row["speedup"], *row.get("not_installed", ())) for row in measured]
    others = list(dict.fromkeys(other for names in named for other in names))
    has_work = any("peak_memory_mb" in row and "literal_port" in row.get("gflop", ()) for row in measured)
    header = ["case", "on", f"{first[0]} ms" if len(first) == 1 else "ours ms"]
    header += [f"times faster than {other}" for other in others]
    header += ["GFLOP ours / port", "peak MB ours / port"] if has_work else []
    lines = [header + ["load"], ["---"] * 2 + ["---:"] * (len(header) - 1)]
    for row in rows:
        if "variants" not in row:
            told = _told(f"failed: {row['failed']}" if "failed" in row else f"not run: {row['skipped']}")
            lines.append([row["case"], ran_on(row), told, *([""] * (len(header) - 2))])
            continue
        ours, times = next(iter(row["variants"].items()))
        cells = [row["case"], ran_on(row), f"{times['median_ms']:.3g}" + (f" ({ours})" if len(first) > 1 else "")]
        for other in others:
            absent = "not installed" if other in row.get("not_installed", ()) else ""
            cells.append(f"{row['speedup'][other]:.2f}" if other in row["speedup"] else absent)
        if has_work:
            for key in ("gflop", "peak_memory_mb"):
                cells.append(f"{row[key][ours]:.3g} / {row[key]['literal_port']:.3g}" if key in row else "")
        lines.append([*cells, f"{row['load_average'][0]:.1f}"])
    return _markdown(lines)


def _told(message: str) -> str:
    """The first line of a message, as a cell."""
    return message.partition("\n")[0].replace("|", "/")[:200]


def _delays(rows: list[dict[str, Any]]) -> str:
    """Rows of the control loop: how late commands are, per variant."""
    names = list(dict.fromkeys(name for row in rows for name in row["delay"]))
    lines = [["case", "on", "deadline ms", *(f"{name}: p50 / p99 / max ms, missed" for name in names)]]
    lines.append(["---"] * 2 + ["---:"] * (len(names) + 1))
    for row in rows:
        cells = [row["case"], ran_on(row), f"{row['deadline_ms']:g}"]
        for name in names:
            d = row["delay"].get(name)
            times = f"{d['p50_ms']:.2f} / {d['p99_ms']:.2f} / {d['max_ms']:.2f}" if d else ""
            cells.append(f"{times}, {d['missed']} of {d['steps']}" if d else "not permitted")
        lines.append(cells)
    return _markdown(lines)


def _late_cameras(rows: list[dict[str, Any]]) -> str:
    """Trials in real time: how old frames were, how late actions acted, and the lock step beside them."""
    header = [
        "case",
        "frame's age at the policy p50 / p95 ms",
        "since its delivery p50 / p95 ms",
        "actions act late by",
    ]
    header += ["succeeded in real time", "lock step, as late", "lock step, late by the latency rounded up"]
    header += ["lock step, not late", "lock step, as late, without the safety filter", "periods missed", "load"]
    lines = [header, ["---"] + ["---:"] * (len(header) - 1)]
    for row in rows:
        ages = [f"{row[key]['p50']:.1f} / {row[key]['p95']:.1f}" for key in ("frame_age_ms", "frame_wait_ms")]
        late, trials, real = row["mostly_late"], row["lock_step_trials"], row["real_time"]
        cells = [row["case"], *ages, f"{late} decisions ({row['mostly_late_share']:.1%})"]
        cells += [f"{real['succeeded']} of {real['trials']}"]
        for delay in (late, row["latency_in_decisions"], 0):
            cells += [f"{row['lock_step'][str(delay)]} of {trials} ({delay})"]
        cells += [f"{row['lock_step_without_filter'][str(late)]} of {trials} ({late})"]
        lines.append([*cells, f"{row['missed']} of {row['steps']}", f"{row['load_average'][0]:.1f}"])
    return _markdown(lines)


def _facts(rows: list[dict[str, Any]]) -> str:
    """Rows without variants: every number by its name."""
    flat = [{"case": row["case"], "on": ran_on(row), **_numbers(row)} for row in rows]
    header = list(dict.fromkeys(key for row in flat for key in row))
    lines = [header, ["---"] * 2 + ["---:"] * (len(header) - 2)]
    return _markdown([*lines, *([str(row.get(key, "")) for key in header] for row in flat)])


def _numbers(row: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    out: dict[str, Any] = {}
    for key, value in row.items():
        if key == "environment":
            continue
        if isinstance(value, dict):
            out |= _numbers(value, f"{prefix}{key} ")
        elif isinstance(value, int | float) and not isinstance(value, bool):
            out[prefix + key] = value
    return out


def _shares(rows: list[dict[str, Any]]) -> str:
    """Which part of the speed-up over the literal port is algebra, which is precision, which is kernels.

    The port, then the shared forwards in plain PyTorch, then a narrower encoder, then our kernels (and on a GPU the
    captured step); a share is the part's logarithm over the whole's.
    """
    lines = [
        ["case", "on", "whole", "shared forwards", "share", "precision", "share", "ours over plain PyTorch", "share"],
        ["---"] * 2 + ["---:"] * 7,
    ]
    for row in rows:
        speedup = row.get("speedup", {})
        port = speedup.get("literal_port", speedup.get("literal_port_tf32"))
        plain = speedup.get("plain")
        if port is None or plain is None:
            continue
        wide = speedup.get("plain_tf32", plain)
        parts = (port / wide, wide / plain, plain)
        cells = [row["case"].removesuffix(", eager"), ran_on(row), f"{port:.2f}"]
        for part in parts:
            cells += [f"{part:.2f}", f"{100 * math.log(part) / math.log(port):.0f} %"]
        lines.append(cells)
    return _markdown(lines)


def _markdown(lines: list[list[str]]) -> str:
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)


def render(text: str) -> str:
    """The text with every table between its marks made anew."""
    return _BLOCK.sub(lambda match: match[1] + table(match[2]) + match[3], text)


def main() -> None:
    for page in PAGES:
        page.write_text(render(page.read_text(encoding="utf-8")), encoding="utf-8")


if __name__ == "__main__":
    main()
