"""Times on the device: CUDA events around work that meets a cold L2 cache; on the CPU (``--dry``) only that it runs."""

from __future__ import annotations

import os
import statistics
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any, TypeVar

import torch

from benchmarks.harness import Milliseconds, environment, record

__all__ = ["Bench", "OutOfTimeError"]

L2_FLUSH_BYTES = 256 * 2**20  # five times an H100's L2
WAIT_CYCLES = 4_000_000  # two milliseconds: longer than the launches of any op here
BROKEN = 70  # exit status of a process whose GPU answers no more
T = TypeVar("T")


class OutOfTimeError(Exception):
    """The time given to the whole program is used up; what was measured has been written."""


@dataclass
class Bench:
    """Where and how long to measure.

    Attributes:
        dry: run everything at tiny sizes on the CPU; nothing that is measured means anything.
        seconds: time for the whole program.
        small: tiny sizes on the GPU too.
        share: ``(i, n)``: of what comes in cases or variants only every n-th from the i-th on; see ``compile_only``.
        compile_only: run everything once, so that compilers fill their caches on disk, and measure nothing.
    """

    dry: bool
    seconds: float
    small: bool = False
    share: tuple[int, int] = (0, 1)
    compile_only: bool = False
    begin: float = field(default_factory=time.monotonic)
    failures: list[str] = field(default_factory=list)
    peaks: dict[str, float] = field(default_factory=dict)
    _flush: torch.Tensor | None = None

    def __post_init__(self) -> None:
        self.small = self.small or self.dry

    @property
    def device(self) -> str:
        """Where everything runs."""
        return "cpu" if self.dry else "cuda"

    @property
    def seconds_left(self) -> float:
        """Of the whole program's."""
        return self.seconds - (time.monotonic() - self.begin)

    def need(self, seconds: float) -> None:
        """Raises :class:`OutOfTimeError` where less than this is left."""
        if self.seconds_left < seconds:
            raise OutOfTimeError(f"{self.seconds_left:.0f} s left, {seconds:.0f} s needed")

    def attempt(self, name: str, case: str, work: Callable[[], Any]) -> Any:
        """Runs one row's work; a failure becomes a row, and the others go on. In a dry run it is raised.

        A peer that is not installed is a row in either. After an illegal access every later call fails in this process:
        it ends, and another one takes the parts that are left.
        """
        where = environment()  # asked while the GPU still answers
        try:
            return work()
        except (OutOfTimeError, ModuleNotFoundError) as error:
            record({"name": name, "case": case, "skipped": str(error), "environment": where})
        except Exception as error:
            if self.dry:
                raise
            self.failures.append(f"{name} {case}")
            why = f"{type(error).__name__}: {error}"[:1000]
            record({"name": name, "case": case, "failed": why, "environment": where})
            try:
                torch.cuda.synchronize()
                torch.cuda.empty_cache()
            except RuntimeError:
                os._exit(BROKEN)
        return None

    def timed(self, work: Callable[[], Any], count: int = 1, cold: bool = True) -> Callable[[], Milliseconds]:
        """The work as a variant of :func:`benchmarks.harness.compare`: the device's milliseconds per call.

        Cold work is launched while the GPU still waits and then flushes L2, so that it is not timed by its launches:
        in training it is replayed from a graph.
        """

        def on_device() -> Milliseconds:
            first, last = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
            if cold:
                torch.cuda._sleep(WAIT_CYCLES)
                self.flush()
            first.record()
            for _ in range(count):
                work()
            last.record()
            last.synchronize()
            return Milliseconds(first.elapsed_time(last) / count)

        def on_host() -> Milliseconds:
            begin = time.perf_counter()
            work()
            return Milliseconds((time.perf_counter() - begin) * 1e3)

        return on_host if self.dry else on_device

    def median_ms(self, work: Callable[[], Any], num_rounds: int = 15, count: int = 1, cold: bool = True) -> float:
        """Median over rounds, after three that do not count."""
        timed = self.timed(work, count, cold)
        values = [timed() for _ in range(4 if self.dry else num_rounds + 3)]
        return float(statistics.median(values[3:]))

    def flush(self) -> None:
        """Writes more than the L2 cache holds."""
        if self._flush is None:
            self._flush = torch.empty(L2_FLUSH_BYTES // 4, device=self.device)
        self._flush.zero_()

    def mine(self, items: Iterable[T]) -> list[T]:
        """Those of this process's share."""
        index, num_shares = self.share
        return list(items)[index::num_shares]

    def rounds(self, default: int) -> int:
        """Rounds of a row: one in a dry run."""
        return 1 if self.dry else default
