"""What the page of a run shows: how far it is, metrics on held-out episodes, Q of a demonstration, curves."""

from __future__ import annotations

import time
from html import escape
from pathlib import Path

from ptr_robot.console.progress import format_duration
from ptr_robot.report import curves, sections
from ptr_robot.report.episodes import over_checkpoints
from ptr_robot.report.page import Section, main_html
from ptr_robot.report.runs import RunData, read_run
from ptr_robot.training.store_places import StorePlaces

__all__ = ["run_html", "told_state"]

QUIET_S = 60.0
"""After so many seconds without a line in the log, and several times the usual ones, a run is said to be silent."""


def run_html(run: Path, places: StorePlaces = StorePlaces()) -> str:
    """The inside of the page's ``<main>``.

    Raises:
        DataError: a file of the run is broken.
    """
    data = read_run(run)
    parts = [
        Section(heading="Q along a demonstration", body=_q_by_checkpoint(data, places)),
        Section(heading="On held-out episodes", body=curves.held_out([data])),
        Section(heading="Training", body=curves.training([data])),
        Section(heading="Choosing a checkpoint", body=sections.selections([data])),
        Section(heading="Configuration", body=sections.configurations([data])),
    ]
    return main_html(data.name, parts, lead=_tiles(data))


def _q_by_checkpoint(data: RunData, places: StorePlaces) -> str:
    valued = {step: e for step, e in data.evaluations.items() if e["value_range"] is not None}
    return over_checkpoints(valued, places) if valued else ""


def _tiles(data: RunData) -> str:
    num_steps = int(data.config.get("config", {}).get("loop", {}).get("num_steps", 0))
    done = f"{data.last_step:,} of {num_steps:,}" if num_steps else f"{data.last_step:,}"
    rate = data.metrics.get("perf/steps_per_s")
    cards = [(done, "updates"), told_state(data, num_steps, time.time())]
    if rate is not None:
        cards.append((f"{rate[1][-1]:.3g}", "updates a second"))
    if data.evaluations:
        cards.append((str(len(data.evaluations)), f"checkpoints evaluated, the last at step {max(data.evaluations):,}"))
    inner = "".join(f'<div class="tile"><b>{escape(big)}</b><span>{escape(small)}</span></div>' for big, small in cards)
    return f'<div class="tiles">{inner}</div>'


def told_state(data: RunData, num_steps: int, now: float) -> tuple[str, str]:
    """In a few words: finished, time left, or since when nothing was heard.

    Args:
        num_steps: updates of the whole run. now: seconds since the epoch.
    """
    if not num_steps:
        return "unknown", "time left: the record of the run does not say how long it is"
    if data.last_step >= num_steps:
        return "finished", f"after {format_duration(data.seconds)} of training"
    log = data.path / "metrics.jsonl"
    if not log.is_file():
        return "waiting", "nothing is logged yet"
    steps, rates = data.metrics.get("perf/steps_per_s", ([0], [0.0]))
    rate, every = float(rates[-1]), float(steps[-1] - steps[-2]) if len(steps) > 1 else float(steps[-1])
    silent = now - log.stat().st_mtime
    if rate <= 0.0 or silent > max(QUIET_S, 5.0 * every / rate):
        return (
            "silent",
            f"no line in its log for {format_duration(silent)}; if it has stopped: ptr-fast resume {data.path}",
        )
    return format_duration((num_steps - data.last_step) / rate), "left"
