"""One recorded episode of an evaluation: its frames above Q and advantage, the most telling moments marked."""

from __future__ import annotations

import base64
import math
from collections.abc import Mapping, Sequence
from html import escape
from pathlib import Path
from typing import Any

import numpy as np
import simplejpeg

from ptr_fast.data.store import EpisodeStore
from ptr_fast.diagnostics import telling_moments
from ptr_fast.errors import DataError
from ptr_fast.resize import resize
from ptr_robot.evaluation.held_out import told_kind
from ptr_robot.report.plots import NARROW, NUM_DASHES, WIDE, Mark, Series, legend, line_chart
from ptr_robot.training.store_places import StorePlaces

__all__ = ["demonstration", "frame_uri", "over_checkpoints", "typical"]

MINUS = "\N{MINUS SIGN}"
STRIP_FRAMES = 10
MAX_CHECKPOINTS = 6
"""Lines of one chart: the first, the newest, and some between."""
NETWORKS = {"q": "online critics", "q_averaged": "averaged critics"}
MAX_SIDE = 160
"""Larger frames are shrunk to this side, pixels."""


def demonstration(run_name: str, evaluation: dict[str, Any], places: StorePlaces = StorePlaces()) -> str:
    """The most typical good episode with frames, a failed one where there is one, and the curves of the others."""
    episodes = [e for e in evaluation["episodes"] if "q" in e.get("curves", {})]
    good = [e for e in episodes if e["outcome"] != "failure"]
    failed = [e for e in episodes if e["outcome"] == "failure"]
    chosen = ([typical(good)] if good else []) + failed[:1]
    if not chosen:
        return ""
    store, problem = _open(places, Path(evaluation["data"]["store"]))
    out = [f"<h3>{escape(run_name)}, step {evaluation['step']}</h3>"]
    data = evaluation["data"]
    out.append(f'<p class="soft">{escape(told_kind({**data, "store": Path(data["store"]).name}))}</p>')
    if problem:
        out.append(f'<p class="note">{escape(problem)}</p>')
    out += [_episode(episode, evaluation, store) for episode in chosen]
    others = [e for e in episodes if e not in chosen]
    if others:
        charts = "".join(_small(episode) for episode in others)
        out.append(
            f"<details><summary>Q along {len(others)} more episodes</summary><div class='grid'>{charts}</div></details>"
        )
    return "".join(out)


def over_checkpoints(evaluations: Mapping[int, dict[str, Any]], places: StorePlaces = StorePlaces()) -> str:
    """Frames of one demonstration, and its Q as the critics of several checkpoints (by step) see it."""
    newest = evaluations[max(evaluations)]
    known = {
        step: {e["episode_id"]: e for e in evaluation["episodes"] if "q" in e.get("curves", {})}
        for step, evaluation in sorted(evaluations.items())
    }
    good = [e for e in known[max(known)].values() if e["outcome"] != "failure"]
    if not good:
        return ""
    chosen, acting = typical(good), "q_averaged" if newest["networks"] == "averaged" else "q"
    seen = {
        step: found[chosen["episode_id"]]["curves"] for step, found in known.items() if chosen["episode_id"] in found
    }
    shown = sorted({*np.linspace(0, len(seen) - 1, MAX_CHECKPOINTS).round().astype(int).tolist()})
    steps = [list(seen)[i] for i in shown if i < len(seen)]
    lines = [
        Series(
            label="recorded return",
            x=_array(chosen["curves"]["step"]),
            y=_array(chosen["curves"]["returns"]),
            colour=2,
            dash=2,
        )
    ]
    lines += [
        Series(
            label=f"step {step}",
            x=_array(seen[step]["step"]),
            y=_array(seen[step][acting]),
            colour=i,
            dash=i,
            tag=str(i - 2) if len(steps) >= NUM_DASHES else "",
        )
        for i, step in enumerate(steps, 3)
    ]
    store, problem = _open(places, Path(newest["data"]["store"]))
    first = _first_frame(store, chosen["episode_id"])
    cameras = _cameras(newest["data"])
    axis = _array(chosen["curves"]["step"])
    return (
        (f'<p class="note">{escape(problem)}</p>' if problem else "")
        + f"<figure><h4>{escape(chosen['task'])} <span class='unit'>{escape(chosen['episode_id'])}</span></h4>"
        + "".join(_strip(store, camera, first, axis) for camera in cameras if store is not None and first is not None)
        + legend([(line.label, line.colour, line.dash, line.tag) for line in lines])
        + _both_widths(lines, f"Q along {chosen['task']} at {len(steps)} checkpoints", (), height=240)
        + "</figure>"
    )


def _cameras(data: Mapping[str, Any]) -> list[str]:
    """Names of the cameras of an evaluation; older ones tell the first alone."""
    return data.get("cameras", [data["camera"]] if "camera" in data else [])


def _first_frame(store: EpisodeStore | None, episode_id: str) -> int | None:
    """Where an episode begins in a store; None where it is not there."""
    if store is None or episode_id not in store.episodes.episode_id:
        return None
    return int(store.episodes.first[store.episodes.episode_id.index(episode_id)])


def frame_uri(image: np.ndarray) -> str:
    """A frame uint8 ``[H, W, 3]`` as a data URI (JPEG), its longer side at most ``MAX_SIDE`` pixels."""
    height, width = image.shape[:2]
    shrink = min(1.0, MAX_SIDE / max(height, width))
    if shrink < 1.0:
        image = resize(image, max(1, round(height * shrink)), max(1, round(width * shrink)))
    data = simplejpeg.encode_jpeg(np.ascontiguousarray(image), quality=85)
    return "data:image/jpeg;base64," + base64.b64encode(data).decode()


def typical(episodes: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """The one with the median rise, so that the page shows neither the best nor the worst."""
    rises = [-math.inf if (rise := e.get("rank_correlation")) is None else rise for e in episodes]
    return episodes[int(np.argsort(rises, kind="stable")[len(rises) // 2])]


def _open(places: StorePlaces, recorded: Path) -> tuple[EpisodeStore | None, str]:
    try:
        return places.open(recorded), ""
    except DataError as error:
        return None, f"No frames: {error}"


def _episode(episode: dict[str, Any], evaluation: dict[str, Any], store: EpisodeStore | None) -> str:
    curves = {key: _array(values) for key, values in episode["curves"].items()}
    steps = curves["step"]
    cameras = _cameras(evaluation["data"])
    acting, other = ("q_averaged", "q") if evaluation["networks"] == "averaged" else ("q", "q_averaged")
    moments = telling_moments(curves[acting], curves["advantage"])
    marks = [
        Mark(x=float(steps[i]), text=str(n), tooltip=f"step {steps[i]:.0f}: {reason}")
        for n, (i, reason) in enumerate(moments, 1)
    ]
    first = _first_frame(store, episode["episode_id"])
    words = {"success": "a success", "failure": "a failure"}.get(episode["outcome"], "a demonstration")
    title = f"“{episode['task']}”: {words} of {episode['num_steps']} steps"
    out = [
        f'<figure><h4>{escape(title)} <span class="unit">{escape(episode["episode_id"])}</span></h4>',
        *(_strip(store, camera, first, steps) for camera in cameras if store is not None and first is not None),
        legend(
            [
                (f"Q of the recorded action ({NETWORKS[acting]})", 0, 0, ""),
                (f"the same, {NETWORKS[other]}", 0, 1, ""),
                ("V: the policy’s mean action", 1, 3, ""),
                ("recorded return", 2, 2, ""),
            ]
        ),
        _both_widths(_q_series(curves, acting, other), f"Q along {title}", marks, height=220),
        legend([("advantage", 3, 0, "")]),
        _both_widths(
            [Series(label="advantage", x=steps, y=curves["advantage"], colour=3)],
            f"Advantage along {title}",
            marks,
            height=140,
            zero_line=True,
        ),
        _moments(store, cameras, first, curves, moments, acting),
        "</figure>",
    ]
    return "".join(out)


def _array(values: Sequence[float | None]) -> np.ndarray:
    return np.array([math.nan if value is None else value for value in values], float)


def _q_series(curves: dict[str, np.ndarray], acting: str, other: str) -> list[Series]:
    steps = curves["step"]
    series = [
        Series(label="recorded return", x=steps, y=curves["returns"], colour=2, dash=2),
        Series(label=f"Q of the recorded action, {NETWORKS[other]}", x=steps, y=curves[other], colour=0, dash=1),
        Series(label="V of the policy's mean action", x=steps, y=curves["value"], colour=1, dash=3),
        Series(label=f"Q of the recorded action, {NETWORKS[acting]}", x=steps, y=curves[acting], colour=0),
    ]
    return [s for s in series if np.isfinite(s.y).any()]


def _both_widths(series: Sequence[Series], title: str, marks: Sequence[Mark], *, height: int, zero_line=False) -> str:
    return "".join(
        f'<div class="{name}">'
        + line_chart(series, title=title, marks=marks, width=width, height=height, zero_line=zero_line, x_label="step")
        + "</div>"
        for name, width in (("wide", WIDE), ("narrow", NARROW))
    )


def _strip(store: EpisodeStore, camera: str, first: int, steps: np.ndarray) -> str:
    """Evenly spaced frames, each above the stretch of the axis it stands for."""
    last, count = float(steps[-1]), min(STRIP_FRAMES, len(steps))
    images = []
    for i in range(count):
        step = round((i + 0.5) / count * last)
        images.append(_image(store, camera, first, step))
    return f'<div class="strip">{"".join(images)}</div>'


def _image(store: EpisodeStore, camera: str, first: int, step: int) -> str:
    uri, told = frame_uri(store.frame(camera, first + step)), escape(f"{camera}, step {step}")
    return f'<img src="{uri}" alt="frame of {told}" title="{told}">'


def _moments(
    store: EpisodeStore | None,
    cameras: Sequence[str],
    first: int | None,
    curves: dict[str, np.ndarray],
    moments: Sequence[tuple[int, str]],
    acting: str,
) -> str:
    out = []
    for number, (i, reason) in enumerate(moments, 1):
        step, image = int(curves["step"][i]), ""
        if store is not None and first is not None:
            image = "".join(_image(store, camera, first, step) for camera in cameras)
        rise = curves[acting][i] - curves[acting][i - 1] if i else math.nan
        amount = f"{rise if reason.startswith('largest rise') else curves['advantage'][i]:+.2g}".replace("-", MINUS)
        out.append(
            f'<div>{image}<span class="badge">{number}</span> <b>step {step}</b><br>{escape(reason)}: {amount}</div>'
        )
    return f'<div class="moments">{"".join(out)}</div>' if out else ""


def _small(episode: dict[str, Any]) -> str:
    curves = {key: _array(values) for key, values in episode["curves"].items()}
    title = f"{episode['task']} ({episode['outcome']})"
    chart = line_chart(_q_series(curves, "q", "q_averaged"), title=f"Q along {episode['episode_id']}")
    return f"<figure><h4>{escape(title)}</h4>{chart}</figure>"
