"""Runs stages as soon as those they wait for have finished; what has finished is not run again."""

from __future__ import annotations

import math
import shlex
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any, Protocol

from ptr_robot.console.progress import format_duration
from ptr_robot.stages.board import Board, LogTail, last_lines
from ptr_robot.stages.durations import Durations
from ptr_robot.stages.ledger import Ledger
from ptr_robot.stages.stage import Stage, fill_in_keys

__all__ = ["Place", "Result", "Running", "run_stages"]

SECONDS_TO_STOP = 30.0


class Running(Protocol):
    """A stage on its way."""

    def poll(self) -> int | None:
        """The exit code, or None while it runs."""

    def ask_to_stop(self) -> None:
        """Asks it to save what it can and to end."""

    def wait(self, seconds: float) -> None:
        """Waits for its end, and ends it the hard way after so many seconds."""


class Place(Protocol):
    """Where stages run: :class:`~ptr_robot.stages.local.LocalProcesses` or a cluster.

    Attributes:
        slots: stages side by side, for the time left.
    """

    slots: int

    def has_room(self, stage: Stage) -> bool:
        """Whether the stage can begin now."""

    def together(self) -> AbstractContextManager[Any]:
        """Around the starts of stages that begin at one time."""

    def start(self, stage: Stage, verb: list[str], log: Path, lock: IO[str]) -> Running:
        """Begins a stage: its ``ptr-fast VERB``, its log and its lock, which the process takes over."""


@dataclass
class Result:
    """What came of a number of stages: their names.

    Attributes:
        failed: stages that failed, with the reason. skipped: those that wait for a failed one.
        left: those that were not begun, or stopped, because the time was over.
    """

    failed: dict[str, str] = field(default_factory=dict)
    skipped: list[str] = field(default_factory=list)
    left: list[str] = field(default_factory=list)


def run_stages(
    stages: Sequence[Stage],
    root: Path,
    place: Place,
    *,
    keep_going: bool = False,
    show_every_s: float = 0.0,
    seconds: float = 0.0,
    durations: Durations | None = None,
    machine: Mapping[str, Any] | None = None,
    each: Callable[[Stage], None] | None = None,
) -> Result:
    """Runs the stages that have not finished yet.

    Args:
        stages: in the order in which they should begin; each after those that it waits for.
        root: folder of their marks and logs.
        place: where they run.
        keep_going: a stage that fails is told, and those that do not wait for it go on; else it stops everything.
        show_every_s: every so many seconds a line of each running stage is shown; 0 shows none.
        seconds: stop after so long; 0 runs to the end. A later call goes on.
        durations: what stages take; learns from this call and from the marks of earlier ones.
        machine: what the stages run on; written into their marks.
        each: called after each stage that has finished, in this call.

    Raises:
        RuntimeError: a stage failed, and ``keep_going`` is off; names its log. The others are stopped. Or another
            program runs the stages of this folder.
        KeyboardInterrupt: passed on after the running stages have stopped, each having saved what it can.
    """
    fill_in_keys(stages, root)
    ledger, durations = Ledger(root, machine), durations or Durations()
    to_do = ledger.to_do(stages)
    names = {stage.name for stage in to_do}
    for stage in stages:
        if (row := ledger.finished(stage)) is not None and row.get("is_whole"):
            durations.learn(stage, row["seconds"])
    with ledger.alone(), Board(len(stages)) as board:
        if before := len(stages) - len(to_do):
            board.tell(f"{before} of {len(stages)} stages are done already")
        work = _Work(to_do, {stage.name for stage in stages} - names, ledger, place, board, durations)
        work.keep_going, work.show_every_s, work.each = keep_going, show_every_s, each
        return work.run(time.monotonic() + seconds if seconds else math.inf)


@dataclass
class _Process:
    stage: Stage
    running: Running
    tail: LogTail
    begin: float
    log_begin: int


@dataclass
class _Work:
    """The stages of one call: those to do, those that run and those that have finished."""

    to_do: Sequence[Stage]
    finished: set[str]
    ledger: Ledger
    place: Place
    board: Board
    durations: Durations
    keep_going: bool = False
    show_every_s: float = 0.0
    each: Callable[[Stage], None] | None = None
    running: dict[str, _Process] = field(default_factory=dict)
    waiting: set[str] = field(default_factory=set)
    result: Result = field(default_factory=Result)

    def run(self, end: float) -> Result:
        """Until all is done, or the monotonic clock shows ``end``."""
        try:
            while open_stages := self._open():
                if time.monotonic() >= end:
                    self.result.left = [stage.name for stage in open_stages]
                    break
                with self.place.together():
                    for stage in open_stages:
                        if self._can_begin(stage):
                            self._begin(stage)
                time.sleep(0.05)
                for process in list(self.running.values()):
                    for line in process.tail.new_lines() if self.show_every_s else ():
                        self.board.tell(f"[{process.stage.name}] {line}")
                    if (code := process.running.poll()) is not None:
                        self._end(process, code)
        finally:
            self._stop_all()
        return self.result

    def _open(self) -> list[Stage]:
        """Stages that run or may still run; those that wait for a failed one are skipped."""
        lost = set(self.result.failed) | set(self.result.skipped)
        for stage in self.to_do:
            if stage.name not in lost and lost & set(stage.after):
                lost.add(stage.name)
                self.result.skipped.append(stage.name)
        return [stage for stage in self.to_do if stage.name not in lost | self.finished]

    def _can_begin(self, stage: Stage) -> bool:
        is_ready = stage.name not in self.running and set(stage.after) <= self.finished
        return is_ready and self.place.has_room(stage)

    def _begin(self, stage: Stage) -> None:
        lock = self.ledger.take_lock(stage)
        if lock is None:
            if stage.name not in self.waiting:
                self.waiting.add(stage.name)
                self.board.tell(f"[{stage.name}] its process of an earlier start still runs; waiting for its end")
            return
        try:
            verb = self.ledger.command(stage)
        except ValueError as error:
            lock.close()
            self._fail(stage, f"stage {stage.name} cannot begin: {error}", ())
            return
        self.ledger.begin(stage)
        log = self.ledger.log(stage)
        tail, log_begin = LogTail(log, self.show_every_s), log.stat().st_size if log.exists() else 0
        self.board.tell(f"[{stage.name}] $ ptr-fast {shlex.join(verb)}")
        running = self.place.start(stage, verb, log, lock)
        self.running[stage.name] = _Process(stage, running, tail, time.monotonic(), log_begin)

    def _end(self, process: _Process, code: int) -> None:
        stage, seconds = process.stage, time.monotonic() - process.begin
        del self.running[stage.name]
        if code not in stage.accepts:
            log = self.ledger.log(stage)
            self._fail(
                stage, f"stage {stage.name} failed with exit code {code}; see {log}", last_lines(log, process.log_begin)
            )
            return
        self.ledger.finish(stage, code, seconds)
        self.finished.add(stage.name)
        if (self.ledger.finished(stage) or {}).get("is_whole"):
            self.durations.learn(stage, seconds)
        now = time.monotonic()
        begun = {name: now - other.begin for name, other in self.running.items()}
        left = self.durations.left(self._open(), self.place.slots, begun)
        told = self.board.progress(len(self.finished), left)
        self.board.tell(f"[{stage.name}] done in {format_duration(seconds)} ({told})")
        if self.each is not None:
            self.each(stage)

    def _fail(self, stage: Stage, what: str, lines: Sequence[str]) -> None:
        if not self.keep_going:
            raise RuntimeError(what)
        self.result.failed[stage.name] = what
        self.board.tell("\n".join([what, *(f"    {line}" for line in lines)]))

    def _stop_all(self) -> None:
        for process in self.running.values():
            process.running.ask_to_stop()
        for process in self.running.values():
            process.running.wait(SECONDS_TO_STOP)
