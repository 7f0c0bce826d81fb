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

__all__ = ["comparison_table", "main", "publish", "three_targets"]

GRID = "[A-Za-z0-9_-]+"
SETTINGS = ("scale", "start", "max_steps", "trial_seed", "num_trials", "num_demos", *SEARCHED)
"""What is alike in rows of one cell, besides the updates, and what is mixed how where both rows tell it."""

THREE_TARGETS = {"pair": "known pair", "unseen": "unseen pair", "door": "door"}
FORMS = {"proposals": "ours", "proposals-critic-90": "ours, critic-mix"}
"""Columns of :func:`three_targets`: variants of ours in the grid ``longer``."""


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
    file, there = results / f"compare_{grids[0]}.jsonl", _published(results, f"compare_{grids[0]}")
    new = [row for row in rows if row not in there]
    _check_alike([*there, *new], source, file)
    write_rows([*there, *new], file)
    return file, len(new)


def _published(results: Path, name: str) -> list[dict[str, Any]]:
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
    rows = _published(results or RESULTS, name)
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


def three_targets(results: Path | None = None) -> list[list[str]]:
    """The grid ``longer`` in short, the header first: per target and rule of choice ours in each of its forms, and the
    best imitation column, on the first row's kind of processor. Bold is ours where its interval over seeds lies above
    those of all imitation columns; a plus tells that it is ahead of each of them on the same starts. Empty without
    rows.
    """
    rows = _published(results or RESULTS, "compare_longer")
    places = summarize([row for row in rows if ran_on(row) == ran_on(rows[0])])
    lines = []
    for data, target in THREE_TARGETS.items():
        for rule, told in (("selected", "picked"), ("last", "last")):
            there = {p.method: s for p, s in places.items() if (p.data, p.phase, p.checkpoint) == (data, "after", rule)}
            clones = {method: s for method, s in there.items() if not method.startswith("proposals")}
            if not clones:
                continue
            best = max(clones, key=lambda method: clones[method].rate.rate)
            bound = max(_percent(summary)[1] for summary in clones.values())
            ours = [places.get(Place(data, method, "after", rule, "search")) for method in FORMS]
            cells = [
                "" if s is None else _successes(s, is_apart=_percent(s)[0] > bound, is_ahead=_is_ahead(s, clones))
                for s in ours
            ]
            lines.append([target, told, *cells, f"{title_of(best)} {_successes(clones[best])}"])
    header = ["target", "checkpoint", *FORMS.values(), "best imitation column"]
    return [header, ["---", "---", *["---:"] * (len(header) - 2)], *lines] if lines else []


def _successes(summary: Summary, is_apart: bool = False, is_ahead: bool = False) -> str:
    rate, mark = summary.rate, "**" if is_apart else ""
    return f"{mark}{rate.successes}/{rate.num_trials}{mark} ({_interval(rate.interval)} %)" + " +" * is_ahead


def _is_ahead(summary: Summary, others: Mapping[str, Summary]) -> bool:
    """Whether it succeeds more on the same seeds and starts, by the 95 % over seeds of each paired difference."""
    found = [difference_to(other, summary) for other in others.values()]
    return all(each is not None and round(100 * each[1][0]) > 0 for each in found)


def _percent(summary: Summary) -> tuple[int, int]:
    """The interval over seeds as it is printed: what is called apart shall look apart."""
    low, high = summary.rate.interval
    return round(100 * low), round(100 * high)


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
        *(_interval(each) for each in (rate.bootstrap, rate.wilson)),
        ", ".join(f"{100 * value:.0f}" for value in rate.per_seed),
        *("" if other is None else f"{other.rate.successes}/{other.rate.num_trials}" for other in others),
        _difference(compared, summary),
        "" if math.isnan(summary.mean_steps) else f"{summary.mean_steps:.0f}",
        f"{summary.decisions:.0f}" + ("" if decisions is None else f" ({decisions[0]:.0f} to {decisions[1]:.0f})"),
    ]


def _interval(found: tuple[float, float] | None) -> str:
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
