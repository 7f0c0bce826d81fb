"""Which moments critics find critical, and whether they tell success from failure: a chart and a table."""

from __future__ import annotations

from collections.abc import Mapping
from html import escape
from typing import Any

import numpy as np

from ptr_robot.evaluation.critical_moments import Separation, critical_profile, separation
from ptr_robot.report.curves import figure
from ptr_robot.report.plots import NUM_DASHES, Series, legend, line_chart

__all__ = ["critical_part"]


def critical_part(evaluations: Mapping[str, Mapping[str, Any]]) -> str:
    """HTML about evaluations of checkpoints by the name of their run; empty where none has a critic.

    Args:
        evaluations: as :func:`ptr_robot.evaluation.metrics.evaluate_checkpoint` returns them.
    """
    profiles = {name: p for name, e in evaluations.items() if (p := critical_profile(e)) is not None}
    told = {name: s for name, e in evaluations.items() if (s := separation(e)) is not None}
    out = []
    if profiles:
        tags = [str(i + 1) if len(profiles) > NUM_DASHES else "" for i in range(len(profiles))]
        series = [
            Series(label=name, x=np.arange(5, 100, 10), y=profile, colour=i, dash=i, tag=tags[i])
            for i, (name, profile) in enumerate(profiles.items())
        ]
        names = legend([(line.label, line.colour, line.dash, line.tag) for line in series]) if len(series) > 1 else ""
        chart = line_chart(series, title="How critical a moment is, over an episode in per cent of its length")
        out.append(
            "<p>Where it matters what is done: Q of the recorded action above that of random ones, by tenths of a good "
            "episode (start 0, end 100), in multiples of its mean.</p>"
            + f'<div class="grid">{figure("Critical moments", "times the mean", chart, names)}</div>'
        )
    if told:
        lines = "".join(_line(name, each) for name, each in told.items())
        out.append(
            '<div class="scroll"><table><thead><tr><th>Q tells success from failure</th><th class="num">AUC</th>'
            '<th class="num">95 %</th><th class="num">good</th><th class="num">failed</th></tr></thead>'
            f'<tbody>{lines}</tbody></table></div><p class="soft">Chance that a good episode has the higher mean Q '
            "(0.5: it tells nothing). Interval: bootstrap over episodes.</p>"
        )
    return "".join(out)


def _line(name: str, found: Separation) -> str:
    low, high = found.interval
    return (
        f'<tr><th scope="row">{escape(name)}</th><td class="num">{found.auc:.2f}</td>'
        f'<td class="num">{low:.2f}–{high:.2f}</td><td class="num">{found.num_good}</td>'
        f'<td class="num">{found.num_failed}</td></tr>'
    )
