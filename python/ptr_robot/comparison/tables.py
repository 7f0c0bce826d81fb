"""The tables of a comparison's page as HTML: the published layout with ours below, all cells, and where trials fail."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from html import escape

from ptr_robot.comparison.methods import METHODS
from ptr_robot.comparison.published import ALL_TASKS, COLUMNS, RERUN, TASKS
from ptr_robot.comparison.summary import Place, Summary, difference_to
from ptr_robot.evaluation.metric_correlation import MetricCorrelation
from ptr_robot.evaluation.metrics import METRICS as METRICS_TOLD
from ptr_robot.report.plots import interval_bar

__all__ = ["all_cells", "correlations", "failures", "own_place", "published_layout", "title_of"]

Places = Mapping[Place, Summary]
OURS = "proposals"
NOT_PUBLISHED = ("mixture", "flow", "flow-half", "chunks", "chunks-whole")
"""Clones that the published table has not: the one that ours carries, and those that users would try first today."""


def title_of(method: str) -> str:
    """A method's name in tables; its short name where it is not one of ours (rows of another version)."""
    return METHODS[method].title if method in METHODS else method


def own_place(places: Places, data: str, method: str) -> Summary | None:
    """The number of a method on a data set: after the demonstrations, selected checkpoint, its own acting mode."""
    modes = METHODS[method].modes if method in METHODS else ()
    found = {p.mode: s for p, s in places.items() if (p.data, p.method, p.checkpoint) == (data, method, "selected")}
    return next((found[mode] for mode in modes if mode in found), next(iter(found.values()), None))


def published_layout(places: Places, methods: Sequence[str], data: Sequence[str]) -> str:
    """The published table in its layout, and our data sets as further rows of it; ours stands first, others last.

    A grid that shares less than half of its columns is a table of its own methods.
    """
    if 2 * sum(name in methods for name in COLUMNS) < len(COLUMNS):
        return _layout(places, methods, data, {}, [])
    others = [name for name in methods if name not in COLUMNS]
    first = [name for name in others if name == OURS]
    columns = [*first, *COLUMNS, *(name for name in others if name in NOT_PUBLISHED)]
    lines = []
    for row in (*TASKS, ALL_TASKS):
        task, trials, successes = row
        by_name = dict(zip(COLUMNS, successes, strict=True))
        lines.append(_published_line(task, columns, by_name, trials, bold=row is ALL_TASKS))
    again, successes_again, trials_again = RERUN
    lines.append(_published_line(again, columns, {"cql": successes_again}, trials_again))
    return _layout(places, columns, data, COLUMNS, lines) + (
        '<p class="soft">First rows: as published, a real arm, ten demonstrations of the task. Marked rows: this '
        "comparison, checkpoints by held-out data, with 95 % over training seeds and trials. The column R3M holds time "
        "contrast on the prior data here, not R3M. The published numbers are another robot and other tasks: the layout "
        "is what the two have in common.</p>"
    )


def _published_line(task: str, columns: Sequence[str], successes: Mapping[str, int], trials: int, bold=False) -> str:
    cells = [f"{successes[name]}/{trials}" if name in successes else "" for name in columns]
    inner = "".join(f'<td class="num">{f"<b>{cell}</b>" if bold and cell else cell}</td>' for cell in cells)
    return f'<tr><th scope="row">{escape(task)}</th>{inner}</tr>'


def _layout(
    places: Places,
    columns: Sequence[str],
    data: Sequence[str],
    headings: Mapping[str, str],
    lines: Sequence[str],
) -> str:
    head = "".join(f'<th class="num">{escape(headings.get(name, title_of(name)))}</th>' for name in columns)
    ours = []
    for name in data:
        best = _best(places, columns, name)
        cells = "".join(_cell(own_place(places, name, method), best) for method in columns)
        ours.append(f'<tr{" class=picked" if lines else ""}><th scope="row">{escape(name)}</th>{cells}</tr>')
    return (
        '<div class="scroll"><table class="dense"><thead><tr><th>successes of trials</th>'
        f"{head}</tr></thead><tbody>{''.join([*lines, *ours])}</tbody></table></div>"
    )


def _best(places: Places, methods: Sequence[str], data: str) -> float:
    found = [own_place(places, data, method) for method in methods]
    return max((summary.rate.rate for summary in found if summary), default=math.inf)


def _cell(summary: Summary | None, best: float) -> str:
    if summary is None:
        return '<td class="num">–</td>'
    rate = summary.rate
    low, high = (round(100 * value) for value in rate.interval)
    told = f"{rate.successes}/{rate.num_trials}"
    told = f"<b>{told}</b>" if rate.rate == best > 0 else told
    return f'<td class="num">{told}<br><span class="soft">{low}–{high} %</span></td>'


def all_cells(places: Places, data: str, baseline: str) -> str:
    """Every method and acting mode on a data set: selected, last and oracle checkpoint, before and after."""
    here = {place: summary for place, summary in places.items() if place.data == data}
    compared = own_place(places, data, baseline)
    lines = []
    for method, mode in dict.fromkeys((place.method, place.mode) for place in here):
        selected = here.get(Place(data, method, "after", "selected", mode))
        if selected is None:
            continue
        rate = selected.rate
        low, high = (round(100 * value) for value in rate.interval)
        over, seen = ("seeds and trials", f"{low}–{high}") if rate.bootstrap else ("trials of one seed", "one seed")
        label = f"{rate.successes} of {rate.num_trials} trials succeeded, 95 % over {over} {low} to {high} %"
        seeds = ", ".join(f"{value:.0%}".replace("%", "") for value in rate.per_seed)
        others = "".join(
            f'<td class="num roomy">{_share(here.get(Place(data, method, phase, rule, mode)))}</td>'
            for phase, rule in (("before", "last"), ("after", "last"), ("after", "oracle"))
        )
        wilson = "–".join(str(round(100 * value)) for value in rate.wilson)
        lines.append(
            f'<tr><th scope="row">{escape(title_of(method))}</th><td>{escape(mode)}</td>'
            f'<td class="num">{rate.successes}/{rate.num_trials}</td>'
            f"<td>{interval_bar(rate.rate, *rate.interval, label=label)}</td>"
            f'<td class="num roomy">{seen}<br><span class="soft">{wilson}</span></td>'
            f'<td class="num roomy">{seeds}</td>{others}<td class="num">{_difference(compared, selected)}</td>'
            f'<td class="num roomy">{_decisions(selected)}</td></tr>'
        )
    if not lines:
        return ""
    heads = ["selected", "0 to 100 %", "95 %: seeds, trials", "each seed, %"]
    heads += ["before, %", "last, %", "oracle, %", f"minus {title_of(baseline)}, points", "decisions"]
    head = "".join(f'<th class="num{_roomy(name)}">{escape(name)}</th>' for name in heads)
    return (
        f'<div class="scroll"><table class="dense"><thead><tr><th>method</th><th>acts by</th>{head}</tr></thead>'
        f"<tbody>{''.join(lines)}</tbody></table></div>"
    )


def _roomy(heading: str) -> str:
    return "" if heading in ("selected", "0 to 100 %") or heading.startswith("minus") else " roomy"


def _share(summary: Summary | None) -> str:
    return "–" if summary is None else f"{100 * summary.rate.rate:.0f}"


def _decisions(summary: Summary) -> str:
    if summary.decisions_interval is None:
        return f"{summary.decisions:.0f}"
    low, high = summary.decisions_interval
    return f'{summary.decisions:.0f}<br><span class="soft">{low:.0f}–{high:.0f}</span>'


def _difference(baseline: Summary | None, other: Summary) -> str:
    """In points of success, on the same starts."""
    if baseline is None or baseline is other:
        return "–"
    found = difference_to(baseline, other)
    if found is None:
        return "–"
    mean, (low, high) = found
    told, interval = (text.replace("-", "\N{MINUS SIGN}") for text in (f"{100 * mean:+.0f}", _points(low, high)))
    told = f"<b>{told}</b>" if low > 0 or high < 0 else told
    return f'{told}<br><span class="soft">{interval}</span>'


def _points(low: float, high: float) -> str:
    return f"{100 * low:+.0f} to {100 * high:+.0f}"


def correlations(found: Sequence[MetricCorrelation]) -> str:
    """Of every metric: over all checkpoints, and within runs."""
    lines = [
        f'<tr><th scope="row">{escape(METRICS_TOLD[each.metric][0])}</th>'
        f'<td class="num">{_correlation(each.over_all, each.over_all_interval)}</td>'
        f'<td class="num">{_correlation(each.within, each.within_interval)}</td>'
        f'<td class="num roomy">{each.num_checkpoints}</td>'
        f'<td class="num roomy">{each.num_runs} ({each.num_runs_within})</td></tr>'
        for each in found
    ]
    heads = ("over all", "within runs", "points", "runs (that differ within)")
    head = "".join(f'<th class="num{" roomy" * (i > 1)}">{name}</th>' for i, name in enumerate(heads))
    return (
        f'<div class="scroll"><table class="dense"><thead><tr><th>metric</th>{head}</tr></thead>'
        f"<tbody>{''.join(lines)}</tbody></table></div>"
    )


def _correlation(value: float, interval: tuple[float, float]) -> str:
    if not math.isfinite(value):
        return "–"
    low, high = (f"{each:.2f}" for each in interval)
    told = f'<br><span class="soft">{low} to {high}</span>' if math.isfinite(interval[0]) else ""
    return f"{value:.2f}{told}"


def failures(places: Places, data: str, methods: Sequence[str]) -> str:
    """How far the trials of each method came, and the decisions of those that succeeded."""
    lines = []
    for method in methods:
        summary = own_place(places, data, method)
        if summary is None:
            continue
        placed = summary.rate.rate
        steps = "–" if math.isnan(summary.mean_steps) else f"{summary.mean_steps:.0f}"
        if summary.reached is None or summary.lifted is None:
            shares = ["–", "–", "–"]
        else:
            stages = (1.0, summary.reached, summary.lifted, placed)
            shares = [f"{max(a - b, 0.0):.0%}" for a, b in zip(stages, stages[1:], strict=False)]
        cells = "".join(f'<td class="num">{text}</td>' for text in (*shares, f"{placed:.0%}", steps))
        lines.append(f'<tr><th scope="row">{escape(title_of(method))}</th>{cells}</tr>')
    if not lines:
        return ""
    heads = (
        "never reached the object",
        "reached, did not lift",
        "lifted, did not finish",
        "succeeded",
        "steps of these",
    )
    head = "".join(f'<th class="num">{name}</th>' for name in heads)
    return (
        f'<div class="scroll"><table class="dense"><thead><tr><th>method</th>{head}</tr></thead>'
        f"<tbody>{''.join(lines)}</tbody></table></div>"
    )
