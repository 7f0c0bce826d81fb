"""Work spread over processes that die with their parent, with results in the order of the work."""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import signal
import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from typing import TypeVar

__all__ = ["ordered_map"]

Item = TypeVar("Item")
Result = TypeVar("Result")
AHEAD = 3  # tasks handed out per worker before the oldest result is taken


def ordered_map(work: Callable[[Item], Result], items: Iterable[Item], num_workers: int) -> Iterator[Result]:
    """``map`` over processes; one worker means this process.

    Args:
        work: a function that a fresh process can import.
        items: picklable.
        num_workers: at least 1.

    Raises:
        ValueError: ``num_workers`` below 1.
        RuntimeError: a worker process died. Whatever ``work`` raises comes through as it is.
    """
    if num_workers < 1:
        raise ValueError(f"workers must be at least 1, got {num_workers}")
    if num_workers == 1:
        for item in items:  # not map(), which would take a StopIteration of the work for the end of the items
            yield work(item)
        return
    pool = ProcessPoolExecutor(num_workers, multiprocessing.get_context("spawn"), initializer=_start_worker)
    waiting: deque[Future[Result]] = deque()
    try:
        for item in items:
            with _ctrl_c_held_back():
                waiting.append(pool.submit(work, item))
            if len(waiting) >= AHEAD * num_workers:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()
    except BrokenProcessPool as error:
        raise RuntimeError("a worker process died (out of memory?); what was finished before it is kept") from error
    finally:
        pool.shutdown(wait=True, cancel_futures=True)


@contextlib.contextmanager
def _ctrl_c_held_back() -> Iterator[None]:
    """What is started meanwhile inherits it: a Ctrl-C while a worker still loads would end it with a traceback."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _start_worker() -> None:
    """Leaves Ctrl-C to the parent, ends with it, and computes on one thread."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=_follow_parent, daemon=True).start()
    os.environ["OMP_NUM_THREADS"] = "1"
    os.environ.setdefault("LP_NUM_THREADS", "0")  # Mesa's software renderer


def _follow_parent() -> None:
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)
