"""Stages as jobs of a cluster, through the package ``submitit``: those that begin at one time are one job array."""

from __future__ import annotations

import contextlib
import fcntl
import os
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, ClassVar

from ptr_robot.stages.ledger import Ledger
from ptr_robot.stages.stage import Stage

__all__ = ["Cluster", "parse_options"]


class Cluster:
    """Where stages run: jobs of a cluster.

    Args:
        root: folder of the stages, seen by all machines. submitit writes its own files into ``root/jobs``.
        kind: ``slurm``; ``auto`` (slurm where it is there, else processes here); ``local`` or ``debug`` to try it out.
        slots: jobs at a time at most.
        options: parameters of ``submitit``'s executor, e.g. ``{"timeout_min": 240, "slurm_partition": "gpu"}``. Those
            that begin with ``gpus_`` count for stages alone that compute on a GPU.

    Raises:
        ImportError: the package is not installed.
        ValueError: submitit does not know the kind or an option.
    """

    PROGRAM: ClassVar[tuple[str, ...]] = (sys.executable, "-m", "ptr_robot")

    def __init__(self, root: Path, kind: str, slots: int, options: Mapping[str, Any]) -> None:
        try:
            import submitit
        except ImportError as error:
            raise ImportError("a cluster needs the package submitit: pip install 'ptr-fast[cluster]'") from error
        self.slots, self._root = slots, root.resolve()
        self._executors = {}
        for uses_gpu in (True, False):
            executor = submitit.AutoExecutor(folder=self._root / "jobs", cluster=None if kind == "auto" else kind)
            own = {name: value for name, value in options.items() if uses_gpu or "gpus_" not in name}
            try:
                executor.update_parameters(**{"name": "ptr-fast", "slurm_array_parallelism": slots, **own})
            except (NameError, TypeError, AssertionError) as error:
                raise ValueError(f"cluster options: {' '.join(str(error).split())}") from error
            self._executors[uses_gpu] = executor
        self._waiting: list[ClusterJob] = []
        self._number = 0

    def has_room(self, stage: Stage) -> bool:
        """Whether another job can be handed in."""
        return self._number < self.slots

    @contextlib.contextmanager
    def together(self) -> Iterator[None]:
        """What is started inside is handed in at the end, as one array per kind of machine."""
        yield
        for uses_gpu, executor in self._executors.items():
            jobs = [job for job in self._waiting if job.stage.uses_gpu == uses_gpu]
            if jobs:
                with executor.batch():
                    for job in jobs:
                        job.job = executor.submit(_InJob(job.stage, self._root, self.PROGRAM))
        self._waiting.clear()

    def start(self, stage: Stage, verb: list[str], log: Path, lock: IO[str]) -> ClusterJob:
        """Takes a stage; its job takes the lock when it begins."""
        lock.close()
        self._number += 1
        job = ClusterJob(self, stage, log)
        self._waiting.append(job)
        return job

    def _ended(self) -> None:
        self._number -= 1


class ClusterJob:
    """A stage that is a job of a cluster."""

    def __init__(self, home: Cluster, stage: Stage, log: Path) -> None:
        self.stage, self._home, self._log = stage, home, log
        self.job: Any = None
        self._code: int | None = None

    def poll(self) -> int | None:
        """The exit code, or None while the job waits or runs; what is said about a lost job goes to the log."""
        if self._code is None and self.job.done():
            try:
                self._code = int(self.job.result())
            except Exception as error:  # noqa: BLE001 (whatever happened to a job is that stage's failure)
                with open(self._log, "a", encoding="utf-8") as log:
                    log.write(f"job {self.job.job_id}: {error}\n")
                self._code = 1
            self._home._ended()
        return self._code

    def ask_to_stop(self) -> None:
        """Cancels the job; a training saves a checkpoint first, as the cluster sends SIGTERM before it kills."""
        if self.job is not None:
            self.job.cancel(check=False)

    def wait(self, seconds: float) -> None:
        """Nothing: the cluster ends the job."""


@dataclass
class _InJob:
    """What a job does: it holds the stage's lock, runs the stage's command and returns the exit code."""

    stage: Stage
    root: Path
    program: Sequence[str]

    def __call__(self) -> int:
        ledger = Ledger(self.root)
        with ledger.lock_file(self.stage) as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)  # a job of an earlier start may still run
            if (row := ledger.finished(self.stage)) is not None:
                return int(row["exit_code"])
            with open(ledger.log(self.stage), "ab") as log:
                return subprocess.run(
                    [*self.program, *ledger.command(self.stage)],
                    stdout=log,
                    stderr=subprocess.STDOUT,
                    stdin=subprocess.DEVNULL,
                    pass_fds=(lock.fileno(),),
                    env={**os.environ, "PYTHONUNBUFFERED": "1"},
                    check=False,
                ).returncode

    def checkpoint(self) -> Any:
        """What submitit queues again when the job is preempted or its time is over: the command then goes on."""
        import submitit

        return submitit.helpers.DelayedSubmission(self)


def parse_options(words: Sequence[str]) -> dict[str, Any]:
    """``["timeout_min=240", "slurm_partition=gpu"]`` as names and values; whole numbers become int.

    Raises:
        ValueError: a word is no NAME=VALUE.
    """
    options: dict[str, Any] = {}
    for word in words:
        name, equals, value = word.partition("=")
        if not (name and equals and value):
            raise ValueError(f"cluster options: expected NAME=VALUE, e.g. timeout_min=240, got {word!r}")
        options[name] = int(value) if value.isdecimal() else value
    return options
