"""What a person sees while stages run: a line per event, and on a terminal a bar below them."""

from __future__ import annotations

import sys
import time
from pathlib import Path
from types import TracebackType
from typing import Any, TextIO

from ptr_robot.console.progress import format_duration

__all__ = ["Board", "LogTail", "last_lines"]


class Board:
    """Lines and progress of a number of stages; a context manager.

    Args:
        total: number of stages.
        stream: where to write; default is standard output. A terminal gets a bar, anything else plain lines alone.
    """

    def __init__(self, total: int, stream: TextIO | None = None) -> None:
        self._total, self._stream = total, stream or sys.stdout
        self._bar: Any = None

    def __enter__(self) -> Board:
        if self._stream.isatty():
            from rich import progress
            from rich.console import Console

            self._bar = progress.Progress(
                progress.TextColumn("stages"),
                progress.BarColumn(),
                progress.TextColumn("{task.fields[status]}"),
                console=Console(file=self._stream, highlight=False),
                transient=True,
            )
            self._bar.start()
            self._task = self._bar.add_task("", total=self._total, status="")
        return self

    def tell(self, line: str) -> None:
        """One line."""
        if self._bar is not None:
            self._bar.console.print(line, markup=False, soft_wrap=True)
        else:
            self._stream.write(f"{line}\n")
            self._stream.flush()

    def progress(self, done: int, left: float | None) -> str:
        """How far it is, in words; moves the bar."""
        words = f"{done}/{self._total} stages"
        if left is not None and done < self._total:
            words += f", about {format_duration(max(left, 1.0))} left"
        if self._bar is not None:
            self._bar.update(self._task, completed=done, status=words)
        return words

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if self._bar is not None:
            self._bar.stop()


class LogTail:
    """New lines of a growing log: alarms and errors at once, others every few seconds.

    Args:
        path: the log; what it holds already is passed over.
        every_s: seconds between two ordinary lines.
    """

    def __init__(self, path: Path, every_s: float) -> None:
        self._path, self._every_s = path, every_s
        self._position = path.stat().st_size if path.exists() else 0
        self._shown, self._rest = time.monotonic(), b""

    def new_lines(self) -> list[str]:
        """Lines worth showing that have come since the last call."""
        if not self._path.exists():
            return []
        with open(self._path, "rb") as file:
            file.seek(self._position)
            data = file.read()
        self._position += len(data)
        *lines, self._rest = (self._rest + data).split(b"\n")
        shown = []
        for line in (raw.decode(errors="replace").rstrip() for raw in lines):
            urgent = "error" in line or "alarm" in line
            if line and (urgent or time.monotonic() - self._shown >= self._every_s):
                self._shown = time.monotonic()
                shown.append(line)
        return shown


def last_lines(log: Path, begin: int = 0, count: int = 8) -> list[str]:
    """The last lines of a log that are not empty, of what stands behind its first ``begin`` bytes."""
    if not log.exists():
        return []
    with open(log, "rb") as file:
        file.seek(max(begin, log.stat().st_size - 8192))
        text = file.read().decode(errors="replace")
    return [line.rstrip() for line in text.splitlines() if line.strip()][-count:]
