"""One picture per kind of episode: the hand's paths seen from above, how long episodes are and how fast the hand moves.

For stores whose state says where the hand is (toy kitchens). The picture is an SVG file of a few kilobytes.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from html import escape
from typing import Any

import numpy as np

from ptr_robot.report.plots import nice_ticks

__all__ = ["Motion", "motions", "path_svg"]

METRES = {"m": 1.0, "0.1 m": 0.1, "cm": 0.01}
HAND = ("hand_x", "hand_y", "hand_z")
OBJECT, CONTAINER = ("object_x", "object_y"), ("container_x", "container_y")
MAX_PATHS, NUM_BINS = 25, 24
INK, SOFT, RULE, PAPER = "#1c2126", "#626b75", "#e3e6e8", "#fbfbfa"
COLOURS = {"success": "#0b63c5", "failure": "#d35f00", "unknown": "#626b75"}
MAP, BARS, HEIGHT, TOP, BOTTOM = 330, 250, 280, 46, 36  # pixels


@dataclass(frozen=True, kw_only=True)
class Motion:
    """The episodes of one kind.

    Attributes:
        kind: as stored. outcomes: of each episode.
        paths: of each episode the hand's x and y, metres ``[F, 2]``.
        places: of each episode where object and container are at its start, metres ``[n, 2]``; n is 0 where no state
            tells.
        lengths: decisions of each episode.
        speeds: centimetres that the hand moves in each decision of all episodes ``[sum of lengths]``.
    """

    kind: str
    outcomes: tuple[str, ...]
    paths: tuple[np.ndarray, ...]
    places: tuple[np.ndarray, ...]
    lengths: np.ndarray
    speeds: np.ndarray

    def caption(self) -> str:
        """Counts and means in words."""
        good = np.array([outcome == "success" for outcome in self.outcomes])
        means = f"mean length {self.lengths.mean():.0f} decisions"
        if good.any() and not good.all():
            means += f" (of the successes {self.lengths[good].mean():.0f})"
        return (
            f"{len(good)} episodes, {100 * good.mean():.0f} % succeeded, {means}, "
            f"mean speed {self.speeds.mean():.1f} cm per decision"
        )


def motions(store: Any) -> list[Motion]:
    """Of each kind in the store.

    Raises:
        ValueError: the state does not say where the hand is, or in a unit that is no length.
    """
    names, table = list(store.meta.state.names), store.episodes
    if not set(HAND) <= set(names):
        raise ValueError(f"{store.path}: paths need {list(HAND)} in the state, the store has {names}")
    hand = [names.index(name) for name in HAND]
    things = [[names.index(name) for name in each] for each in (OBJECT, CONTAINER) if set(each) <= set(names)]
    used = [*hand, *(place for thing in things for place in thing)]
    units = {store.meta.state.units[place] for place in used}
    if len(units) > 1 or not units <= set(METRES):
        raise ValueError(f"{store.path}: paths need places in one unit out of {list(METRES)}, got {sorted(units)}")
    scale = METRES[units.pop()]
    out = []
    for kind in dict.fromkeys(table.kind):
        episodes = [index for index, other in enumerate(table.kind) if other == kind]
        states = [scale * store.state[table.first[e] : table.first[e] + table.num_frames[e]] for e in episodes]
        moved = [100.0 * np.linalg.norm(np.diff(each[:, hand], axis=0), axis=1) for each in states]
        out.append(
            Motion(
                kind=kind,
                outcomes=tuple(table.outcome[e] for e in episodes),
                paths=tuple(each[:, hand[:2]] for each in states),
                places=tuple(np.array([each[0, thing] for thing in things]).reshape(-1, 2) for each in states),
                lengths=np.array([table.num_steps[e] for e in episodes]),
                speeds=np.concatenate(moved),
            )
        )
    return out


def path_svg(motion: Motion) -> str:
    """The picture as an SVG file; up to 25 paths, evenly chosen."""
    width = MAP + 2 * BARS
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {HEIGHT}" width="{width}" height="{HEIGHT}" '
        f'font-family="sans-serif" font-size="11" fill="{SOFT}">',
        f'<rect width="{width}" height="{HEIGHT}" fill="{PAPER}"/>',
        _text(12, 18, motion.kind, INK, 'font-weight="bold" font-size="14"'),
        _text(12, 34, motion.caption()),
        *_map(motion),
        *_bars(MAP, motion.lengths, "decisions per episode", max(1.0, np.ceil(motion.lengths.max() / NUM_BINS))),
        *_bars(MAP + BARS, motion.speeds, "cm per decision", max(1e-3, motion.speeds.max() / NUM_BINS)),
        "</svg>\n",
    ]
    return "".join(parts)


def _text(x: float, y: float, text: str, fill: str = SOFT, more: str = "") -> str:
    return f'<text x="{x:.1f}" y="{y:.1f}" fill="{fill}" {more}>{escape(text)}</text>'


def _map(motion: Motion) -> list[str]:
    """Paths seen from above: x to the right, y away from the arm."""
    chosen = np.unique(np.linspace(0, len(motion.paths) - 1, min(MAX_PATHS, len(motion.paths))).round().astype(int))
    points = np.concatenate([*(motion.paths[i] for i in chosen), *(motion.places[i] for i in chosen)])
    low, high = points.min(axis=0) - 0.02, points.max(axis=0) + 0.02
    scale = min((MAP - 40) / (high[0] - low[0]), (HEIGHT - TOP - BOTTOM) / (high[1] - low[1]))

    def place(xy: np.ndarray) -> tuple[float, float]:
        return 20 + scale * (xy[0] - low[0]), HEIGHT - BOTTOM - scale * (xy[1] - low[1])

    parts = []
    for i in sorted(chosen, key=lambda index: motion.outcomes[index] != "success"):
        colour = COLOURS[motion.outcomes[i]]
        dots = " ".join("{:.0f},{:.0f}".format(*place(xy)) for xy in motion.paths[i])
        parts.append(f'<polyline points="{dots}" fill="none" stroke="{colour}" stroke-opacity=".45"/>')
    for i in chosen:
        for xy, radius in zip(motion.places[i], (2.0, 3.5), strict=False):
            x, y = place(xy)
            filled = INK if radius == 2.0 else "none"
            parts.append(f'<circle cx="{x:.0f}" cy="{y:.0f}" r="{radius}" fill="{filled}" stroke="{INK}"/>')
    end = 20 + 0.1 * scale
    parts.append(f'<line x1="20" x2="{end:.0f}" y1="{HEIGHT - 22}" y2="{HEIGHT - 22}" stroke="{INK}"/>')
    parts.append(_text(end + 6, HEIGHT - 18, "10 cm, seen from above"))
    legend = [(name, colour) for name, colour in COLOURS.items() if name in motion.outcomes]
    for index, (name, colour) in enumerate(legend):
        parts.append(_text(end + 152 + 52 * index, HEIGHT - 18, name, colour))
    if any(len(each) for each in motion.places):
        parts.append(_text(20, HEIGHT - 5, "dot: object at the start; ring: container"))
    return parts


def _bars(left: float, values: np.ndarray, label: str, bin_size: float) -> list[str]:
    """A histogram from 0 to the largest value."""
    x0, x1, y0, y1 = left + 14, left + BARS - 14, HEIGHT - BOTTOM, TOP
    num_bins = int(values.max() / bin_size) + 1
    highest = num_bins * bin_size
    counts, edges = np.histogram(values, bins=num_bins, range=(0.0, highest))
    parts = [f'<line x1="{x0}" x2="{x1}" y1="{y0}" y2="{y0}" stroke="{RULE}"/>']
    for count, start, end in zip(counts, edges, edges[1:], strict=False):
        x, y = x0 + (x1 - x0) * start / highest, y0 - (y0 - y1) * count / counts.max()
        size = (x1 - x0) * (end - start) / highest - 1
        parts.append(f'<rect x="{x:.1f}" y="{y:.1f}" width="{size:.1f}" height="{y0 - y:.1f}" fill="{SOFT}"/>')
    for tick in nice_ticks(0.0, highest):
        x = x0 + (x1 - x0) * tick / highest
        parts.append(_text(x, y0 + 13, f"{tick:g}", more='text-anchor="middle"'))
    mean = x0 + (x1 - x0) * float(values.mean()) / highest
    parts.append(f'<line x1="{mean:.1f}" x2="{mean:.1f}" y1="{y1}" y2="{y0}" stroke="{INK}" stroke-dasharray="3 3"/>')
    return [*parts, _text((x0 + x1) / 2, HEIGHT - 5, label + " (dashed: mean)", more='text-anchor="middle"')]


def file_names(kinds: Sequence[str]) -> list[str]:
    """One file per kind; words of other stores become safe names."""
    return ["paths-" + "".join(c if c.isalnum() or c in "-_" else "_" for c in kind) + ".svg" for kind in kinds]
