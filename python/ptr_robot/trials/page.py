"""The page of an evaluation on a robot: success, latencies, what the safety filter did, every trial."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from html import escape
from typing import Any

import numpy as np

from ptr_fast.diagnostics import wilson_interval
from ptr_fast.runtime.safety import SafetyLimits
from ptr_robot.report.page import Section
from ptr_robot.report.plots import Series, interval_bar, line_chart, nice_ticks
from ptr_robot.trials.sheet import TrialRecord, TrialSheet

__all__ = ["decisions_late", "millisecond_ticks", "pooled_legs", "sections", "told_late"]

LEGS = {
    "jitter": "wakes after its time",
    "frame_age": "frame to policy",
    "frame_wait": "of that, after it was delivered",
    "policy": "policy",
    "overhead": "the loop's own",
    "send": "command to arm",
    "capture_to_command": "frame to command sent",
}
DID = {
    "bounds": "clipped to the command's bounds",
    "box": "kept in the workspace",
    "step": "made the step smaller",
    "velocity": "made it slower",
    "acceleration": "made it gain speed more slowly",
    "ramp": "started it softly",
    "held_stale": "stood still: the observation was old",
    "held_late": "stood still: no action in time",
    "stopped_stale": "stopped: the observation was too old",
    "stopped_not_finite": "stopped: NaN or infinity",
    "stopped_mismatch": "stopped: the first command was far from where the arm was",
}
_SHARES = {"p50": 0.5, "p95": 0.95, "p99": 0.99, "p999": 0.999}


def _histogram(sheet: TrialSheet, leg: str) -> tuple[np.ndarray, np.ndarray]:
    """Lower bounds (ns) and counts of one leg over all trials."""
    total: Counter[int] = Counter()
    for record in sheet.records:
        begins, counts = record.histograms.get(leg, ([], []))
        total.update(dict(zip(begins, counts, strict=True)))
    bounds = sorted(total)
    return np.array(bounds, np.int64), np.array([total[b] for b in bounds], np.int64)


def pooled_legs(sheet: TrialSheet) -> dict[str, dict[str, float]]:
    """Percentiles of every leg over all trials, ms."""
    out = {}
    for leg in LEGS:
        bounds, counts = _histogram(sheet, leg)
        if counts.sum() == 0:
            continue
        share = np.cumsum(counts) / counts.sum()
        values = {name: float(bounds[np.searchsorted(share, p)]) * 1e-6 for name, p in _SHARES.items()}
        out[leg] = {**values, "max": max(r.legs_ms[leg]["max"] for r in sheet.records if leg in r.legs_ms)}
    return out


def decisions_late(records: Sequence[TrialRecord]) -> list[int]:
    """Commands that were sent 0, 1, ... whole control periods after their frame was captured, over some trials."""
    counts = [record.decisions_late for record in records]
    return [sum(c[n] for c in counts if n < len(c)) for n in range(max(map(len, counts), default=0))]


def told_late(counts: Sequence[int]) -> str:
    """How many whole decisions late most actions act, in words."""
    if not sum(counts):
        return "no command was sent"
    most = max(range(len(counts)), key=lambda n: counts[n])
    plural = "" if most == 1 else "s"
    return f"{counts[most] / sum(counts):.0%} of the actions act {most} whole decision{plural} late"


def sections(sheet: TrialSheet, limits: SafetyLimits) -> list[Section]:
    return [
        Section(heading="Success", body=_success_table(sheet)),
        Section(heading="Latency", body=_latency_table(sheet)),
        Section(heading="Safety", body=_safety_table(sheet, limits)),
        Section(heading="Trials", body=_trial_table(sheet)),
        Section(heading="Setting", body=_setting(sheet)),
    ]


def _table(head: list[str], rows: list[list[str]]) -> str:
    cells = "".join(f"<th>{escape(h)}</th>" for h in head)
    body = "".join("<tr>" + "".join(f"<td>{cell}</td>" for cell in row) + "</tr>" for row in rows)
    return f'<div class="scroll"><table><thead><tr>{cells}</tr></thead><tbody>{body}</tbody></table></div>'


def _success_table(sheet: TrialSheet) -> str:
    rows = []
    for label in sheet.policies:
        successes, judged = sheet.counts(label)
        low, high = wilson_interval(successes, judged) if judged else (0.0, 1.0)
        bar = interval_bar(successes / judged, low, high, label=f"{successes} of {judged}") if judged else ""
        interval = f"{low:.0%} to {high:.0%}" if judged else "not judged yet"
        step = sheet.step_of(label)
        known = ["unknown" if step is None else str(step), escape(sheet.way_of(label)) or "unknown"]
        rows.append([escape(label), *known, f"{successes} / {judged}", bar, interval])
    head = ["policy", "checkpoint's step", "acts by", "success", "0 to 100 %", "95 % interval (Wilson)"]
    return _table(head, rows)


def _latency_table(sheet: TrialSheet) -> str:
    pooled = pooled_legs(sheet)
    rows = [
        [escape(LEGS[leg]), *(_milliseconds(values[name]) for name in (*_SHARES, "max"))]
        for leg, values in pooled.items()
    ]
    if not rows:
        return ""
    charts = []
    for leg in ("capture_to_command", "jitter"):
        bounds, counts = _histogram(sheet, leg)
        if counts.sum():
            # Eight buckets to a doubling are enough for a picture.
            key = np.floor(8 * np.log2(np.maximum(bounds, 1))).astype(int)
            merged = Counter[int]()
            for k, count in zip(key.tolist(), counts.tolist(), strict=True):
                merged[k] += count
            keys = range(min(merged) - 1, max(merged) + 2)
            x, y = [2 ** ((k + 0.5) / 8) * 1e-6 for k in keys], [merged.get(k, 0) for k in keys]
            series = Series(label=LEGS[leg], x=np.log10(x), y=np.array(y, float))
            ticks = millisecond_ticks(x[0], x[-1])[:: 1 + (len(keys) > 40)]
            charts.append(
                f'<figure><h4>{escape(LEGS[leg])} <span class="unit">steps over ms</span></h4>'
                + line_chart([series], title=LEGS[leg], zero_line=True, x_ticks=ticks, x_label="ms")
                + "</figure>"
            )
    legs = _table(["leg, ms", "p50", "p95", "p99", "p99.9", "max"], rows)
    return f'{legs}{_late_table(sheet)}<div class="grid">{"".join(charts)}</div>'


def millisecond_ticks(low: float, high: float) -> list[tuple[float, str]]:
    """Places (base-10 logarithms) and labels of marks between two times in ms: 1 and 3 of each power of ten.

    Round numbers where the times lie closer together than that.
    """
    marks = [m * 10.0**e for e in range(-6, 6) for m in (1, 3) if low <= m * 10.0**e <= high]
    return [(float(np.log10(mark)), f"{mark:g}") for mark in (marks if len(marks) > 1 else nice_ticks(low, high))]


def _late_table(sheet: TrialSheet) -> str:
    counts = decisions_late(sheet.records)
    if not sum(counts):
        return ""
    rows = [[str(n), str(count), f"{count / sum(counts):.1%}"] for n, count in enumerate(counts) if count]
    return (
        f"<p>{told_late(counts)}: so many control periods lie between the capture of a frame and the command that was "
        "decided on it. In lock step it is 0.</p>" + _table(["whole decisions late", "commands", "share"], rows)
    )


def _safety_table(sheet: TrialSheet, limits: SafetyLimits) -> str:
    total: Counter[str] = Counter()
    for record in sheet.records:
        total.update(record.interventions)
    steps = sum(record.num_steps for record in sheet.records)
    rows = [
        [escape(name), DID.get(name, ""), str(count), f"{count / max(steps, 1):.1%}"]
        for name, count in total.most_common()
    ]
    lines = "".join(f"<li>{escape(line)}</li>" for line in limits.describe())
    table = _table(["the filter", "did", "steps", "share"], rows) if rows else "<p>The filter changed nothing.</p>"
    return f"{table}<p>Limits:</p><ul>{lines}</ul>"


def _setting(sheet: TrialSheet) -> str:
    about = sheet.about
    told = {**about, "play": _played(about["play"])} if "play" in about else about
    rows = [[escape(name), escape(str(value))] for name, value in told.items() if name not in ("policies", "options")]
    rows += [[escape(f"robot's {name}"), escape(str(value))] for name, value in about["options"].items()]
    for policy in about["policies"]:
        rest = ", ".join(f"{name} {value}" for name, value in policy.items() if name != "label")
        rows.append([escape(f"policy {policy['label']}"), escape(rest)])
    return _table(["what", "how"], rows)


def _played(play: Mapping[str, Any]) -> str:
    """How chunks were played, in words."""
    asked = f"asked every {play['execute']} steps" if play["execute"] else ""
    decay = f"decay {play['ensemble_decay']:g}" if play["play"] == "ensemble" else ""
    return ", ".join(word for word in (play["play"], asked, decay) if word)


def _milliseconds(value: float) -> str:
    return f"{value:.0f}" if value >= 100 else f"{value:.3g}"


def _how_it_ended(record: TrialRecord) -> list[str]:
    ended = f"{record.reason}: {record.message}" if record.reason else ""
    stopped = "" if record.arm_stopped else "the arm did not confirm that it stopped"
    return [line for line in (ended, stopped, *record.notes) if line]


def _trial_table(sheet: TrialSheet) -> str:
    rows = []
    for record in sheet.records:
        verdict = {True: "success", False: "failure", None: "not judged"}[record.success]
        rows.append(
            [
                str(record.index + 1),
                escape(record.policy),
                verdict,
                str(record.num_steps),
                str(record.num_missed),
                str(record.num_held),
                "<br>".join(escape(line) for line in _how_it_ended(record)),
                f'<a class="whole" href="{escape(record.video)}">{escape(record.video)}</a>' if record.video else "",
            ]
        )
    return _table(["trial", "policy", "verdict", "steps", "missed", "held", "ended early by", "video"], rows)
