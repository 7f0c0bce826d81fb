"""The parts of a report as HTML; every text from a file is escaped here."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from html import escape
from pathlib import Path
from typing import Any

import numpy as np

from ptr_robot.console.progress import format_duration
from ptr_robot.evaluation.held_out import told_kind
from ptr_robot.evaluation.metrics import METRICS, format_number
from ptr_robot.report.curves import figure, traits_of_run
from ptr_robot.report.episodes import demonstration
from ptr_robot.report.plots import Mark, Series, interval_bar, line_chart
from ptr_robot.report.runs import RunData, TrialRow
from ptr_robot.training.store_places import StorePlaces

__all__ = ["configurations", "demonstrations", "runs_table", "selections", "tiles", "trials"]

SELECTION_PANELS = ("score", "rank_correlation", "bellman_error", "action_error")
MAX_DEMONSTRATION_RUNS = 3


def tiles(runs: Sequence[RunData], rows: Sequence[TrialRow]) -> str:
    """The few numbers worth seeing first."""
    cards = []
    tried = [row for row in rows if row.num_trials]
    if tried:
        best = max(tried, key=lambda row: row.successes / row.num_trials)
        low, high = (round(100 * v) for v in best.interval)
        where = f" of “{best.task}”" if len({row.task for row in tried}) > 1 else ""
        label = f"{best.policy}, {best.mode}: most successful in trials{where} (95 %: {low} to {high} %)"
        cards.append((f"{best.successes} / {best.num_trials}", label))
    if len(runs) == 1:
        (run,) = runs
        cards.append((f"{run.last_step:,}".replace(",", "\N{NARROW NO-BREAK SPACE}"), f"updates, {_method(run)}"))
        if run.seconds:
            pace = run.metrics.get("perf/steps_per_s")
            rate = f", {pace[1][-1]:.3g} updates/s" if pace else ""
            cards.append((format_duration(run.seconds), f"of training{rate}"))
        if run.selection and run.selection["selected"] is not None:
            by, picked = run.selection["metric"], run.selection["selected"]
            value = next((entry["value"] for entry in run.selection["ranking"] if entry["step"] == picked), None)
            why = f"{METRICS[by][0]} {format_number(value)}" if by else "the newest"
            cards.append((f"step {picked}", f"picked checkpoint ({why})"))
    elif runs:
        total = sum(run.seconds for run in runs)
        cards.append((str(len(runs)), f"runs, {format_duration(total)} of training"))
    inner = "".join(f'<div class="tile"><b>{escape(big)}</b><span>{escape(small)}</span></div>' for big, small in cards)
    return f'<div class="tiles">{inner}</div>' if inner else ""


def trials(rows: Sequence[TrialRow]) -> str:
    """Success per policy and mode, one table per task and kitchen."""
    out = []
    for task, kitchen in dict.fromkeys((row.task, row.kitchen) for row in rows):
        here = [row for row in rows if (row.task, row.kitchen) == (task, kitchen)]
        how_far = any(row.reached is not None for row in here)
        extra = '<th class="num roomy">reached</th><th class="num roomy">lifted</th>' if how_far else ""
        out.append(
            f"<h3>{escape(task)}{f', kitchen {escape(kitchen)}' if kitchen else ''}</h3>"
            '<div class="scroll"><table><thead><tr><th>policy</th><th>acts by</th><th class="num">success</th>'
            f'<th>0 to 100 %</th><th class="num roomy">95 % interval</th>{extra}'
            '<th class="num roomy">steps, median</th></tr>'
            f"</thead><tbody>{''.join(_trial_line(row, how_far) for row in here)}</tbody></table></div>"
        )
    if out:
        out.append(
            '<p class="soft">Dot: share of successful trials. Bar: 95 % Wilson interval. Where intervals overlap '
            "widely, these trials do not tell the policies apart. Steps: median over successful trials.</p>"
        )
    return "".join(out)


def _trial_line(row: TrialRow, how_far: bool) -> str:
    rate = row.successes / row.num_trials if row.num_trials else 0.0
    low, high = (round(100 * v) for v in row.interval)
    label = f"{row.successes} of {row.num_trials} trials succeeded, 95 % interval {low} to {high} %"
    steps = "–" if math.isnan(row.median_steps) else f"{row.median_steps:g}"
    counts = [row.reached, row.lifted] if how_far else []
    extra = "".join(f'<td class="num roomy">{"–" if count is None else count}</td>' for count in counts)
    return (
        f'<tr><th scope="row">{escape(row.policy)}</th><td>{escape(row.mode)}</td>'
        f'<td class="num">{row.successes} / {row.num_trials}</td>'
        f"<td>{interval_bar(rate, *row.interval, label=label)}</td>"
        f'<td class="num roomy">{low}–{high} %</td>{extra}<td class="num roomy">{steps}</td></tr>'
    )


def runs_table(runs: Sequence[RunData]) -> str:
    """What was run, one line each."""
    lines = []
    for run in runs:
        step = "–" if run.choice is None else f"step {run.choice.step}"
        versions = ", ".join(f"{k} {v}" for k, v in (run.config.get("versions") or {}).items())
        lines.append(
            f'<tr><th scope="row">{escape(run.name)}</th><td>{escape(_method(run))}</td><td>{_data_words(run)}</td>'
            f'<td class="num">{run.last_step}</td>'
            f'<td class="num">{format_duration(run.seconds) if run.seconds else "–"}</td>'
            f'<td class="num">{step}</td><td>{escape(versions) or "–"}</td></tr>'
        )
    if not lines:
        return ""
    return (
        '<div class="scroll"><table><thead><tr><th>run</th><th>method</th><th>data</th><th class="num">updates</th>'
        '<th class="num">time</th><th class="num">acts by</th><th>versions</th></tr></thead>'
        f"<tbody>{''.join(lines)}</tbody></table></div>"
        + "".join(f'<p class="soft">{escape(f"{r.name}: {told}")}</p>' for r in runs if (told := r.told_choice()))
    )


def _method(run: RunData) -> str:
    learner = run.config.get("config", {}).get("learner") or {}
    traits = traits_of_run(run)
    kind = traits.name if traits else "unknown method"
    encoder = (learner.get("encoder") or {}).get("name")
    start = run.config.get("parent") or run.config.get("checkpoint") or {}
    path = start.get("checkpoint") or start.get("path")  # the second in records of version 1
    origin = f", from step {start['step']} of {Path(path).parent.parent.name}" if path else ""
    return f"{kind}{f', {encoder}' if encoder else ''}{origin}"


def _data_words(run: RunData) -> str:
    split = run.config.get("split") or {}
    words = []
    for source in split.get("sources", []):
        name = Path(source["store"]).name
        counts = f"{len(source['train'])} train, {len(source['validation'])} held out"
        words.append(f"{escape(source['role'])} {escape(name)}: {counts}")
    if len(words) > 1 and "mix" in split:
        critic = (run.config.get("config") or {}).get("critic_mix")
        of_critic = "" if critic is None else f", {critic:.0%} in the critic's loss"
        words.append(f"{split['mix']:.0%} of a batch from prior data{of_critic}")
    return "<br>".join(words) or "–"


def selections(runs: Sequence[RunData]) -> str:
    """Ranking tables with the picked checkpoint marked, and the metrics over training."""
    out = []
    for run in runs:
        if run.selection:
            out.append(_selection(run, run.selection, several=len(runs) > 1))
    if not out:
        return ""
    return (
        "<p>Demonstrations come from an expert, so under a good critic Q rises along them. The score is the mean "
        "of three things: the rank correlation of Q with time, the bounded rise of the last tenth over the rest, and "
        "how often a recorded action beats a random one. A critic whose Q leaves the range of possible returns is out. "
        "Of policies without a critic the newest counts: their held-out error gets worse while success still grows. "
        "So it does where a critic chooses among cloned proposals that did not know the task before fine-tuning. "
        "<strong>No offline metric guarantees success on a robot.</strong></p>" + "".join(out)
    )


def _selection(run: RunData, selection: dict[str, Any], *, several: bool) -> str:
    ranking, data = selection["ranking"], selection["data"]
    keys = [key for key in METRICS if any(entry["metrics"].get(key) is not None for entry in ranking)]
    head = "".join(
        f'<th class="num" title="{escape(METRICS[k][3])}">{escape(METRICS[k][0])}'
        f"{' ↑' if METRICS[k][2] == 'high' else ' ↓' if METRICS[k][2] == 'low' else ''}</th>"
        for k in keys
    )
    lines = []
    for entry in ranking:
        picked = entry["step"] == selection["selected"]
        reason = entry["excluded"]
        mark = '<span class="tag">picked</span>' if picked else ""
        if reason:
            mark = f'<span class="tag" title="{escape(reason)}">out</span>'
        cells = "".join(f'<td class="num">{_cell(entry["metrics"].get(key))}</td>' for key in keys)
        name = "out" if reason else "picked" if picked else ""
        lines.append(f'<tr class="{name}"><th scope="row">step {entry["step"]}</th><td>{mark}</td>{cells}</tr>')
    by = f"ranked by {METRICS[selection['metric']][0]}" if selection["metric"] else "the newest counts"
    caption = f"{told_kind({**data, 'store': Path(data['store']).name})}; {by}; {selection['networks']} networks act"
    out = [f"<h3>{escape(run.name)}</h3>" if several else ""]
    if data["note"]:
        out.append(f'<p class="note">{escape(data["note"])}</p>')
    out.append(
        f'<p class="soft">{escape(caption)}</p><div class="scroll"><table class="dense"><thead><tr><th>checkpoint</th>'
        f"<th></th>{head}</tr></thead><tbody>{''.join(lines)}</tbody></table></div>"
    )
    out += [f'<p class="soft">step {e["step"]} is out: {escape(e["excluded"])}</p>' for e in ranking if e["excluded"]]
    out += [f'<p class="soft">step {e["step"]} is doubted: {escape(e["doubt"])}</p>' for e in ranking if e.get("doubt")]
    return "".join(out) + _metrics_over_steps(ranking, selection["selected"])


def _cell(value: float | None) -> str:
    return "–" if value is None else f"{value:.3g}".replace("-", "\N{MINUS SIGN}")


def _metrics_over_steps(ranking: Sequence[dict[str, Any]], selected: int | None) -> str:
    entries = sorted(ranking, key=lambda entry: entry["step"])
    if len(entries) < 3:
        return ""
    charts = []
    for key in SELECTION_PANELS:
        points = [(e["step"], e["metrics"].get(key)) for e in entries]
        if all(value is None for _, value in points):
            continue
        name, unit, _, _ = METRICS[key]
        steps, values = [s for s, _ in points], [math.nan if v is None else v for _, v in points]
        series = Series(label=name, x=np.array(steps), y=np.array(values))
        marks = [] if selected is None else [Mark(x=selected, text="✓", tooltip=f"picked: step {selected}")]
        charts.append(figure(name, unit, line_chart([series], title=f"{name} over updates", marks=marks, height=130)))
    return f'<div class="grid pair">{"".join(charts)}</div>'


def demonstrations(runs: Sequence[RunData], places: StorePlaces = StorePlaces()) -> str:
    """Frames of a demonstration with its Q and advantage, for the first runs that have a critic."""
    out: list[str] = []
    for run in runs:
        evaluation = run.shown_evaluation()
        if evaluation is None or evaluation["value_range"] is None or len(out) == MAX_DEMONSTRATION_RUNS:
            continue
        out.append(demonstration(run.name, evaluation, places))
    if not out:
        return ""
    return (
        "<p>A recorded episode and what the checkpoint makes of it: Q of the recorded action, V of the policy's own "
        "mean action, and their difference, the advantage. Above zero the recorded action beats the policy's.</p>"
        + "".join(out)
    )


def configurations(runs: Sequence[RunData]) -> str:
    """Everything the runs were told; the lists of episodes as counts."""
    out = []
    for run in runs:
        if not run.config:
            continue
        shown = json.loads(json.dumps(run.config))
        for source in (shown.get("split") or {}).get("sources", []):
            counted = [key for key in ("train", "validation", "others", "episodes") if source.get(key)]
            source |= {key: f"{len(source[key])} episodes" for key in counted}
        for ancestor in shown.get("ancestors") or []:
            for source in ancestor["sources"] or []:
                source["train"] = f"{len(source['train'])} episodes"
        text = escape(json.dumps(shown, indent=2, ensure_ascii=False))
        out.append(f"<details><summary>{escape(run.name)}: train_config.json</summary><pre>{text}</pre></details>")
    return "".join(out)
