"""Looks for what went wrong in training runs, and says what to do about each, in order of weight.

Values that no policy could earn, a discount too small for the episodes, an end whose value has not come to the start,
actors that do not follow their critic, overfitting, seeds that disagree. Exits with 1 where there are errors.
"""

from __future__ import annotations

import contextlib
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

import tyro

from ptr_robot.diagnosis.finding import LEVELS, Finding
from ptr_robot.diagnosis.told import tell
from ptr_robot.training.store_places import StorePlaces

__all__ = ["Args", "diagnose", "main"]


@dataclass(frozen=True, kw_only=True)
class Args:
    """What to examine.

    Attributes:
        runs: One run, or several: those that differ in their seed alone are compared, too.
        json: Print the findings as JSON on standard output, nothing else.
        strict: Exit with 1 on warnings, too.
        store: OLD=NEW for a store of the runs that has moved; repeat for several.
        device: Where checkpoints are evaluated, of a run without --evaluate-every; auto takes a GPU where there is one.
    """

    runs: Annotated[tuple[Path, ...], tyro.conf.Positional]
    json: bool = False
    strict: bool = False
    store: tyro.conf.UseAppendAction[tuple[str, ...]] = ()
    device: Literal["auto", "cpu", "cuda"] = "auto"

    def __post_init__(self) -> None:
        if not self.runs:
            raise ValueError("name at least one run")
        if len({path.resolve() for path in self.runs}) < len(self.runs):
            raise ValueError("name each run once")


def main(args: Args) -> int:
    """Prints what was found; 1 where there are errors (or, if strict, warnings)."""
    places = StorePlaces.parse(args.store)
    with contextlib.redirect_stdout(sys.stderr):  # what is told on the way; findings alone are the output
        findings = diagnose(args.runs, places, args.device)
    return tell("runs", args.runs, findings, as_json=args.json, strict=args.strict)


def diagnose(runs: tuple[Path, ...], places: StorePlaces = StorePlaces(), device: str = "cpu") -> list[Finding]:
    """All findings of all checks, worst first.

    Raises:
        DataError: one of ``runs`` is no run, or a file of it is broken.
    """
    from ptr_robot.console.progress import Progress
    from ptr_robot.device import pick_device
    from ptr_robot.run_diagnosis import examine, examine_together, gather

    with Progress(len(runs), "looking at runs", "run") as progress:
        evidences = []
        for path in runs:
            evidences.append(gather(path, places, str(pick_device(device))))
            progress.advance()
    findings = [finding for evidence in evidences for finding in examine(evidence)] + examine_together(evidences)
    return sorted(findings, key=lambda finding: LEVELS.index(finding.level))
