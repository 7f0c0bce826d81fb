"""Stages as processes of this machine, so many side by side, and one per GPU where there are GPUs."""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import IO, ClassVar

from ptr_robot.stages.stage import Stage

__all__ = ["LocalProcesses", "visible_gpus"]


class LocalProcesses:
    """Where stages run: processes here.

    Args:
        workers: stages side by side.
        gpus: names of GPUs as ``CUDA_VISIBLE_DEVICES`` takes them. A stage that computes on a GPU gets one of them; the
            others see none, so that no action for a single frame waits behind trainings. Without GPUs all are alike.
        per_gpu: stages side by side on one GPU.
    """

    PROGRAM: ClassVar[tuple[str, ...]] = (sys.executable, "-m", "ptr_robot")

    def __init__(self, workers: int, gpus: Sequence[str] = (), per_gpu: int = 1) -> None:
        if workers < 1 or per_gpu < 1:
            raise ValueError(f"workers and stages per GPU must be at least 1, got {workers} and {per_gpu}")
        self.slots = max(workers, len(gpus) * per_gpu)
        self._places = [gpu for gpu in gpus for _ in range(per_gpu)]
        self._has_gpus, self._workers, self._others = bool(gpus), workers, 0

    def has_room(self, stage: Stage) -> bool:
        """Whether the stage can begin now."""
        return bool(self._places) if self._has_gpus and stage.uses_gpu else self._others < self._workers

    def together(self) -> contextlib.AbstractContextManager[None]:
        """Nothing: each process begins at once."""
        return contextlib.nullcontext()

    def start(self, stage: Stage, verb: list[str], log: Path, lock: IO[str]) -> LocalProcess:
        """Begins a stage as a process, which keeps the lock until it ends."""
        gpu = self._places.pop() if self._has_gpus and stage.uses_gpu else None
        environment = {**os.environ, "PYTHONUNBUFFERED": "1"}
        environment.setdefault("OMP_NUM_THREADS", "1")
        if self._has_gpus:
            environment["CUDA_VISIBLE_DEVICES"] = gpu or ""
        self._others += gpu is None
        with open(log, "ab") as out:
            process = subprocess.Popen(
                [*self.PROGRAM, *verb],
                stdout=out,
                stderr=subprocess.STDOUT,
                stdin=subprocess.DEVNULL,
                pass_fds=(lock.fileno(),),
                env=environment,
            )
        lock.close()  # the process has it now
        return LocalProcess(self, process, gpu)

    def _give_back(self, gpu: str | None) -> None:
        if gpu is None:
            self._others -= 1
        else:
            self._places.append(gpu)


class LocalProcess:
    """A stage that runs here."""

    def __init__(self, home: LocalProcesses, process: subprocess.Popen[bytes], gpu: str | None) -> None:
        self._home, self._process, self._gpu, self._ended = home, process, gpu, False

    def poll(self) -> int | None:
        """The exit code, or None while it runs."""
        code = self._process.poll()
        if code is not None and not self._ended:
            self._ended = True
            self._home._give_back(self._gpu)
        return code

    def ask_to_stop(self) -> None:
        """A polite kill: trainings save a checkpoint first."""
        with contextlib.suppress(ProcessLookupError):
            self._process.terminate()

    def wait(self, seconds: float) -> None:
        """Waits for its end, and ends it the hard way after so many seconds."""
        try:
            self._process.wait(timeout=seconds)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()


def visible_gpus() -> list[str]:
    """The GPUs that PyTorch sees here, as ``CUDA_VISIBLE_DEVICES`` takes them."""
    import torch

    named = os.environ.get("CUDA_VISIBLE_DEVICES", "")
    names = [name.strip() for name in named.split(",") if name.strip()]
    count = torch.cuda.device_count() if torch.cuda.is_available() else 0
    return names[:count] if names else [str(i) for i in range(count)]
