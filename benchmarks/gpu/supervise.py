"""Parts of a long measurement, in child processes: one that crashes, hangs or breaks the GPU takes no other with it."""

from __future__ import annotations

import os
import queue
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Mapping

from benchmarks.harness import record

__all__ = ["BEGIN", "supervise"]

BEGIN = "== part "  # a child prints it with the name of the part that it begins
START_SECONDS = 150.0  # from a child's start to its first part


def supervise(
    parts: Mapping[str, float], start: Callable[[list[str], float], subprocess.Popen[str]], seconds: float
) -> list[str]:
    """Runs the parts in order, in one child as long as that lives.

    Args:
        parts: name -> the longest that it may take, seconds.
        start: starts a child in a session of its own, its output in a pipe, for these parts and so many seconds. It
            ends with 0, or with 1 where a row failed; with anything else its present part has crashed.
        seconds: for everything.

    Returns:
        What failed. Crashed parts and parts for which no time was left are rows.
    """
    end, left, failures = time.monotonic() + seconds, dict(parts), []
    while left and end > time.monotonic():
        child = start(list(left), end - time.monotonic())
        try:
            present, why = _follow(child, left, end)
        except BaseException:  # Ctrl-C does not reach a session of its own: nothing may stay on the GPU
            _end(child)
            raise
        if why is not None:
            failures.append(f"{present}: {why}")
            record({"name": "gpu_parts", "case": present, "failed": why})
        elif child.returncode == 1:
            failures.append("rows (see above)")
    for name in left:
        record({"name": "gpu_parts", "case": name, "skipped": "no time was left"})
    return failures


def _follow(child: subprocess.Popen[str], left: dict[str, float], end: float) -> tuple[str, str | None]:
    """Prints what a child says and takes what it begins out of ``left``, until it ends or is ended: where, and why."""
    lines: queue.Queue[str | None] = queue.Queue()
    threading.Thread(target=_read, args=(child, lines), daemon=True).start()
    present, limit = next(iter(left)), START_SECONDS
    deadline = time.monotonic() + limit
    while True:
        try:
            line = lines.get(timeout=max(min(deadline, end) - time.monotonic(), 0.01))
        except queue.Empty:
            _end(child)
            left.pop(present, None)
            return present, "ended with the whole program's time" if end <= deadline else f"took over {limit:.0f} s"
        if line is None:
            code = child.wait()
            if code in (0, 1) and not left:  # an exception outside of any row ends Python with 1 as well
                return present, None
            left.pop(present, None)
            return present, f"the process ended with code {code}"
        print(line, end="", flush=True)
        if line.startswith(BEGIN):
            present = line.removeprefix(BEGIN).strip()
            limit = left.pop(present)
            deadline = time.monotonic() + limit


def _end(child: subprocess.Popen[str]) -> None:
    """Kills a child that has not been waited for, with all that it has started."""
    if child.returncode is None:
        os.killpg(child.pid, signal.SIGKILL)
        child.wait()


def _read(child: subprocess.Popen[str], lines: queue.Queue[str | None]) -> None:
    assert child.stdout is not None
    for line in child.stdout:
        lines.put(line)
    lines.put(None)
