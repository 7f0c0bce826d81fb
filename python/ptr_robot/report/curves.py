"""The curves of runs over updates: what the updates reported, and metrics on held-out episodes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from html import escape

from ptr_fast.config import LearnerConfig, from_dict
from ptr_fast.learners.registry import traits_of
from ptr_fast.learners.traits import Panel, Traits
from ptr_robot.evaluation.metrics import METRICS
from ptr_robot.report.plots import NUM_DASHES, Series, legend, line_chart
from ptr_robot.report.runs import RunData

__all__ = ["figure", "held_out", "training", "traits_of_run"]

OF_THE_MACHINE = (
    Panel(heading="Updates per second", unit="1/s", series={"perf/steps_per_s": "updates"}),
    Panel(heading="Waiting for data", unit="share of time", series={"perf/data_wait_share": "share"}),
)
HELD_OUT_PANELS = ("score", "action_error", "bellman_error", "q_data", "early_rise", "separation_auc", "log_prob")
HELD_OUT = "held_out/"
"""What the names of metrics on held-out episodes begin with, in a run's log."""


def held_out(runs: Sequence[RunData]) -> str:
    """Metrics on held-out episodes over updates, of the runs that measured them while they trained."""
    drawn = [run for run in runs if any(key.startswith(HELD_OUT) for key in run.metrics)]
    charts = [_training_panel(drawn, _held_out_panel(name)) for name in HELD_OUT_PANELS]
    if not any(charts):
        return ""
    known = {key.removeprefix(HELD_OUT) for run in drawn for key in run.metrics if key.startswith(HELD_OUT)}
    others = [_training_panel(drawn, _held_out_panel(name)) for name in METRICS if name in known - {*HELD_OUT_PANELS}]
    return (
        "<p>The networks of the moment on episodes that nothing was trained on (<code>--evaluate-every</code>). Errors "
        "that rise again, values that leave the returns, and an end that does not reach the start are told by "
        "<code>ptr-fast diagnose</code>.</p>" + _charts(drawn, charts, others)
    )


def _held_out_panel(name: str) -> Panel:
    heading, unit, better, _ = METRICS[name]
    mark = {"high": " \N{UPWARDS ARROW}", "low": " \N{DOWNWARDS ARROW}"}.get(better, "")
    return Panel(heading=heading + mark, unit=unit, series={HELD_OUT + name: heading})


def training(runs: Sequence[RunData]) -> str:
    """Small multiples over updates: a colour and a number per run, or a colour and a dash per series of one run."""
    drawn = [run for run in runs if run.metrics]
    if not drawn:
        return ""
    panels = [*_panels_of(drawn), *OF_THE_MACHINE]
    shown = {key for panel in panels for key in panel.series}
    charts = [_training_panel(drawn, panel) for panel in panels]
    rest = sorted({key for run in drawn for key in run.metrics if not key.startswith(HELD_OUT)} - shown)
    others = [_training_panel(drawn, Panel(heading=key, unit="", series={key: key})) for key in rest]
    return _charts(drawn, charts, others)


def _charts(runs: Sequence[RunData], charts: Sequence[str], others: Sequence[str]) -> str:
    """Charts side by side, the others behind a line that opens them."""
    names = legend([(run.name, i, 0, str(i + 1)) for i, run in enumerate(runs)]) if len(runs) > 1 else ""
    more = (
        f"<details><summary>{len(others)} more series</summary><div class='grid'>{''.join(others)}</div></details>"
        if others
        else ""
    )
    return f'{names}<div class="grid">{"".join(charts)}</div>{more}'


def _panels_of(runs: Sequence[RunData]) -> list[Panel]:
    """The charts that the learners of these runs ask for; those of one heading are one."""
    panels: dict[str, Panel] = {}
    for run in runs:
        traits = traits_of_run(run)
        for panel in traits.panels if traits else ():
            known = panels.get(panel.heading, panel)
            panels[panel.heading] = replace(known, series={**known.series, **panel.series})
    return list(panels.values())


def _training_panel(runs: Sequence[RunData], panel: Panel) -> str:
    series, several, keys = [], len(runs) > 1, panel.series
    present = [key for key in keys if any(key in run.metrics for run in runs)]
    tags = [str(j + 1) if len(present) > NUM_DASHES else "" for j in range(len(present))]
    for i, run in enumerate(runs):
        for j, key in enumerate(present):
            if key in run.metrics:
                steps, values = run.metrics[key]
                label = f"{run.name}: {keys[key]}" if several else keys[key]
                colour, tag = (i, str(i + 1)) if several else (j, tags[j])
                series.append(Series(label=label, x=steps, y=values, colour=colour, dash=j, tag=tag))
    if not series:
        return ""
    names = ""
    if len(present) > 1:
        names = legend([(keys[k], -1 if several else j, j, "" if several else tags[j]) for j, k in enumerate(present)])
    chart = line_chart(series, title=f"{panel.heading} over updates", zero_line=panel in OF_THE_MACHINE)
    return figure(panel.heading, panel.unit, chart, names)


def figure(heading: str, unit: str, chart: str, names: str = "") -> str:
    """A chart under its heading; ``names``: of its lines, as :func:`~ptr_robot.report.plots.legend` makes them."""
    small = f' <span class="unit">{escape(unit)}</span>' if unit else ""
    return f"<figure><h4>{escape(heading)}{small}</h4>{names}{chart}</figure>"


def traits_of_run(run: RunData) -> Traits | None:
    """What the run's learner says about itself; None where its package is not installed here."""
    try:
        config = from_dict(LearnerConfig, run.config["config"]["learner"], "learner")
        return traits_of(config)
    except (KeyError, ValueError):
        return None
