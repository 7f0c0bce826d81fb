"""What is known on disk about stages: which have begun, which have finished and how long they took.

Note "the lock of a stage": the process of a stage inherits an open file with a lock. Where the program that started it
was killed, the process works on and the lock is held until it ends; a second start waits for that, then goes on.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import math
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import IO, Any

from ptr_fast.files import write_atomically, writing
from ptr_fast.json_files import parse_json
from ptr_robot.stages.stage import Stage

__all__ = ["Ledger"]


class Ledger:
    """The folders ``stages`` and ``logs`` of a folder of stages.

    Args:
        root: the folder; it is made where there is none.
        machine: written into the mark of each stage that finishes: what it ran on.
    """

    def __init__(self, root: Path, machine: Mapping[str, Any] | None = None) -> None:
        self.machine = dict(machine or {})
        self._stages, self._logs = root / "stages", root / "logs"
        for folder in (self._stages, self._logs):
            folder.mkdir(parents=True, exist_ok=True)

    def log(self, stage: Stage) -> Path:
        """File with everything that the stage's command printed, over all starts."""
        return self._logs / f"{stage.name}.log"

    def finished(self, stage: Stage) -> dict[str, Any] | None:
        """What was written when the stage finished: ``seconds``, ``is_whole``, ``machine``; None where it has not.

        A file that cannot be read counts as not finished: the stage's command finds what is there.
        """
        try:
            row = parse_json(self._done(stage).read_bytes())
            is_sound = 0.0 <= float(row["seconds"]) < math.inf and isinstance(row["machine"], dict)
            return row if is_sound else None
        except (OSError, ValueError, KeyError, TypeError, OverflowError):
            return None

    def finish(self, stage: Stage, exit_code: int, seconds: float) -> None:
        """Writes that the stage has finished. ``seconds``: of its last start, which is the whole only if it was one."""
        row = {"name": stage.name, "kind": stage.kind, "work": stage.work, "exit_code": exit_code}
        is_whole = len(self._started(stage).read_text(encoding="utf-8").splitlines()) == 1
        row |= {"seconds": round(seconds, 2), "is_whole": is_whole, "verb": stage.verb, "machine": self.machine}
        row["finished"] = time.strftime("%Y-%m-%d %H:%M:%S")
        write_atomically(self._done(stage), (json.dumps(row) + "\n").encode())

    @contextlib.contextmanager
    def alone(self) -> Iterator[None]:
        """Around the work of the one program that may start stages here.

        Raises:
            RuntimeError: another one does.
        """
        with open(self._stages / ".lock", "w") as file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError as error:
                raise RuntimeError(f"{self._stages.parent}: another process is running these stages") from error
            yield

    def take_lock(self, stage: Stage) -> IO[str] | None:
        """The stage's lock, to be handed to its process; None while another process has it."""
        file = self.lock_file(stage)
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            file.close()
            return None
        return file

    def lock_file(self, stage: Stage) -> IO[str]:
        """The file that is locked while the stage's process runs."""
        return open(self._stages / f"{stage.name}.lock", "w")

    def command(self, stage: Stage) -> list[str]:
        """The arguments of ``ptr-fast`` that begin a stage, or go on with a training that was stopped half-way.

        Raises:
            ValueError: the run that is there was begun by another command.
        """
        started = self._started(stage)
        if stage.is_training:
            run = Path(stage.verb[stage.verb.index("--out") + 1])
            if (run / "train_config.json").exists():
                if not started.exists():
                    raise ValueError(f"{run}: made with other options; name another --out, or remove {run}")
                return ["resume", str(run)]
        return stage.verb

    def begin(self, stage: Stage) -> None:
        """Notes that the stage's command is about to run, and forgets that it has finished before.

        Raises:
            OSError: the file system refuses; names the file.
        """
        self._done(stage).unlink(missing_ok=True)
        path = self._started(stage)
        with writing(path), open(path, "a", encoding="utf-8") as file:
            file.write(f"{time.strftime('%Y-%m-%d %H:%M:%S')}\n")

    def to_do(self, stages: Sequence[Stage]) -> list[Stage]:
        """Those that have to run, in order: not finished, or finished but what they made is gone and is needed.

        Needed is what a stage to do waits for, and what no other stage waits for: that is what all are there for.
        """
        done = {stage.name for stage in stages if self.finished(stage)}
        needed = {stage.name for stage in stages} - {name for stage in stages for name in stage.after}
        wanted = []
        for stage in reversed(stages):
            is_gone = stage.makes is not None and not stage.makes.exists()
            if stage.name not in done or (is_gone and stage.name in needed):
                wanted.append(stage)
                needed.update(stage.after)
        return wanted[::-1]

    def _done(self, stage: Stage) -> Path:
        return self._stages / f"{stage.name}-{stage.key}.done"

    def _started(self, stage: Stage) -> Path:
        return self._stages / f"{stage.name}-{stage.key}.started"
