"""New checkpoints of a run are evaluated beside it, one at a time, in a process that gives way to the training."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from pathlib import Path

from ptr_fast.run_folder import list_checkpoints
from ptr_robot.evaluation.metrics import evaluation_path

__all__ = ["Evaluating"]

LOOK_EVERY_S = 5.0


class Evaluating:
    """Runs ``ptr-fast evaluate`` for every checkpoint that has no evaluation, the newest first; a context manager.

    Args:
        run: run folder. options: more options of ``ptr-fast evaluate``.

    Attributes:
        failed: last line of what an evaluation said that could not be made, by the name of its checkpoint.
    """

    def __init__(self, run: Path, options: list[str]) -> None:
        self.failed: dict[str, str] = {}
        self._run, self._options, self._over = run, options, threading.Event()
        self._process: subprocess.Popen[str] | None = None
        self._thread = threading.Thread(target=self._work, name="evaluating", daemon=True)

    def __enter__(self) -> Evaluating:
        self._thread.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._over.set()
        if self._process is not None:
            self._process.terminate()
        self._thread.join()

    def _work(self) -> None:
        while not self._over.is_set():
            waiting = [path for path in list_checkpoints(self._run) if path.name not in self.failed]
            waiting = [path for path in waiting if not evaluation_path(path).exists()]
            if waiting:
                self._evaluate(waiting[-1])
            else:
                self._over.wait(LOOK_EVERY_S)

    def _evaluate(self, checkpoint: Path) -> None:
        command = [sys.executable, "-m", "ptr_robot", "evaluate", "--checkpoint", str(checkpoint), "--device", "cpu"]
        self._process = subprocess.Popen(
            [*command, *self._options],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
            env={**os.environ, "OMP_NUM_THREADS": "1"},
        )
        os.setpriority(os.PRIO_PROCESS, self._process.pid, 10)
        if self._over.is_set():  # said while the process was starting
            self._process.terminate()
        _, told = self._process.communicate()
        if self._process.returncode and not self._over.is_set():
            self.failed[checkpoint.name] = (told.strip().splitlines() or ["it said nothing"])[-1]
            print(f"checkpoint {checkpoint.name} is not evaluated: {self.failed[checkpoint.name]}")
