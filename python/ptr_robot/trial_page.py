"""The page of an evaluation on a robot: success, latencies, what the safety filter did, every trial."""

from __future__ import annotations

from collections import Counter
from html import escape

import numpy as np

from ptr_fast.diagnostics import wilson_interval
from ptr_fast.runtime.safety import SafetyLimits
from ptr_robot.report.page import Section
from ptr_robot.report.plots import Series, interval_bar, line_chart
from ptr_robot.trial_sheet import TrialRecord, TrialSheet

__all__ = ["pooled_legs", "sections"]

LEGS = {
    "jitter": "wakes after its time",
    "frame_age": "frame to policy",
    "policy": "policy",
    "overhead": "the loop's own",
    "send": "command to arm",
    "capture_to_command": "frame to command sent",
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
        out[leg] = {**values, "max": max(record.legs_ms[leg]["max"] for record in sheet.records)}
    return out


def sections(sheet: TrialSheet, limits: SafetyLimits) -> list[Section]:
    return [
        Section(heading="Success", body=_success_table(sheet)),
        Section(heading="Latency", body=_latency_table(sheet)),
        Section(heading="Safety", body=_safety_table(sheet, limits)),
        Section(heading="Trials", body=_trial_table(sheet)),
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
        bar = interval_bar(successes / judged if judged else 0.0, low, high, label=f"{successes} of {judged}")
        rows.append([escape(label), f"{successes} / {judged}", bar, f"{low:.0%} to {high:.0%}"])
    return _table(["policy", "success", "0 to 100 %", "95 % interval (Wilson)"], rows)


def _latency_table(sheet: TrialSheet) -> str:
    pooled = pooled_legs(sheet)
    rows = [
        [escape(LEGS[leg]), *(f"{values[name]:.3g}" for name in (*_SHARES, "max"))] for leg, values in pooled.items()
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
            charts.append(
                f'<figure><h4>{escape(LEGS[leg])} <span class="unit">steps over log10 of ms</span></h4>'
                + line_chart([series], title=LEGS[leg], zero_line=True)
                + "</figure>"
            )
    return _table(["leg, ms", "p50", "p95", "p99", "p99.9", "max"], rows) + f'<div class="grid">{"".join(charts)}</div>'


def _safety_table(sheet: TrialSheet, limits: SafetyLimits) -> str:
    total: Counter[str] = Counter()
    for record in sheet.records:
        total.update(record.interventions)
    steps = sum(record.num_steps for record in sheet.records)
    rows = [[escape(name), str(count), f"{count / max(steps, 1):.1%}"] for name, count in total.most_common()]
    lines = "".join(f"<li>{escape(line)}</li>" for line in limits.describe())
    table = _table(["the filter did", "steps", "share"], rows) if rows else "<p>The filter changed nothing.</p>"
    return f"{table}<p>Limits:</p><ul>{lines}</ul>"


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
                escape(record.video),
            ]
        )
    return _table(["trial", "policy", "verdict", "steps", "missed", "held", "ended early by", "video"], rows)
