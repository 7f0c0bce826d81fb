"""Rows of ``ptr-fast compare`` in ``results``: published there from a grid's folder, and as a Markdown table.

``python -m benchmarks.comparison outputs/compare/states`` adds its rows to ``results/compare_states.jsonl``;
``python -m benchmarks.tables`` then writes the tables.
"""

from __future__ import annotations

import math
import re
import sys
from collections.abc import Mapping, Sequence
from dataclasses import astuple, fields
from pathlib import Path
from typing import Any

from benchmarks.harness import RESULTS, ran_on
from ptr_fast.errors import DataError
from ptr_robot.comparison.presets import PRESETS
from ptr_robot.comparison.rows import MIXED, SEARCHED, read_rows, write_rows
from ptr_robot.comparison.summary import Place, Summary, difference_to, summarize
from ptr_robot.comparison.tables import own_place, title_of

__all__ = ["comparison_table", "interval_in_percent", "main", "publish", "published_rows"]

GRID = "[A-Za-z0-9_-]+"
SETTINGS = ("scale", "start", "max_steps", "trial_seed", "num_trials", "num_demos", *SEARCHED)
"""What is alike in rows of one cell, besides the updates, and what is mixed how where both rows tell it."""


def publish(folder: Path, results: Path = RESULTS) -> tuple[Path, int]:
    """Adds the rows of a grid's folder to the results of its name; those that are there already are not repeated.

    Returns:
        The file, and how many rows were added.

    Raises:
        DataError: a file or line is missing or damaged, the rows are of several grids, or would stand in one cell of
            the table with rows of other settings.
    """
    source = folder / "rows.jsonl"
    rows = read_rows(source)
    grids = sorted({row["grid"] for row in rows})
    if len(grids) != 1:
        raise DataError(f"{source}: expected rows of one grid, got {' and '.join(map(repr, grids)) or 'none yet'}")
    if not re.fullmatch(GRID, grids[0]):
        raise DataError(f"{source}: grid: expected letters, digits, - and _, got {grids[0]!r}")
    file, there = results / f"compare_{grids[0]}.jsonl", published_rows(results, f"compare_{grids[0]}")
    new = [row for row in rows if row not in there]
    _check_alike([*there, *new], source, file)
    write_rows([*there, *new], file)
    return file, len(new)


def published_rows(results: Path, name: str) -> list[dict[str, Any]]:
    """The rows of ``<name>.jsonl`` that are there."""
    file = results / f"{name}.jsonl"
    return read_rows(file) if file.exists() else []


def _check_alike(rows: Sequence[Mapping[str, Any]], source: Path, file: Path) -> None:
    """Refuses rows of one cell, a row per seed, whose settings differ; of one seed the last row counts."""
    cells: dict[tuple[Place, str], dict[int, Mapping[str, Any]]] = {}
    for row in rows:
        place = Place(*(row[field.name] for field in fields(Place)))
        cells.setdefault((place, ran_on(row)), {})[row["seed"]] = row
    for (place, _), seeds in cells.items():
        first, *others = (seeds[seed] for seed in sorted(seeds))
        for other in others:
            ours, theirs = _settings(first), _settings(other)
            for name in ours | theirs:
                is_told = name not in MIXED or (name in ours and name in theirs)
                if is_told and ours.get(name) != theirs.get(name):
                    raise DataError(
                        f"{source}: {', '.join(astuple(place))}: {name} would be {ours.get(name)} with seed "
                        f"{first['seed']} and {theirs.get(name)} with seed {other['seed']} in {file}; name the grid "
                        "otherwise, or publish all of its seeds with one setting"
                    )


def _settings(row: Mapping[str, Any]) -> dict[str, Any]:
    """What rows of one cell have in common; updates by the kind of stage, which ends the name of a stage."""
    updates = {f"updates of {name.rpartition('-')[2]}": number for name, number in row.get("updates", {}).items()}
    told = (*SETTINGS, *MIXED) if any(name in row for name in MIXED) else SETTINGS
    return {name: row.get(name) for name in told} | updates


def comparison_table(name: str, results: Path | None = None) -> list[list[str]]:
    """Lines of cells, the header first: per data set, method, acting mode and processor; empty without rows."""
    rows = published_rows(results or RESULTS, name)
    if not rows:
        return []
    baseline = PRESETS.get(rows[0]["grid"], ("", {}))[1].get("baseline", "bc")
    lines = []
    for processor in dict.fromkeys(map(ran_on, rows)):
        places = summarize([row for row in rows if ran_on(row) == processor])
        for place, summary in places.items():
            if place.checkpoint == "selected":
                compared = own_place(places, place.data, baseline)
                lines.append(_line(places, place, summary, compared, processor))
    order = list(dict.fromkeys(line[0] for line in lines))
    lines.sort(key=lambda line: order.index(line[0]))
    header = ["data", "method", "acts by", "on", "selected", "95 % over seeds", "95 % over trials", "each seed"]
    header += ["before", "last", "oracle", f"minus {title_of(baseline)}, points", "steps", "decisions"]
    return [header, ["---"] * 4 + ["---:"] * (len(header) - 4), *lines]


def _line(
    places: Mapping[Place, Summary], place: Place, summary: Summary, compared: Summary | None, processor: str
) -> list[str]:
    rate, decisions = summary.rate, summary.decisions_interval
    others = [
        places.get(Place(place.data, place.method, phase, rule, place.mode))
        for phase, rule in (("before", "last"), ("after", "last"), ("after", "oracle"))
    ]
    return [
        place.data,
        title_of(place.method),
        place.mode,
        processor,
        f"{rate.successes}/{rate.num_trials}",
        *(interval_in_percent(each) for each in (rate.bootstrap, rate.wilson)),
        ", ".join(f"{100 * value:.0f}" for value in rate.per_seed),
        *("" if other is None else f"{other.rate.successes}/{other.rate.num_trials}" for other in others),
        _difference(compared, summary),
        "" if math.isnan(summary.mean_steps) else f"{summary.mean_steps:.0f}",
        f"{summary.decisions:.0f}" + ("" if decisions is None else f" ({decisions[0]:.0f} to {decisions[1]:.0f})"),
    ]


def interval_in_percent(found: tuple[float, float] | None) -> str:
    """An interval over seeds as it is printed."""
    return "one seed" if found is None else "{:.0f} to {:.0f}".format(*(100 * value for value in found))


def _difference(compared: Summary | None, summary: Summary) -> str:
    found = None if compared is None or compared is summary else difference_to(compared, summary)
    if found is None:
        return ""
    mean, (low, high) = found
    return f"{100 * mean:+.0f} ({100 * low:+.0f} to {100 * high:+.0f})"


def main(arguments: Sequence[str]) -> None:
    if not arguments:
        sys.exit("name the folders of grids, e.g. outputs/compare/states")
    for folder in arguments:
        try:
            file, number = publish(Path(folder))
        except (DataError, OSError) as error:
            sys.exit(f"error: {error}")
        print(f"{number} rows added to {file}")


if __name__ == "__main__":
    main(sys.argv[1:])
