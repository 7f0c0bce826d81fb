"""One HTML page about runs, their checkpoints and trials; self-contained, so it can be mailed and opened offline."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import tyro

__all__ = ["Args", "main"]


@dataclass(frozen=True, kw_only=True)
class Args:
    """One HTML page about runs, their checkpoints and trials.

    Attributes:
        run: Run folder; repeat for several. Their rollouts/*.json are taken too.
        rollouts: More rollout files, or folders of them; repeat for several.
        out: HTML file to write. Default: report.html in the first run.
        store: OLD=NEW for a store of the runs' that has moved, for frames of its episodes; repeat for several.
        title: Title of the page. Default: the runs' names.
    """

    run: tyro.conf.UseAppendAction[tuple[Path, ...]] = ()
    rollouts: tyro.conf.UseAppendAction[tuple[Path, ...]] = ()
    out: Path | None = None
    store: tyro.conf.UseAppendAction[tuple[str, ...]] = ()
    title: str = ""


def main(args: Args) -> int:
    from ptr_robot.report.page import build_report
    from ptr_robot.training.store_places import StorePlaces

    if not args.run and not args.rollouts:
        raise ValueError("name at least one --run or --rollouts")
    if args.out is None and not args.run:
        raise ValueError("name the file to write with --out (there is no run to put it into)")
    out = args.out or args.run[0] / "report.html"
    title = args.title or ", ".join(run.resolve().name for run in args.run) or "Trials"
    path = build_report(args.run, args.rollouts, out, title, StorePlaces.parse(args.store))
    print(f"wrote {path} ({path.stat().st_size / 1024:.0f} KiB)")
    return 0
