"""Looks for traps in stores of robot data, and says what to do about each.

Black, frozen or late cameras; actions out of bounds, inverted or without effect; cut or copied episodes; validation
data that is training data: all of these train without an error and fail on the robot. Exits with 1 where there are
errors.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro

from ptr_fast.errors import DataError
from ptr_robot.diagnosis.finding import LEVELS, Finding
from ptr_robot.diagnosis.told import tell


@dataclass(frozen=True, kw_only=True)
class Args:
    """What to examine.

    Attributes:
        stores: One store, or several to be used together (training and validation, old and new): these are compared,
            too.
        json: Print the findings as JSON on standard output, nothing else.
        strict: Exit with 1 on warnings, too.
        max_frames_per_episode: Consecutive frames decoded per sampled episode and camera; at least 2.
        max_episodes: Episodes whose frames are sampled, spread over the store; at least 1. States and actions are read
            whole.
    """

    stores: Annotated[tuple[Path, ...], tyro.conf.Positional]
    json: bool = False
    strict: bool = False
    max_frames_per_episode: int = 8
    max_episodes: int = 512

    def __post_init__(self) -> None:
        if not self.stores:
            raise ValueError("name at least one store")
        if len({path.resolve() for path in self.stores}) < len(self.stores):
            raise ValueError("name each store once")
        if self.max_frames_per_episode < 2:
            raise ValueError(f"max_frames_per_episode must be at least 2, got {self.max_frames_per_episode}")
        if self.max_episodes < 1:
            raise ValueError(f"max_episodes must be at least 1, got {self.max_episodes}")


def main(args: Args) -> int:
    """Prints what was found; 1 where there are errors (or, if strict, warnings)."""
    findings = diagnose(args.stores, max_frames=args.max_frames_per_episode, max_episodes=args.max_episodes)
    return tell("stores", args.stores, findings, as_json=args.json, strict=args.strict)


def diagnose(stores: Sequence[Path | str], *, max_frames: int = 8, max_episodes: int = 512) -> list[Finding]:
    """All findings of all checks, worst first.

    Raises:
        DataError: one of ``stores`` is not a store. Damage inside a store is a finding.
    """
    from ptr_fast.data.store import EpisodeStore
    from ptr_robot.console.progress import Progress
    from ptr_robot.diagnosis import Evidence, examine, examine_together, sample_cameras

    findings: list[Finding] = []
    evidences: list[Evidence] = []
    for path in stores:
        store = EpisodeStore.open(path)
        if store.num_episodes == 0:
            findings.append(_unreadable(path, "no episodes", "there is nothing to train on", "convert or collect some"))
            continue
        with Progress(min(store.num_episodes, max_episodes), f"looking at {Path(path).name}", "ep") as progress:
            try:
                cameras = sample_cameras(
                    store, max_frames=max_frames, max_episodes=max_episodes, advance=progress.advance
                )
                evidence = Evidence(path=str(path), store=store, cameras=cameras)
                findings += examine(evidence)
            except DataError as error:
                advice = "copy the store again, or convert again; the other checks were not made"
                findings.append(
                    _unreadable(path, str(error), "training on this store stops with the same message", advice)
                )
                continue
        evidences.append(evidence)
    findings += examine_together(evidences)
    return sorted(findings, key=lambda finding: LEVELS.index(finding.level))


def _unreadable(path: Path | str, seen: str, why: str, advice: str) -> Finding:
    return Finding(level="error", check="readable", store=str(path), seen=seen, why=why, advice=advice)
