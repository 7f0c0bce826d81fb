"""Findings told to a person or to a script, and the exit code that goes with them."""

from __future__ import annotations

import json
import sys
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from ptr_robot.diagnosis.finding import LEVELS, MAX_NAMED_EPISODES, Finding, printable

__all__ = ["tell"]

STYLES = {"error": "bold red", "warning": "yellow", "note": "dim"}
WIDTH = 120
"""Characters of a line where the output is not a terminal."""


def tell(what: str, places: Sequence[Path], findings: Sequence[Finding], *, as_json: bool, strict: bool) -> int:
    """Prints findings, as a table or as one JSON object.

    Args:
        what: were examined, as the key of the JSON object: ``stores`` or ``runs``.
        strict: warnings fail, too.

    Returns:
        1 where there are errors (or, if strict, warnings), else 0.
    """
    counts = Counter(finding.level for finding in findings)
    failed = counts["error"] > 0 or (strict and counts["warning"] > 0)
    if as_json:
        report = {
            what: [str(place) for place in places],
            "counts": {level: counts[level] for level in LEVELS},
            "passed": not failed,
            "findings": [finding.to_json() for finding in findings],
        }
        json.dump(report, sys.stdout, indent=2, ensure_ascii=False)
        sys.stdout.write("\n")
    else:
        _print(places, findings)
    return int(failed)


def _print(places: Sequence[Path], findings: Sequence[Finding]) -> None:
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    console = Console(width=None if sys.stdout.isatty() else WIDTH)
    table = Table(box=None, padding=(0, 2, 1, 0), show_header=False)
    table.add_column(no_wrap=True)
    table.add_column(no_wrap=True)
    table.add_column(ratio=1, overflow="fold")
    for finding in findings:
        story = Text()
        if len(places) > 1:
            story.append(f"{printable(finding.store)}\n", style="cyan")
        story.append(_sentence(printable(finding.seen)) + "\n", style="bold" if finding.level != "note" else "")
        more = ", ..." if len(finding.episodes) == MAX_NAMED_EPISODES else ""
        if finding.episodes:
            story.append("episodes: " + printable(", ".join(finding.episodes)) + more + "\n", style="cyan")
        story.append(f"why: {finding.why}", style="dim")
        if finding.advice:
            story.append(f"\ndo:  {finding.advice}")
        table.add_row(Text(finding.level, style=STYLES[finding.level]), Text(finding.check, style="bold"), story)
    console.print(table)
    counts = Counter(finding.level for finding in findings)
    words = ", ".join(f"{counts[level]} {level}{'s' if counts[level] != 1 else ''}" for level in LEVELS)
    console.print(Text(f"{', '.join(str(place) for place in places)}: {words}", style="bold"))


def _sentence(text: str) -> str:
    return text[:1].upper() + text[1:]
