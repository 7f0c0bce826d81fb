"""The page of a comparison: an index with the tables, and one page per data set with films, Q and learning curves."""

from __future__ import annotations

import base64
import json
from collections.abc import Mapping, Sequence
from html import escape
from pathlib import Path
from typing import Any
from urllib.parse import quote

import numpy as np

from ptr_fast.errors import DataError
from ptr_robot.comparison import tables
from ptr_robot.comparison.grid import Grid
from ptr_robot.comparison.plan import Cell, Plan
from ptr_robot.comparison.rows import read_trials
from ptr_robot.comparison.summary import Place, Summary, summarize
from ptr_robot.evaluation.metric_correlation import metric_correlations
from ptr_robot.report import curves
from ptr_robot.report.episodes import demonstration
from ptr_robot.report.page import Section, write_page
from ptr_robot.report.plots import Series, line_chart
from ptr_robot.report.runs import RunData, read_run
from ptr_robot.report.tried_checkpoints import trial_counts, tried_checkpoints

__all__ = ["write_pages"]

LARGEST_FILM_BYTES = 1_000_000
SCALE = (-4.0, 104.0)
"""Of all charts of success, per cent: a line at either end stays visible."""


def write_pages(
    grid: Grid, plan: Plan, rows: Sequence[Mapping[str, Any]], out: Path, failed: Mapping[str, str] | None = None
) -> Path:
    """Writes ``index.html`` and a page per data set into a folder; each file is self-contained, older pages go.

    Args:
        rows: of this grid. failed: stages that failed, with the reason.

    Returns:
        The index.
    """
    places = summarize(rows)
    with_rows = [name for name in grid.data if any(place.data == name for place in places)]
    for name in with_rows:
        _write_data_page(grid, plan, places, name, out / f"{name}.html")
    layout = tables.published_layout(places, grid.methods, with_rows)
    parts = [Section(heading="The table", body=layout)]
    for name in with_rows:
        body = f'<p>{escape(_told_data(grid, name))} <a href="{quote(name)}.html">Films, failures, Q and curves</a></p>'
        parts.append(Section(heading=name, body=body + tables.all_cells(places, name, grid.baseline)))
    parts.append(Section(heading="Which offline metrics tell success", body=_correlations(plan)))
    parts.append(Section(heading="How to read this", body=_READING.format(baseline=escape(grid.baseline))))
    parts.append(Section(heading="Failed stages", body=_failed(failed or {})))
    parts.append(Section(heading="The grid", body=_setting(grid, plan, rows)))
    for stale in set(out.glob("*.html")) - {out / f"{name}.html" for name in ("index", *with_rows)}:
        stale.unlink()
    return write_page(out / "index.html", f"Comparison: {grid.name}", parts, lead=_tiles(grid, places, rows, with_rows))


_READING = (
    "<p>All methods saw the same episodes, with one seed the same demonstrations, and were tried from the same starts. "
    "<b>selected</b> is the checkpoint that <code>ptr-fast select</code> picked by held-out data, <b>last</b> the last "
    "one; <b>oracle</b> is the best one in these very trials, which nobody could know. <b>before</b> is the "
    "pre-trained policy without a demonstration of the new task.</p>"
    "<p>Over trials: 95 % Wilson interval, the trained policies taken as given. Over seeds: 95 % bootstrap, seeds are "
    "drawn first, then trials, so it also holds for a new training; with three to five seeds it is still too narrow. "
    "Differences to {baseline} are of pairs with the same seed and start, with the same bootstrap; bold where the "
    "interval leaves zero out. Where all trials ended alike, the intervals are Wilson's and Newcombe's."
    " Steps: mean decisions of successful trials.</p>"
)


def _correlations(plan: Plan) -> str:
    """Rank correlation of the metrics that checkpoints were evaluated with and the success of their trials."""
    files = {path for cell in plan.cells if cell.phase == "after" for path in cell.trials.values() if path.is_file()}
    tried, _ = tried_checkpoints(trial_counts(sorted(files)))
    if len(tried) < 2:
        return ""
    return (
        "<p>Spearman's rank correlation with the success of the trials, positive where what the metric calls better "
        "succeeds more; 95 % over runs. <b>Within runs</b> is what choosing a checkpoint needs. Fitted metrics are of "
        "what <code>ptr-fast correlate --evaluate</code> has evaluated.</p>"
        + tables.correlations(metric_correlations(tried))
    )


def _told_data(grid: Grid, name: str) -> str:
    data = grid.data[name]
    told = f"{data.about} " if data.about else ""
    return f"{told}Trials: {data.task}, kitchen {data.kitchen}, {data.max_steps} decisions at most."


def _tiles(grid: Grid, places: Mapping[Place, Summary], rows: Sequence[Mapping[str, Any]], data: Sequence[str]) -> str:
    seeds = f"{len(grid.seeds)} training seed{'s' if len(grid.seeds) > 1 else ''}"
    cards = [(f"{len(grid.methods)} × {len(data)}", f"methods and data sets, {seeds}")]
    for name in data[:3]:
        found = [s for method in grid.methods if (s := tables.own_place(places, name, method))]
        if found:
            best = max(found, key=lambda summary: summary.rate.rate)
            title = tables.title_of(best.place.method)
            told = f"{name}: {title} succeeded most often" if best.rate.successes else f"{name}: no trial succeeded"
            cards.append((f"{best.rate.successes} / {best.rate.num_trials}", told))
    inner = "".join(f'<div class="tile"><b>{escape(a)}</b><span>{escape(b)}</span></div>' for a, b in cards)
    return f'<div class="tiles">{inner}</div>' if rows else ""


def _failed(failed: Mapping[str, str]) -> str:
    return "".join(f'<p class="note">{escape(what)}</p>' for what in failed.values())


def _setting(grid: Grid, plan: Plan, rows: Sequence[Mapping[str, Any]]) -> str:
    machines = {json.dumps({k: v for k, v in row["environment"].items() if k != "date"}) for row in rows}
    notes = "".join(f'<p class="soft">Left out: {escape(note)}</p>' for note in plan.left_out)
    ran = "".join(f"<pre>{escape(machine)}</pre>" for machine in sorted(machines))
    text = escape(json.dumps(grid.to_json(), indent=2))
    return f"{notes}<p>Where the trials ran:</p>{ran}<details><summary>Settings</summary><pre>{text}</pre></details>"


def _write_data_page(grid: Grid, plan: Plan, places: Mapping[Place, Summary], name: str, out: Path) -> None:
    cells = [cell for cell in plan.cells if cell.data == name and cell.seed == grid.seeds[0] and cell.phase == "after"]
    first = list({cell.method: cell for cell in reversed(cells)}.values())[::-1]  # each method by its own mode
    by_run = {cell.run: cell for cell in reversed(first)}  # methods that differ in acting alone share one
    runs = [run for cell in first if by_run[cell.run] is cell and (run := _run(cell))]
    parts = [
        Section(heading="Success along training", body=_over_checkpoints(grid, plan, name)),
        Section(heading="Where trials fail", body=tables.failures(places, name, grid.methods)),
        Section(heading="Films", body=_films(first)),
        Section(heading="Q along a demonstration", body="".join(_q_along(run) for run in runs)),
        Section(heading="Learning curves", body=curves.training(runs)),
    ]
    lead = f'<p>{escape(_told_data(grid, name))} <a href="index.html">All data sets</a></p>'
    write_page(out, f"{grid.name}: {name}", parts, lead=lead)


def _run(cell: Cell) -> RunData | None:
    try:
        return read_run(cell.run, tables.title_of(cell.method))
    except DataError:  # it has not begun, or was removed to save space
        return None


def _over_checkpoints(grid: Grid, plan: Plan, data: str) -> str:
    """Share of successful trials per checkpoint, the mean over the seeds that are done; own acting modes."""
    charts: dict[str, Series] = {}
    for i, method in enumerate(grid.chosen_methods()):
        cells = [
            c
            for c in plan.cells
            if (c.data, c.method, c.phase, c.mode) == (data, method.name, "after", method.modes[0])
        ]
        steps = sorted({step for cell in cells for step in cell.trials})
        rates = [[rate for cell in cells if (rate := _rate(cell.trials.get(step))) is not None] for step in steps]
        if any(rates) and len(steps) > 1:
            y = np.array([100 * np.mean(found) if found else np.nan for found in rates])
            charts[method.title] = Series(label=method.title, x=np.array(steps), y=y, colour=i, dash=i // 8)
    figures = "".join(
        f"<figure><h4>{escape(title)} <span class='unit'>% of trials</span></h4>"
        f"{line_chart([series], title=f'{title}: success over updates', y_range=SCALE, height=120)}</figure>"
        for title, series in charts.items()
    )
    return f'<div class="grid pair">{figures}</div>' if figures else ""


def _rate(path: Path | None) -> float | None:
    if path is None or not path.is_file():
        return None
    result = read_trials(path)
    return result["successes"] / result["num_trials"]


def _films(cells: Sequence[Cell]) -> str:
    """One success and one failure of each method, as far as its trials had both."""
    out = []
    for cell in cells:
        if cell.filmed is None or not cell.filmed.is_file():
            continue
        trials = read_trials(cell.filmed)["trials"]
        shown = []
        for word, wanted in (("a success", True), ("a failure", False)):
            trial = next((trial for trial in trials if trial["video"] and trial["success"] is wanted), None)
            if trial is not None:
                told = f"{word} in {trial['num_steps']} decisions" if wanted else word
                shown.append(_film(cell.filmed.with_suffix("") / trial["video"], told))
            else:
                shown.append(f'<div class="soft">none of {len(trials)} trials was {word}</div>')
        row = "".join(f'<div style="flex:1;min-width:0">{part}</div>' for part in shown)
        title = escape(tables.title_of(cell.method))
        out.append(f'<figure><h4>{title}</h4><div style="display:flex;gap:.6rem">{row}</div></figure>')
    return f'<div class="grid">{"".join(out)}</div>' if out else ""


def _film(path: Path, told: str) -> str:
    told = escape(told)
    if not path.is_file():
        return f'<div class="soft">{told}: the film is gone</div>'
    data = path.read_bytes()
    if len(data) > LARGEST_FILM_BYTES:
        return f'<div class="soft">{told}: the film is too large for a page: {escape(str(path))}</div>'
    uri = "data:image/gif;base64," + base64.b64encode(data).decode()
    return f'<img src="{uri}" alt="{told}" style="width:100%;border-radius:6px"><div class="soft">{told}</div>'


def _q_along(run: RunData) -> str:
    evaluation = run.shown_evaluation()
    return "" if evaluation is None or evaluation["value_range"] is None else demonstration(run.name, evaluation)
