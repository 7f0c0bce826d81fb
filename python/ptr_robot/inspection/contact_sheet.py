"""Contact sheets: a few frames of a few episodes of every task, as a PNG picture and as a self-contained HTML page."""

from __future__ import annotations

import base64
import io
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape
from typing import Any

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from ptr_robot.diagnosis.finding import printable
from ptr_robot.inspection.store_summary import DimensionRange, StoreSummary
from ptr_robot.report.style import CSS

__all__ = ["SheetRow", "choose_camera", "choose_rows", "sheet_html", "sheet_png"]

CELL_HEIGHT = 128
"""Pixels of a frame on the picture; on the page frames larger than twice this are made smaller."""
MARGIN, GAP, CAPTION, BAND = 16, 4, 22, 34
PAPER, INK, SOFT, RULE = (251, 251, 250), (28, 33, 38), (98, 107, 117), (227, 230, 232)
# Whatever slipped through escaping could still load and run nothing.
POLICY = "default-src 'none'; img-src data:; style-src 'unsafe-inline'"
PAGE_CSS = """
.film { display: flex; gap: 3px; overflow-x: auto; margin: .2rem 0 1rem; }
.film img { height: 128px; width: auto; border-radius: 4px; background: var(--rule); flex: none; }
code { overflow-wrap: anywhere; }
"""


@dataclass(frozen=True, kw_only=True)
class SheetRow:
    """One episode on a sheet.

    Attributes:
        episode: its index in the store. ``episode_id``, ``task``, ``outcome``: as stored.
        num_steps: its length.
        steps: the frames shown, spread evenly from the first to the last.
    """

    episode: int
    episode_id: str
    task: str
    outcome: str
    num_steps: int
    steps: tuple[int, ...]

    @property
    def caption(self) -> str:
        ending = "" if self.outcome == "unknown" else f", {self.outcome}"
        return f"{self.episode_id}  ({self.num_steps} steps{ending})"


def choose_rows(store: Any, *, episodes_per_task: int, frames_per_episode: int, max_tasks: int) -> list[SheetRow]:
    """Episodes spread evenly over each of the largest tasks, and frames spread evenly over each episode."""
    table = store.episodes
    members: dict[str, list[int]] = {}
    for episode, task in enumerate(table.task):
        members.setdefault(task, []).append(episode)
    rows = []
    for task in sorted(members, key=lambda task: (-len(members[task]), task))[:max_tasks]:
        for pick in _spread(len(members[task]), episodes_per_task):
            episode = members[task][pick]
            rows.append(
                SheetRow(
                    episode=episode,
                    episode_id=table.episode_id[episode],
                    task=task,
                    outcome=table.outcome[episode],
                    num_steps=int(table.num_steps[episode]),
                    steps=_spread(int(table.num_frames[episode]), frames_per_episode),
                )
            )
    return rows


def choose_camera(store: Any) -> str:
    """The first camera whose first frame is not black (else the first)."""
    for camera in store.meta.cameras:
        if store.num_records and store.frame(camera.name, 0).max() > 16:
            return camera.name
    return store.meta.cameras[0].name


def sheet_png(store: Any, rows: Sequence[SheetRow], camera: str) -> bytes:
    """The sheet as a PNG file: a band per task, a row per episode, the step in the corner of every frame."""
    spec = store.meta.camera(camera)
    width = max(1, round(CELL_HEIGHT * spec.width / spec.height))
    columns = max((len(row.steps) for row in rows), default=1)
    num_tasks = len({row.task for row in rows})
    size = (
        2 * MARGIN + columns * (width + GAP) - GAP,
        2 * MARGIN + BAND * num_tasks + len(rows) * (CAPTION + CELL_HEIGHT + GAP),
    )
    sheet = Image.new("RGB", size, PAPER)
    draw = ImageDraw.Draw(sheet)
    heading, small, tiny = (ImageFont.load_default(points) for points in (17, 13, 11))
    y, task = MARGIN, None
    for row in rows:
        if row.task != task:
            task = row.task
            draw.line([(MARGIN, y + 4), (size[0] - MARGIN, y + 4)], fill=RULE)
            draw.text(
                (MARGIN, y + 10),
                _fit(draw, printable(task) or "(no name)", heading, size[0] - 2 * MARGIN),
                INK,
                heading,
            )
            y += BAND
        draw.text((MARGIN, y + 3), _fit(draw, printable(row.caption), small, size[0] - 2 * MARGIN), SOFT, small)
        y += CAPTION
        for column, step in enumerate(row.steps):
            image = _resized(_frame(store, camera, row, step), width, CELL_HEIGHT)
            x = MARGIN + column * (width + GAP)
            sheet.paste(image, (x, y))
            _stamp(draw, (x, y), str(step), tiny)
        y += CELL_HEIGHT + GAP
    out = io.BytesIO()
    sheet.save(out, "PNG")
    return out.getvalue()


def sheet_html(store: Any, rows: Sequence[SheetRow], camera: str, summary: StoreSummary) -> bytes:
    """The sheet as a page with the store's numbers; pictures are inside it, names are escaped, nothing is loaded."""
    title = f"Store {store.path.name}"
    tasks = {task.task: task for task in summary.tasks}
    parts, task = [], None
    for row in rows:
        if row.task != task:
            task = row.task
            about = tasks[task]
            parts.append(
                f"<h3>{escape(task) or '(no name)'}</h3>\n<p class='soft'>{about.episodes} episodes, {about.steps} "
                f"steps, lengths {about.shortest} / {about.median:g} / {about.longest} (least, median, most)</p>"
            )
        images = "".join(_image_tag(store, camera, row, step) for step in row.steps)
        parts.append(f"<div class='soft'>{escape(row.caption)}</div><div class='film'>{images}</div>")
    hidden = len(summary.tasks) - len({row.task for row in rows})
    if hidden > 0:
        parts.append(f"<p class='soft'>{hidden} smaller tasks are not shown.</p>")
    hours = f"{summary.hours:.1f} h" if summary.hours >= 1 else f"{60 * summary.hours:.1f} min"
    tiles = (
        (summary.episodes, "episodes"),
        (summary.steps, "steps"),
        (len(summary.tasks), "tasks"),
        (hours, f"at {summary.meta['control_hz']:g} Hz"),
        (f"{summary.num_bytes / 1e6:.1f} MB", "on disk"),
    )
    cards = "".join(
        f"<div class='tile'><b>{escape(str(value))}</b><span>{label}</span></div>" for value, label in tiles
    )
    return (
        '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        f'<meta http-equiv="Content-Security-Policy" content="{POLICY}">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>{escape(title)}</title>\n<style>{CSS}{PAGE_CSS}</style>\n</head>\n<body>\n<main>\n"
        f"<h1>{escape(title)}</h1>\n<div class='tiles'>{cards}</div>\n"
        f"<h2>Frames</h2>\n<p>Camera <b>{escape(camera)}</b>; frames spread evenly over each episode.</p>\n"
        + "\n".join(parts)
        + f"\n<h2>Actions</h2>\n{_range_table(summary.actions)}\n<h2>States</h2>\n{_range_table(summary.states)}\n"
        f"<footer class='soft'>Fingerprint <code>{escape(summary.fingerprint)}</code></footer>\n"
        "</main>\n</body>\n</html>\n"
    ).encode()


def _range_table(ranges: Sequence[DimensionRange]) -> str:
    with_bounds = bool(ranges) and ranges[0].low is not None
    head = ["dimension", "unit", "min", "1 %", "median", "99 %", "max", "std"] + ["bounds", "clipped"] * with_bounds
    body = []
    for r in ranges:
        numbers = [f"{value:.4g}" for value in (r.minimum, r.p1, r.median, r.p99, r.maximum, r.std)]
        if r.low is not None:
            numbers += [f"{r.low:.4g} to {r.high:.4g}", f"{100 * ((r.below or 0) + (r.above or 0)):.2g} %"]
        cells = "".join(f"<td class='num'>{number}</td>" for number in numbers)
        body.append(f"<tr><th>{escape(r.name)}</th><td>{escape(r.unit)}</td>{cells}</tr>")
    heads = "".join(f"<th{' class=num' if i > 1 else ''}>{name}</th>" for i, name in enumerate(head))
    return f"<div class='scroll'><table><thead><tr>{heads}</tr></thead><tbody>{''.join(body)}</tbody></table></div>"


def _image_tag(store: Any, camera: str, row: SheetRow, step: int) -> str:
    spec = store.meta.camera(camera)
    if spec.is_jpeg and spec.height <= 2 * CELL_HEIGHT:
        data = bytes(store.frame_bytes(camera, int(store.episodes.first[row.episode]) + step))
    else:
        frame = _frame(store, camera, row, step)
        shrink = min(1.0, 2 * CELL_HEIGHT / spec.height)
        image = _resized(frame, max(1, round(shrink * spec.width)), max(1, round(shrink * spec.height)))
        out = io.BytesIO()
        image.save(out, "JPEG", quality=90)
        data = out.getvalue()
    text = base64.b64encode(data).decode()
    return f"<img alt='step {step}' title='step {step}' src='data:image/jpeg;base64,{text}'>"


def _frame(store: Any, camera: str, row: SheetRow, step: int) -> np.ndarray:
    return store.frame(camera, int(store.episodes.first[row.episode]) + step)


def _resized(frame: np.ndarray, width: int, height: int) -> Image.Image:
    image = Image.fromarray(frame)
    return image if image.size == (width, height) else image.resize((width, height), Image.Resampling.LANCZOS)


def _stamp(draw: ImageDraw.ImageDraw, corner: tuple[int, int], text: str, font: Any) -> None:
    left, top, right, bottom = draw.textbbox((corner[0] + 4, corner[1] + 2), text, font=font)
    draw.rectangle((left - 3, top - 2, right + 2, bottom + 1), fill=INK)
    draw.text((corner[0] + 4, corner[1] + 2), text, (255, 255, 255), font)


def _fit(draw: ImageDraw.ImageDraw, text: str, font: Any, width: int) -> str:
    """The text, cut at the end where it is wider than ``width`` pixels."""
    text = text[:500]
    if draw.textlength(text, font=font) <= width:
        return text
    while text and draw.textlength(text + "...", font=font) > width:
        text = text[:-1]
    return text + "..."


def _spread(total: int, count: int) -> tuple[int, ...]:
    """At most ``count`` different indices from 0 to ``total - 1``, evenly spread, both ends included."""
    return tuple(int(i) for i in np.unique(np.linspace(0, total - 1, min(count, total)).round()))
