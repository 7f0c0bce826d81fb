"""Small charts as inline SVG: no script, no font, no external resource; colours come from the page's style sheet.

Written by hand rather than by a plotting library, so that a chart follows the reader's light or dark theme, stays a few
kilobytes, and the report needs nothing beyond the package itself.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape

import numpy as np

__all__ = [
    "LEFT",
    "NARROW",
    "NUM_DASHES",
    "RIGHT",
    "SMALL",
    "WIDE",
    "Mark",
    "Series",
    "interval_bar",
    "legend",
    "line_chart",
    "nice_ticks",
    "thin_out",
]

MAX_POINTS = 400
MAX_DRAWN = 1e300
NUM_COLOURS = 8
NUM_DASHES = 4
TAG_HEIGHT = 10.5
LEFT, RIGHT, TOP, BOTTOM = 42.0, 10.0, 8.0, 24.0
SMALL, WIDE, NARROW = 264, 860, 360
"""Widths of charts near the pixels they are shown at, so that labels keep their size: one of a grid, laptop, phone."""


@dataclass(frozen=True, kw_only=True)
class Series:
    """One line: ``label`` for the legend and screen readers, ``x`` and ``y`` of one length, palette slots.

    No two lines of a chart may differ by their colour alone: they have other dashes (there are ``NUM_DASHES``), or a
    ``tag`` of a letter or number, which stands at the line's end and in the legend.
    """

    label: str
    x: np.ndarray
    y: np.ndarray
    colour: int = 0
    dash: int = 0
    tag: str = ""


@dataclass(frozen=True, kw_only=True)
class Mark:
    """A numbered vertical line at ``x`` with a tooltip."""

    x: float
    text: str
    tooltip: str = ""


@dataclass(frozen=True, kw_only=True)
class _Axes:
    width: float
    height: float
    x_range: tuple[float, float]
    y_range: tuple[float, float]

    def x(self, value: float) -> float:
        low, high = self.x_range
        return LEFT + (value - low) / (high - low) * (self.width - LEFT - RIGHT)

    def y(self, value: float) -> float:
        low, high = self.y_range
        return self.height - BOTTOM - (value - low) / (high - low) * (self.height - TOP - BOTTOM)


def nice_ticks(low: float, high: float, count: int = 4) -> list[float]:
    """About ``count`` round numbers (1, 2 or 5 times a power of ten) within ``[low, high]``."""
    if not (math.isfinite(low) and math.isfinite(high)) or low >= high:
        raise ValueError(f"ticks need finite low < high, got {low} and {high}")
    raw = (high - low) / count
    power = 10.0 ** math.floor(math.log10(raw))
    step = next(power * m for m in (1, 2, 5, 10) if power * m >= raw * 0.999)
    first = math.ceil(low / step - 1e-9)
    last = math.floor(high / step + 1e-9)
    return [round(i * step, 12) for i in range(first, last + 1)]


def thin_out(x: np.ndarray, y: np.ndarray, max_points: int = MAX_POINTS) -> tuple[np.ndarray, np.ndarray]:
    """At most ``max_points`` points, keeping the smallest and the largest of each stretch so that spikes stay."""
    if len(x) <= max_points:
        return x, y
    keep: set[int] = {0, len(x) - 1}
    for part in np.array_split(np.arange(len(x)), (max_points - 2) // 2):
        values = np.where(np.isfinite(y[part]), y[part], 0.0)
        keep |= {int(part[np.argmin(values)]), int(part[np.argmax(values)])}
    kept = np.array(sorted(keep))
    return x[kept], y[kept]


def line_chart(
    series: Sequence[Series],
    *,
    title: str,
    x_label: str = "",
    width: int = SMALL,
    height: int = 150,
    marks: Sequence[Mark] = (),
    zero_line: bool = False,
    x_range: tuple[float, float] | None = None,
    y_range: tuple[float, float] | None = None,
    x_ticks: Sequence[tuple[float, str]] = (),
) -> str:
    """An ``<svg>`` with one line per series; gaps where values are not finite, or beyond all reason.

    Args:
        title: read out by screen readers and shown as a tooltip; the page draws the visible heading.
        marks: numbered vertical lines.
        zero_line: the y range includes 0 and a line is drawn there.
        x_range, y_range: where several charts share an axis.
        x_ticks: places and labels in place of round numbers of x.
    """
    lines = [(s, *thin_out(np.asarray(s.x, float), _drawable(np.asarray(s.y, float)))) for s in series]
    finite = [(x[np.isfinite(y)], y[np.isfinite(y)]) for _, x, y in lines]
    xs = np.concatenate([x for x, _ in finite] or [np.empty(0)])
    ys = np.concatenate([y for _, y in finite] or [np.empty(0)])
    head = (
        f'<svg class="chart" viewBox="0 0 {width} {height}" role="img" aria-label="{escape(title)}">'
        f"<title>{escape(title)}</title>"
    )
    if xs.size == 0:
        return head + f'<text class="tick" x="{width / 2}" y="{height / 2}" text-anchor="middle">no data</text></svg>'
    y_values = np.append(ys, 0.0) if zero_line else ys
    axes = _Axes(
        width=width,
        height=height,
        x_range=x_range or _padded(float(xs.min()), float(xs.max()), 0.0),
        y_range=y_range or _padded(float(y_values.min()), float(y_values.max()), 0.06),
    )
    parts = [head, *_frame(axes, x_label, zero_line, x_ticks)]
    tags = _tags(axes, lines)
    parts += [_line(axes, s, x, y, tag) for (s, x, y), tag in zip(lines, tags, strict=True)]
    parts += [_mark(axes, mark) for mark in marks]
    return "".join([*parts, "</svg>"])


def interval_bar(rate: float, low: float, high: float, *, label: str, width: int = 220, height: int = 22) -> str:
    """A success rate in [0, 1] as a dot with its interval, on a scale from 0 to 100 %."""
    left, span, middle = 6.0, width - 12.0, height / 2.0
    x = [left + span * v for v in (rate, low, high)]
    grid = "".join(
        f'<line class="grid-line" x1="{left + span * q:.1f}" x2="{left + span * q:.1f}" y1="2" y2="{height - 2}"/>'
        for q in (0.0, 0.25, 0.5, 0.75, 1.0)
    )
    return (
        f'<svg class="bar" viewBox="0 0 {width} {height}" role="img" aria-label="{escape(label)}">'
        f"<title>{escape(label)}</title>{grid}"
        f'<rect class="interval" x="{x[1]:.1f}" y="{middle - 4}" width="{max(x[2] - x[1], 1):.1f}" height="8" rx="4"/>'
        f'<circle class="rate" cx="{x[0]:.1f}" cy="{middle}" r="5"/></svg>'
    )


def legend(entries: Sequence[tuple[str, int, int, str]]) -> str:
    """Names of lines: (name, number of its colour or -1 for none, number of its dash, tag)."""
    items = "".join(
        f'<span><span class="key {"plain" if colour < 0 else f"c{colour % NUM_COLOURS}"} d{dash % NUM_DASHES}"></span>'
        f"{f'<b>{escape(tag)}</b> ' if tag else ''}{escape(label)}</span>"
        for label, colour, dash, tag in entries
    )
    return f'<div class="legend">{items}</div>'


def _drawable(values: np.ndarray) -> np.ndarray:
    """NaN in place of values whose differences overflow."""
    return np.where(np.abs(values) < MAX_DRAWN, values, np.nan)


def _padded(low: float, high: float, share: float) -> tuple[float, float]:
    if low == high:
        margin = abs(low) * 0.1 or 1.0
        return low - margin, high + margin
    margin = share * (high - low)
    return low - margin, high + margin


def _number(value: float) -> str:
    if value and (abs(value) >= 1e6 or abs(value) < 1e-3):
        return f"{value:.0e}".replace("e-0", "e-").replace("e+0", "e")
    if abs(value) >= 1e4:
        return f"{value / 1e3:g}k"
    return f"{value:g}".replace("-", "\N{MINUS SIGN}")


def _frame(axes: _Axes, x_label: str, zero_line: bool, x_ticks: Sequence[tuple[float, str]]) -> list[str]:
    parts = []
    right, start, below = axes.width - RIGHT, LEFT - 6, f"{axes.height - BOTTOM + 14:.1f}"
    for tick in nice_ticks(*axes.y_range):
        y = axes.y(tick)
        parts.append(f'<line class="grid-line" x1="{LEFT}" x2="{right}" y1="{y:.1f}" y2="{y:.1f}"/>')
        parts.append(f'<text class="tick" x="{start}" y="{y + 3.5:.1f}" text-anchor="end">{_number(tick)}</text>')
    low, high = axes.x_range
    count = max(1, min(int(axes.width / 80), int(high - low)))  # steps are whole
    for tick, text in x_ticks or [(tick, _number(tick)) for tick in nice_ticks(low, high, count=count)]:
        x = min(axes.x(tick), axes.width - 12)  # a label at the very edge would be cut off
        parts.append(f'<text class="tick" x="{x:.1f}" y="{below}" text-anchor="middle">{escape(text)}</text>')
    if zero_line:
        zero = f"{axes.y(0.0):.1f}"
        parts.append(f'<line class="axis-line" x1="{LEFT}" x2="{right}" y1="{zero}" y2="{zero}"/>')
    if x_label:
        parts.append(f'<text class="tick" x="{start}" y="{below}" text-anchor="end">{escape(x_label)}</text>')
    return parts


def _tags(axes: _Axes, lines: Sequence[tuple[Series, np.ndarray, np.ndarray]]) -> list[str]:
    """The tags of lines above their ends, moved apart where they would lie on each other; empty where there is none."""
    ends = {
        i: np.flatnonzero(np.isfinite(y))[-1] for i, (s, _, y) in enumerate(lines) if s.tag and np.isfinite(y).any()
    }
    order = sorted(ends, key=lambda i: axes.y(lines[i][2][ends[i]]))
    places: dict[int, float] = {}
    low = TOP + TAG_HEIGHT - 2
    for i in order:
        places[i] = low = max(axes.y(lines[i][2][ends[i]]) - 3, low)
        low += TAG_HEIGHT
    high = axes.height - BOTTOM
    for i in reversed(order):
        places[i] = high = min(places[i], high)
        high -= TAG_HEIGHT
    return [
        f'<text class="end" x="{axes.x(lines[i][1][ends[i]]):.1f}" y="{places[i]:.1f}" text-anchor="end">'
        f"{escape(lines[i][0].tag)}</text>"
        if i in ends
        else ""
        for i in range(len(lines))
    ]


def _line(axes: _Axes, series: Series, x: np.ndarray, y: np.ndarray, tag: str) -> str:
    style = f'class="line c{series.colour % NUM_COLOURS} d{series.dash % NUM_DASHES}"'
    pieces: list[list[str]] = [[]]
    for a, b in zip(x, y, strict=True):
        if math.isfinite(b):
            pieces[-1].append(f"{axes.x(a):.1f},{axes.y(b):.1f}")
        elif pieces[-1]:
            pieces.append([])
    out = []
    for piece in filter(None, pieces):
        if len(piece) == 1:
            cx, cy = piece[0].split(",")
            out.append(f'<circle class="dot c{series.colour % NUM_COLOURS}" cx="{cx}" cy="{cy}" r="2.5"/>')
        else:
            out.append(f'<polyline {style} points="{" ".join(piece)}"/>')
    return f"<g><title>{escape(series.label)}</title>{''.join(out)}{tag}</g>"


def _mark(axes: _Axes, mark: Mark) -> str:
    x = axes.x(mark.x)
    return (
        f'<g class="mark"><title>{escape(mark.tooltip or mark.text)}</title>'
        f'<line x1="{x:.1f}" x2="{x:.1f}" y1="{TOP}" y2="{axes.height - BOTTOM}"/>'
        f'<circle cx="{x:.1f}" cy="{TOP + 7}" r="7.5"/>'
        f'<text x="{x:.1f}" y="{TOP + 10.5}" text-anchor="middle">{escape(mark.text)}</text></g>'
    )
