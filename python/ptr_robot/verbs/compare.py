"""Compare methods on the same data, demonstrations and starts: ``ptr-fast compare GRID``.

GRID is a preset or a YAML file. Every training and every set of trials is a ``ptr-fast`` command of its own; what has
finished is not run again, so the same command goes on after any stop. It writes rows (JSON lines) and one HTML page.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import tyro

if TYPE_CHECKING:
    from ptr_robot.comparison.grid import Grid
    from ptr_robot.comparison.plan import Plan
    from ptr_robot.stages import Stage

__all__ = ["Args", "main"]

JOBS_AT_A_TIME = 64
"""On a cluster, where nobody says another number."""


@dataclass(frozen=True, kw_only=True)
class Args:
    """Options of the verb.

    Attributes:
        grid: Preset, or path of a YAML file.
        out: Folder for data, runs, trials, rows and the page. Default: outputs/compare/NAME.
        methods: Only these methods. Default: the grid's own.
        data: Only these data sets of the grid. Default: all.
        seeds: Training seeds in place of the grid's; what is there already is not trained again.
        trials: Trials per policy; 0 takes the grid's number.
        workers: Stages side by side; 0 takes the number of CPU cores, on a cluster 64 jobs. Where there are GPUs,
            trainings get one each.
        per_gpu: Trainings side by side on one GPU.
        cluster: Run the stages as jobs of a cluster instead, through the package submitit: slurm, auto (slurm where it
            is there, else processes here), or local and debug to try it out. The folder must be seen by all its
            machines.
        cluster_options: NAME=VALUE parameters of submitit's executor, e.g. timeout_min=240 slurm_partition=gpu
            gpus_per_node=1.
        minutes: Stop after so many minutes; 0 runs to the end. The same command goes on.
        dry: Print what would run, how many stages and how long they would take, and run nothing.
    """

    grid: Annotated[str, tyro.conf.Positional]
    out: Path | None = None
    methods: tuple[str, ...] = ()
    data: tuple[str, ...] = ()
    seeds: tuple[int, ...] = ()
    trials: int = 0
    workers: int = 0
    per_gpu: int = 1
    cluster: Literal["", "slurm", "auto", "local", "debug"] = ""
    cluster_options: tuple[str, ...] = ()
    minutes: float = 0.0
    dry: bool = False


def main(args: Args) -> int:
    """Runs what is missing of the grid, prints its table and writes rows and page.

    Returns:
        0 where the whole grid is done, 1 where stages failed or are left.

    Raises:
        DataError: a result of trials or a selection is damaged; raised at the end, and names the file.
    """
    from ptr_fast.errors import DataError
    from ptr_robot.comparison.durations import KNOWN_SECONDS
    from ptr_robot.comparison.grid import load_grid
    from ptr_robot.comparison.page import write_pages
    from ptr_robot.comparison.plan import make_plan
    from ptr_robot.comparison.rows import rows_of, write_rows
    from ptr_robot.stages import Durations, fill_in_keys, run_stages
    from ptr_robot.stages.ledger import Ledger

    if args.workers < 0 or args.per_gpu < 1 or not args.minutes >= 0:
        raise ValueError("workers and minutes must not be negative, and per-gpu must be at least 1")
    if args.cluster_options and not args.cluster:
        raise ValueError("--cluster-options needs --cluster")
    grid = load_grid(args.grid, methods=args.methods, data=args.data, seeds=args.seeds, trials=args.trials)
    out = args.out or Path("outputs/compare") / grid.name
    workers = args.workers or os.cpu_count() or 1
    try:
        plan = make_plan(grid, out, workers)
    except ValueError as error:
        raise ValueError(f"grid {grid.name}: {error}") from error
    fill_in_keys(plan.stages, out)
    durations = Durations(KNOWN_SECONDS)
    if args.dry:
        _tell_plan(plan, out, workers, durations)
        return 0
    machine = _machine()
    ledger = Ledger(out, machine)

    told: set[str] = set()

    def write(stage: Stage | None = None) -> None:
        try:
            if stage is None or stage.verb[0] == "rollout":
                write_rows(rows_of(grid, plan, ledger), out / "rows.jsonl")
        except DataError as error:  # of one cell; the trainings of the others shall not end for it
            if str(error) not in told:
                print(f"rows are not written: {error}")
            told.add(str(error))

    write()  # rows of an earlier grid in this folder do not outlive its start
    try:
        result = run_stages(
            plan.stages,
            out,
            _place(args, out, workers),
            keep_going=True,
            seconds=60.0 * args.minutes,
            durations=durations,
            machine=machine,
            each=write,
        )
    except KeyboardInterrupt:
        done = len(plan.stages) - len(ledger.to_do(plan.stages))
        print(f"{done} of {len(plan.stages)} stages are done; the same command goes on; logs: {out / 'logs'}")
        raise
    rows = rows_of(grid, plan, ledger)
    write_rows(rows, out / "rows.jsonl")
    _tell_result(grid, plan, rows, out)
    print(f"page: {write_pages(grid, plan, rows, out / 'page', result.failed)}")
    for what in result.failed.values():
        print(what)
    if result.skipped:
        print(f"{len(result.skipped)} stages wait for one that failed; the same command tries again")
    if result.left:
        print(f"{len(result.left)} stages are left; the same command goes on")
    return 1 if result.failed or result.left else 0


def _place(args: Args, out: Path, workers: int) -> Any:
    from ptr_robot.stages import LocalProcesses
    from ptr_robot.stages.cluster import Cluster, parse_options
    from ptr_robot.stages.local import visible_gpus

    if args.cluster:
        return Cluster(out, args.cluster, args.workers or JOBS_AT_A_TIME, parse_options(args.cluster_options))
    return LocalProcesses(workers, visible_gpus(), args.per_gpu)


def _machine() -> dict[str, Any]:
    """What rows say about where they were made."""
    import datetime
    import platform

    import numpy as np
    import torch

    import ptr_fast
    from ptr_robot.verbs.info import instruction_set, processor

    return {
        "versions": {
            "ptr-fast": ptr_fast.__version__,
            "python": platform.python_version(),
            "torch": torch.__version__,
            "numpy": np.__version__,
        },
        "cpu": processor(),
        "cores": os.cpu_count(),
        "torch_isa": instruction_set(),
        **({"gpu": torch.cuda.get_device_name()} if torch.cuda.is_available() else {}),
        "date": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
    }


def _tell_plan(plan: Plan, out: Path, workers: int, durations: Any) -> None:
    """Every command, and how many stages of which kind there are and how long they take."""
    import shlex
    from collections import Counter

    from rich.console import Console
    from rich.table import Table

    from ptr_robot.console.progress import format_duration
    from ptr_robot.stages.ledger import Ledger

    to_do = plan.stages
    if (out / "stages").is_dir():
        ledger = Ledger(out)
        for stage in plan.stages:
            row = ledger.finished(stage)
            if row is not None and row.get("is_whole"):
                durations.learn(stage, row["seconds"])
        to_do = ledger.to_do(plan.stages)
    for stage in to_do:
        print(f"[{stage.name}] ptr-fast {shlex.join(stage.verb)}")
    kinds = Counter(stage.kind for stage in to_do)
    table = Table("stages", "number", "seconds each", box=None)
    for kind, number in kinds.items():
        usual = durations.total(stage for stage in to_do if stage.kind == kind) / number
        table.add_row(kind, str(number), f"{usual:.0f}")
    console = Console(highlight=False, markup=False)
    console.print(table)
    left = durations.left(to_do, workers)
    console.print(
        f"{len(to_do)} of {len(plan.stages)} stages to do, about {format_duration(left or 0.0)} on {workers} workers "
        f"without a GPU",
        soft_wrap=True,
    )
    for note in plan.left_out:
        console.print(f"left out: {note}", soft_wrap=True)


def _tell_result(grid: Grid, plan: Plan, rows: list[dict[str, Any]], out: Path) -> None:
    """The table of success rates on a console."""
    import math

    from rich.console import Console
    from rich.table import Table

    from ptr_robot.comparison.summary import summarize

    console = Console(highlight=False, markup=False, width=max(Console().width, 120))
    places = summarize(rows)
    for data in grid.data:
        table = Table(title=data, box=None)
        for column in ("method", "acts by", "demonstrations", "checkpoint", "success", "95 %", "over seeds", "steps"):
            table.add_column(column)
        for place, summary in places.items():
            if place.data != data:
                continue
            rate = summary.rate
            intervals = [
                "{:.0%} to {:.0%}".format(*each) if each else "one seed" for each in (rate.wilson, rate.bootstrap)
            ]
            steps = "-" if math.isnan(summary.mean_steps) else f"{summary.mean_steps:.0f}"
            success = f"{rate.successes}/{rate.num_trials}"
            title = grid.method(place.method).title
            table.add_row(title, place.mode, place.phase, place.checkpoint, success, *intervals, steps)
        if table.row_count:
            console.print(table)
    console.print(f"{len(rows)} rows: {out / 'rows.jsonl'}", soft_wrap=True)
