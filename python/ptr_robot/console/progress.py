"""How far a long job is, and how long it will still take: a bar on a terminal, plain lines elsewhere."""

from __future__ import annotations

import sys
import time
from types import TracebackType
from typing import Any, TextIO

__all__ = ["Progress", "format_duration"]


class Progress:
    """Counts finished items of one job; a context manager.

    Args:
        total: how many items there are; None where unknown.
        what: name of the job, first word of every line.
        unit: short name of one item.
        every_s: least seconds between two plain lines.
        stream: where to write; default is standard error. A terminal gets a bar, anything else plain lines.
    """

    def __init__(
        self, total: int | None, what: str, unit: str = "it", *, every_s: float = 10.0, stream: TextIO | None = None
    ) -> None:
        self.total, self.what, self.unit, self.done = total, what, unit, 0
        self._every_s, self._stream = every_s, stream or sys.stderr
        self._fields: dict[str, Any] = {}
        self._start = self._last_line = time.monotonic()
        self._bar: Any = None

    def __enter__(self) -> Progress:
        self._start = self._last_line = time.monotonic()
        if self._stream.isatty():
            from rich import progress as rich_progress
            from rich.console import Console

            self._bar = rich_progress.Progress(
                rich_progress.TextColumn("{task.description}"),
                rich_progress.BarColumn(),
                rich_progress.TextColumn("{task.fields[status]}"),
                console=Console(file=self._stream),
                transient=True,
            )
            self._bar.start()
            self._task = self._bar.add_task(self.what, total=self.total, status="")
        return self

    def advance(self, n: int = 1, **fields: Any) -> None:
        """Says that ``n`` more items are done; ``fields`` are shown until they are given anew."""
        self.done += n
        self._fields.update(fields)
        if self._bar is not None:
            self._bar.update(self._task, completed=self.done, status=self.line())
        elif time.monotonic() - self._last_line >= self._every_s:
            self._print()

    def line(self) -> str:
        """The state in words: count, rate, time left, fields."""
        seconds = time.monotonic() - self._start
        rate = self.done / seconds if seconds > 0 else 0.0
        words = [
            f"{self.done}{'' if self.total is None else f'/{self.total}'} {self.unit}",
            f"{rate:.3g} {self.unit}/s",
        ]
        if self.total is not None and 0 < self.done < self.total:
            words.append(f"{format_duration(seconds / self.done * (self.total - self.done))} left")
        words += [f"{name} {_short(value)}" for name, value in self._fields.items()]
        return ", ".join(words)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if self._bar is not None:
            self._bar.stop()
        if kind is None:
            self._print(f" in {format_duration(time.monotonic() - self._start)}")

    def _print(self, ending: str = "") -> None:
        self._last_line = time.monotonic()
        self._stream.write(f"{self.what}: {self.line()}{ending}\n")
        self._stream.flush()


def format_duration(seconds: float) -> str:
    """Seconds as ``8.2 s``, ``3 min 12 s`` or ``2 h 05 min``."""
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes} min {rest:02d} s" if minutes < 60 else f"{minutes // 60} h {minutes % 60:02d} min"


def _short(value: Any) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)
