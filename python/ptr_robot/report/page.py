"""One self-contained HTML page: no script, no font, no image from elsewhere; it can be mailed and opened offline."""

from __future__ import annotations

import datetime
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape
from pathlib import Path

import ptr_fast
from ptr_fast.files import write_atomically
from ptr_robot.report import curves, sections
from ptr_robot.report.critical import critical_part
from ptr_robot.report.runs import find_rollouts, read_run, trial_rows
from ptr_robot.report.style import CSS
from ptr_robot.training.store_places import StorePlaces

__all__ = ["POLICY", "Section", "build_report", "main_html", "page_html", "write_page"]

# Whatever slipped through escaping could still load and run nothing.
POLICY = "default-src 'none'; img-src data:; style-src 'unsafe-inline'"


@dataclass(frozen=True, kw_only=True)
class Section:
    """A part of the page: a heading (plain text) and a body (HTML whose texts are escaped)."""

    heading: str
    body: str


def write_page(out: Path, title: str, parts: Sequence[Section], lead: str = "") -> Path:
    """Writes a page atomically.

    Args:
        title: plain text.
        parts: in order; those without a body are left out.
        lead: HTML between the title and the first heading.
    """
    main = main_html(title, parts, lead) + '<footer class="soft">Made by ptr-fast. This page loads nothing from '
    out.parent.mkdir(parents=True, exist_ok=True)
    write_atomically(out, page_html(title, main + "elsewhere.</footer>\n").encode())
    return out


def main_html(title: str, parts: Sequence[Section], lead: str = "") -> str:
    """What a page shows, as HTML: title, version and date, lead, parts; arguments as in :func:`write_page`."""
    now = datetime.datetime.now(datetime.UTC).strftime("%Y-%m-%d %H:%M UTC")
    body = "".join(f"<section><h2>{escape(part.heading)}</h2>{part.body}</section>\n" for part in parts if part.body)
    version = f'<p class="soft">ptr-fast {escape(ptr_fast.__version__)}, {now}</p>'
    return f"<header><h1>{escape(title)}</h1>{version}{lead}</header>\n{body}"


def page_html(title: str, main: str, policy: str = POLICY, script: str = "") -> str:
    """A whole page.

    Args:
        title: plain text. main: HTML.
        policy: what the page may load and run (Content-Security-Policy).
        script: address of a script that it runs.
    """
    run = f'<script src="{escape(script)}" defer></script>\n' if script else ""
    return (
        '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        f'<meta http-equiv="Content-Security-Policy" content="{policy}">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n<link rel="icon" href="data:,">\n'
        f"<title>{escape(title)}</title>\n<style>{CSS}</style>\n{run}</head>\n<body>\n<main>\n"
        f"{main}</main>\n</body>\n</html>\n"
    )


def build_report(
    runs: Sequence[Path], rollouts: Sequence[Path], out: Path, title: str, places: StorePlaces = StorePlaces()
) -> Path:
    """A page about some runs and the trials of their policies.

    Args:
        runs: run folders; their own ``rollouts/*.json`` are taken too.
        rollouts: more rollout files, or folders of them.
        out: HTML file to write.
        title: plain text.
        places: where stores that the evaluations name have moved to.

    Raises:
        DataError: a run or file is missing or broken.
    """
    names = _distinct_names([Path(run) for run in runs])
    data = [read_run(Path(run), name) for run, name in zip(runs, names, strict=True)]
    own = [Path(run) / "rollouts" for run in runs if (Path(run) / "rollouts").is_dir()]
    rows = trial_rows(find_rollouts([*own, *rollouts]))
    seen = {run.name: evaluation for run in data if (evaluation := run.shown_evaluation()) is not None}
    parts = [
        Section(heading="Trials", body=sections.trials(rows)),
        Section(heading="Runs", body=sections.runs_table(data)),
        Section(heading="Choosing a checkpoint", body=sections.selections(data)),
        Section(heading="What the critic sees", body=sections.demonstrations(data, places)),
        Section(heading="Which moments are critical", body=critical_part(seen)),
        Section(heading="On held-out episodes", body=curves.held_out(data)),
        Section(heading="Training", body=curves.training(data)),
        Section(heading="Configuration", body=sections.configurations(data)),
    ]
    return write_page(Path(out), title, parts, lead=sections.tiles(data, rows))


def _distinct_names(paths: Sequence[Path]) -> list[str]:
    names = [path.resolve().name for path in paths]
    return [
        name if names.count(name) == 1 else f"{path.resolve().parent.name}/{name}"
        for path, name in zip(paths, names, strict=True)
    ]
