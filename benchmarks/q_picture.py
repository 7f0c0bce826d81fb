"""The picture of README.md: Q along one held-out demonstration, ``python -m benchmarks.q_picture RUN [OUT]``.

It takes the checkpoint that was selected, its evaluation that ``ptr-fast select`` left in the run,
and of its successful episodes the one with the median rank correlation, as the report does.
"""

from __future__ import annotations

import json
import sys
from html import escape
from pathlib import Path
from typing import Any

import numpy as np

from ptr_fast.data.store import EpisodeStore
from ptr_robot.report.episodes import frame_uri, typical
from ptr_robot.report.plots import LEFT, RIGHT, WIDE, Series, line_chart
from ptr_robot.report.style import CSS

__all__ = ["main", "picture"]

OUT = Path(__file__).resolve().parents[1] / "docs" / "q_along.svg"
NUM_FRAMES, GAP, CHART_HEIGHT, LEGEND_HEIGHT = 10, 4.0, 220.0, 24.0
LINES = (
    ("q_averaged", "Q of the recorded action", 0, 0),
    ("value", "Q of the policy's own action", 1, 0),
    ("returns", "recorded return", 2, 2),
)
_STYLE = "\n".join(line for line in CSS.splitlines() if not line.startswith("svg"))  # of the page's own charts
_STYLE += "text { font: 12px system-ui, sans-serif; fill: var(--soft); } .paper { fill: var(--paper); }"


def picture(evaluation: dict[str, Any]) -> str:
    """A self-contained SVG, light and dark: frames of one episode above the curves of its Q and return."""
    episode = typical([e for e in evaluation["episodes"] if "q" in e.get("curves", {}) and e["outcome"] == "success"])
    steps = np.array(episode["curves"]["step"], float)
    series = [
        Series(label=label, x=steps, y=np.array(episode["curves"][key], float), colour=colour, dash=dash)
        for key, label, colour, dash in LINES
    ]
    title = f"Q along a held-out demonstration of {episode['task']}"
    chart = line_chart(series, title=title, width=WIDE, height=int(CHART_HEIGHT), x_label="step")
    side = (WIDE - LEFT - RIGHT - GAP * (NUM_FRAMES - 1)) / NUM_FRAMES
    store = EpisodeStore.open(Path(evaluation["data"]["store"]))
    first = int(store.episodes.first[store.episodes.episode_id.index(episode["episode_id"])])
    frames = []
    for i in range(NUM_FRAMES):
        step = round((i + 0.5) / NUM_FRAMES * steps[-1])
        uri = frame_uri(store.frame(evaluation["data"]["cameras"][0], first + step))
        place = f'x="{LEFT + i * (side + GAP):.1f}" y="0" width="{side:.1f}" height="{side:.1f}"'
        frames.append(f'<image {place} href="{uri}"><title>step {step}</title></image>')
    top = side + GAP
    chart = chart.replace("<svg ", f'<svg y="{top:.0f}" width="{WIDE}" height="{CHART_HEIGHT:.0f}" ', 1)
    height = top + CHART_HEIGHT + LEGEND_HEIGHT
    keys = "".join(
        f'<line class="line c{colour} d{dash}" x1="{x}" x2="{x + 24}" y1="{height - 10:.0f}" y2="{height - 10:.0f}"/>'
        f'<text x="{x + 30}" y="{height - 6:.0f}">{escape(label)}</text>'
        for x, (_, label, colour, dash) in zip((LEFT, LEFT + 230, LEFT + 470), LINES, strict=True)
    )
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDE} {height:.0f}" role="img" aria-label="{title}">'
        f"<style><![CDATA[{_STYLE}]]></style><rect class='paper' width='100%' height='100%'/>{''.join(frames)}"
        f"{chart}{keys}</svg>\n"
    )


def main(run: Path, out: Path = OUT) -> None:
    selected = json.loads((run / "selection.json").read_text(encoding="utf-8"))["selected"]
    evaluation = json.loads((run / "evaluation" / f"{selected:06d}.json").read_text(encoding="utf-8"))
    out.write_text(picture(evaluation), encoding="utf-8")


if __name__ == "__main__":
    main(*map(Path, sys.argv[1:]))
