"""Shows what is in a store: cameras, tasks, ranges of states and actions, and a contact sheet of frames."""

from __future__ import annotations

import json
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

import tyro

from ptr_robot.diagnosis.finding import printable
from ptr_robot.inspection.store_summary import DimensionRange, StoreSummary

__all__ = ["Args", "main"]

MAX_CLIPPED_SHARE = 0.01
"""Shares of clipped actions above this are printed in red."""

WIDTH = 140
"""Characters of a line where the output is not a terminal."""


@dataclass(frozen=True, kw_only=True)
class Args:
    """What to show.

    Attributes:
        store: The store.
        out: Folder for the contact sheet (sheet.png, sheet.html); None makes one beside the store, STORE-sheet.
        sheet: Kind of contact sheet; none writes none.
        episodes_per_task: Episodes of a task on the sheet, spread evenly; at least 1.
        frames_per_episode: Frames of an episode on the sheet, spread evenly over time; at least 1.
        max_tasks: Tasks in the table and on the sheet, largest first; at least 1.
        camera: Camera on the sheet; None takes the first one that shows something.
        paths: Also write a picture per kind of episode (paths-KIND.svg): the hand's paths seen from above, lengths,
            speeds and success; for stores of the toy kitchens.
        json: Print everything as JSON on standard output, nothing else.
    """

    store: Annotated[Path, tyro.conf.Positional]
    out: Path | None = None
    sheet: Literal["png", "html", "both", "none"] = "both"
    episodes_per_task: int = 4
    frames_per_episode: int = 8
    max_tasks: int = 30
    camera: str | None = None
    paths: bool = False
    json: bool = False

    def __post_init__(self) -> None:
        for name in ("episodes_per_task", "frames_per_episode", "max_tasks"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be at least 1, got {getattr(self, name)}")


def main(args: Args) -> int:
    """Prints the tables, and writes the contact sheet."""
    from ptr_fast.data.store import EpisodeStore
    from ptr_robot.inspection.store_summary import summarize

    store = EpisodeStore.open(args.store)
    if args.camera is not None:
        store.meta.camera(args.camera)
    summary = summarize(store)
    if not args.json:
        _print(summary, args.max_tasks)
    files = [] if args.sheet == "none" or not store.meta.cameras else _write_sheet(args, store, summary)
    files += _write_paths(args, store) if args.paths else []
    if args.json:
        json.dump(
            {**summary.to_json(), "sheet": [str(file) for file in files]}, sys.stdout, indent=2, ensure_ascii=False
        )
        sys.stdout.write("\n")
    else:
        for file in files:
            print(f"wrote {file}")
        if args.sheet != "none" and not store.meta.cameras:
            print("no contact sheet: the store holds states and actions alone")
    return 0


def _write_sheet(args: Args, store: Any, summary: StoreSummary) -> list[Path]:
    from ptr_fast.files import write_atomically
    from ptr_robot.inspection.contact_sheet import choose_camera, choose_rows, sheet_html, sheet_png

    out = args.out or _beside(args.store)
    rows = choose_rows(
        store,
        episodes_per_task=args.episodes_per_task,
        frames_per_episode=args.frames_per_episode,
        max_tasks=args.max_tasks,
    )
    camera = args.camera or choose_camera(store)
    _make_folder(out)
    files = []
    if args.sheet in ("png", "both"):
        files.append(out / "sheet.png")
        write_atomically(files[-1], sheet_png(store, rows, camera))
    if args.sheet in ("html", "both"):
        files.append(out / "sheet.html")
        write_atomically(files[-1], sheet_html(store, rows, camera, summary))
    return files


def _write_paths(args: Args, store: Any) -> list[Path]:
    from ptr_fast.files import write_atomically
    from ptr_robot.inspection.path_picture import file_names, motions, path_svg

    out, all_motions = args.out or _beside(args.store), motions(store)
    _make_folder(out)
    files = [out / name for name in file_names([motion.kind for motion in all_motions])]
    for file, motion in zip(files, all_motions, strict=True):
        write_atomically(file, path_svg(motion).encode())
    return files


def _make_folder(out: Path) -> None:
    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise RuntimeError(f"{out}: {error.strerror}; --out names another folder for the sheet") from error


def _beside(store: Path) -> Path:
    """The folder beside a store for its sheet: a store holds nothing but itself."""
    store = store.resolve()
    return store.with_name(store.name + "-sheet")


def _print(summary: StoreSummary, max_tasks: int) -> None:
    from rich.console import Console

    console = Console(width=None if sys.stdout.isatty() else WIDTH)
    console.print(_meta_table(summary))
    console.print(_task_table(summary, max_tasks))
    console.print(_range_table("actions", summary.actions))
    console.print(_range_table("states", summary.states))


def _table(title: str, *columns: str, right: tuple[str, ...] = ()) -> Any:
    from rich import box
    from rich.table import Table
    from rich.text import Text

    table = Table(title=Text(title), title_justify="left", title_style="bold", box=box.SIMPLE_HEAD, pad_edge=False)
    for column in columns:
        table.add_column(column, justify="right" if column in right else "left", overflow="fold")
    return table


def _meta_table(summary: StoreSummary) -> Any:
    from rich.text import Text

    meta = summary.meta
    table = _table(summary.path, "", "")
    table.show_header = False
    hours = f"{summary.hours:.1f} h" if summary.hours >= 1 else f"{60 * summary.hours:.1f} min"
    lines = [
        ("size", f"{summary.episodes} episodes, {summary.steps} steps ({hours} at {meta['control_hz']:g} Hz), "
         f"{len(summary.tasks)} tasks, {summary.num_bytes / 1e6:.1f} MB in {summary.parts} part(s)"),
        *((f"camera {c['name']}", _camera(c)) for c in meta["cameras"]),
        ("action", f"{len(meta['action']['names'])} dimensions, bounds: {_bounds(meta['action']['bounds_source'])}, "
         f"clip {meta['action']['clip']:g}"),
        ("state", f"{len(meta['state']['names'])} dimensions"),
        ("splits", _counts(summary.splits)),
        *((f"source {name}", value if isinstance(value, str) else json.dumps(value, ensure_ascii=False))
          for name, value in meta["source"].items()),
        ("fingerprint", summary.fingerprint),
    ]  # fmt: skip
    for name, value in lines:
        table.add_row(Text(printable(name)), Text(printable(value)))
    return table


def _bounds(source: str) -> str:
    return {"data": "measured from the data (1st to 99th percentile)"}.get(source, source)


def _camera(camera: dict[str, Any]) -> str:
    made = ""
    if camera["resize"] != "none" and camera["source_height"]:
        made = f", from {camera['source_height']}x{camera['source_width']} by {camera['resize']}"
    return f"{camera['height']}x{camera['width']} {camera['encoding']}{made}"


def _task_table(summary: StoreSummary, max_tasks: int) -> Any:
    from rich.text import Text

    numbers = ("episodes", "steps", "min", "median", "max")
    words = [name for name in ("outcomes", "kinds", "domains") if any(_tells(getattr(t, name)) for t in summary.tasks)]
    table = _table("tasks (lengths in steps)", "task", *numbers, *words, right=numbers)
    for task in summary.tasks[:max_tasks]:
        counts = (task.episodes, task.steps, task.shortest, f"{task.median:g}", task.longest)
        table.add_row(
            Text(printable(task.task) or "(no name)"),
            *(Text(str(count)) for count in counts),
            *(Text(printable(_counts(getattr(task, name)))) for name in words),
        )
    if len(summary.tasks) > max_tasks:
        table.add_row(Text(f"and {len(summary.tasks) - max_tasks} smaller tasks", style="dim"))
    return table


def _range_table(title: str, ranges: tuple[DimensionRange, ...]) -> Any:
    from rich.text import Text

    numbers = ("min", "1 %", "median", "99 %", "max", "std")
    bounded = ("low", "high", "clipped") if ranges and ranges[0].low is not None else ()
    table = _table(title, "dimension", "unit", *numbers, *bounded, right=numbers + bounded)
    for r in ranges:
        cells = [Text(f"{value:.4g}") for value in (r.minimum, r.p1, r.median, r.p99, r.maximum, r.std)]
        if r.low is not None:
            clipped = (r.below or 0.0) + (r.above or 0.0)
            cells += [Text(f"{r.low:.4g}"), Text(f"{r.high:.4g}")]
            cells.append(Text(f"{100 * clipped:.2g} %", style="bold red" if clipped > MAX_CLIPPED_SHARE else ""))
        table.add_row(Text(printable(r.name)), Text(printable(r.unit)), *cells)
    return table


def _tells(words: dict[str, int]) -> bool:
    """Anything is known."""
    return bool(set(words) - {"unknown"})


def _counts(words: dict[str, int]) -> str:
    """``12 expert, 3 noisy``; the word alone where there is only one; the first three of many."""
    if len(words) == 1:
        return next(iter(words))
    shown = ", ".join(f"{count} {word}" for word, count in list(words.items())[:3])
    return shown + (f", and {len(words) - 3} more" if len(words) > 3 else "")
