"""What a conversion did, and how it says so."""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

from ptr_fast.data.store import EpisodeStore
from ptr_fast.files import write_atomically
from ptr_robot.datasets.options import Args
from ptr_robot.datasets.source import Source
from ptr_robot.datasets.spaces import Space

__all__ = ["BAD_EPISODES", "Summary", "blank_told", "list_bad", "print_summary"]

BAD_EPISODES = "bad_episodes.json"
TASKS_SHOWN, BLANK_SHOWN = 20, 5


@dataclass
class Summary:
    """What a conversion did.

    Attributes:
        converted, present, filtered: numbers of episodes.
        bad: episodes that were left out, each with its error; those without an instruction among them.
        blank: ids of episodes without an instruction.
        remarks: what is to be said of how many converted episodes.
        space: names, units and bounds of the store.
    """

    converted: int = 0
    present: int = 0
    filtered: int = 0
    bad: list[dict[str, str]] = field(default_factory=list)
    blank: list[str] = field(default_factory=list)
    remarks: Counter[str] = field(default_factory=Counter)
    space: Space | None = None

    @property
    def considered(self) -> int:
        """Episodes that count towards a limit."""
        return self.converted + self.present + len(self.bad)


def print_summary(args: Args, source: Source, summary: Summary) -> None:
    """What is in the store, what its numbers are, and what was left out."""
    store = EpisodeStore.open(args.out)
    frame = ", ".join(f"{c.name} {c.height}x{c.width} {c.encoding}" for c in store.meta.cameras)
    print(f"{args.out}: {store.num_episodes} episodes, {store.num_steps} steps, {frame}")
    print(f"now: {summary.converted} converted, {summary.present} there already, {summary.filtered} filtered out")
    counts = Counter(store.episodes.task).most_common()
    for task, count in counts[:TASKS_SHOWN]:
        print(f"  {count:6d}  {task}")
    if len(counts) > TASKS_SHOWN:
        print(f"          and {len(counts) - TASKS_SHOWN} more tasks")
    for remark, count in summary.remarks.items():
        print(f"note: {count} of the episodes converted now {remark}")
    if summary.space is not None:
        _print_space(summary.space, source)
    if summary.bad:
        print(f"{len(summary.bad)} bad episodes left out, all in {args.out / BAD_EPISODES}; the first:")
        print(f"  {summary.bad[0]['error']}")


def _print_space(space: Space, source: Source) -> None:
    """What the numbers are, where that was taken from, and what nobody stated."""
    if space.is_recognised:
        by = f"the name {source.dataset!r} in dataset_info.json" if source.dataset else "its files"
        print(f"note: taken as layout {space.layout!r} by {by}; --layout none does not")
    for note in space.notes:
        print(f"note: {note}")
    if space.action.bounds_source == "data":
        print("action bounds are measured: 1st to 99th percentile of each dimension; --bounds states them")
    if space.unknown:
        options = "--layout, --action-names, --action-units, --gripper, --state-names, --state-units, --control-hz"
        print(f"unknown, as neither data nor options state it: {'; '.join(space.unknown)} ({options})")


def blank_told(args: Args, summary: Summary) -> str:
    """Which episodes have no instruction, and what to do, in one line."""
    names = ", ".join(summary.blank[:BLANK_SHOWN])
    rest = summary.converted + summary.present
    kept = f"; {args.out} has the other {rest}, and lists them in {BAD_EPISODES}" if rest else ""
    more = f" and {len(summary.blank) - BLANK_SHOWN} more" if len(summary.blank) > BLANK_SHOWN else ""
    return (
        f"{args.source}: {len(summary.blank)} episodes have no instruction: {names}{more}; say what they show with "
        f"--blank-task TEXT (these alone) or --task TEXT (all), or leave them out with --on-bad skip{kept}"
    )


def list_bad(path: Path, bad: list[dict[str, str]]) -> None:
    """Writes the list of bad episodes beside the store's parts, or removes it where there is none."""
    file = path / BAD_EPISODES
    if bad:
        write_atomically(file, (json.dumps(bad, indent=2, ensure_ascii=False) + "\n").encode())
    else:
        file.unlink(missing_ok=True)
