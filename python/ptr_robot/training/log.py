"""Where the numbers of a run go: a progress line, ``metrics.jsonl``, TensorBoard, and Weights & Biases if asked."""

from __future__ import annotations

import datetime
import importlib.util
import json
import math
import os
import resource
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch

from ptr_fast.files import write_atomically, writing
from ptr_fast.json_files import parse_json
from ptr_fast.learners.distributed import Ranks
from ptr_fast.learners.traits import Traits

__all__ = ["RunLog", "check_wandb"]


def check_wandb(project: str) -> None:
    """Refuses a run that could not log where it is told to, before anything is written.

    Raises:
        RuntimeError: Weights & Biases is asked for and not installed.
    """
    if project and importlib.util.find_spec("wandb") is None:
        raise RuntimeError(f"--wandb {project}: wandb is not installed (pip install wandb)")


class RunLog:
    """Writes the metrics of a run; going on from a step drops what was written after it.

    Args:
        run_dir: run folder.
        first_step: updates done before this process.
        num_steps: updates of the whole run, for the time left.
        wandb: Weights & Biases project, or empty.
        wandb_id: id of the run there: one over all resumes.
        config: told to Weights & Biases.
        ranks: the processes that train together; the first one writes.
        traits: of the learner: what the progress line shows; None: of its numbers the rates alone.

    Raises:
        OSError: a log cannot be written (no space, read-only); the message names the file. So does every method's.
    """

    def __init__(
        self,
        run_dir: Path,
        first_step: int,
        num_steps: int,
        wandb: str = "",
        wandb_id: str | None = None,
        config: Any = None,
        ranks: Ranks | None = None,
        traits: Traits | None = None,
    ) -> None:
        self.ranks = ranks or Ranks()
        self.num_steps = num_steps
        self.shown = {} if traits is None else traits.progress
        self.rate = f"lr/{traits.rate.removesuffix('_lr')}" if traits is not None else ""
        self.path = run_dir / "metrics.jsonl"
        self.begin = self.last_time = time.monotonic()
        self.first_step = self.last_step = first_step
        self.last_wait = 0.0
        if self.ranks.is_first:
            self._open(wandb, wandb_id, config)

    def _open(self, wandb: str, wandb_id: str | None, config: Any) -> None:
        self._drop_after(self.first_step)
        with writing(self.path):
            self.file = open(self.path, "a", encoding="utf-8")  # noqa: SIM115 (closed in close)
        run_dir = self.path.parent
        self.board = _EventFile(run_dir / "tensorboard", self.first_step + 1)
        self.wandb = None
        if wandb:
            import wandb as wandb_module

            self.wandb = wandb_module.init(
                project=wandb, name=run_dir.name, dir=str(run_dir), config=config, id=wandb_id, resume="allow"
            )

    def _drop_after(self, step: int) -> None:
        if not self.path.is_file():
            return
        kept = []
        for line in self.path.read_bytes().splitlines():
            try:
                if parse_json(line)["step"] <= step:
                    kept.append(line)
            except (ValueError, KeyError):
                break  # a line cut short by a kill is the last one
        write_atomically(self.path, b"".join(line + b"\n" for line in kept))

    def report(
        self,
        step: int,
        info: dict[str, torch.Tensor],
        rates: Mapping[str, float],
        wait_seconds: float,
        busy_seconds: float | None = None,
        measure: Callable[[], dict[str, float]] | None = None,
    ) -> dict[str, float]:
        """Reads the update's numbers back from the device (the only place that does) and writes them everywhere.

        ``rates``: learning rates of the update by optimiser. ``wait_seconds``: waited for data since the start.
        ``busy_seconds``: that a GPU works on a step. ``measure``: asked for metrics on held-out episodes, which are
        written as ``held_out/<name>`` and not returned; its time is told as ``perf/held_out_s`` and counts for no
        other number. With several ranks the numbers are those of the whole batch, the data wait is that of the rank
        that waited longest, and the first one measures.
        """
        info, wait_seconds = self.ranks.whole_batch(info), self.ranks.largest(wait_seconds)
        names = list(info)
        values = torch.stack([info[name].detach().to(torch.float64).reshape(()) for name in names]).tolist()
        numbers = dict(zip(names, values, strict=True))
        numbers |= {f"lr/{name}": float(rate) for name, rate in rates.items()}
        now = time.monotonic()
        elapsed = max(now - self.last_time, 1e-9)
        numbers["perf/steps_per_s"] = (step - self.last_step) / elapsed
        numbers["perf/data_wait_share"] = min(1.0, max(0.0, wait_seconds - self.last_wait) / elapsed)
        if busy_seconds is not None:
            numbers["perf/gpu_busy_share"] = min(1.0, busy_seconds * numbers["perf/steps_per_s"])
        numbers["perf/memory_bytes"] = float(_memory_bytes())
        self._print_line(step, numbers)
        more = {} if measure is None else self._measured(measure)
        self.write(step, {**numbers, **more})
        self.last_time, self.last_step, self.last_wait = time.monotonic(), step, wait_seconds
        return numbers

    def _measured(self, measure: Callable[[], dict[str, float]]) -> dict[str, float]:
        """What the first rank measures on held-out episodes, but for what is not finite; nothing on the others."""
        begin, found = time.monotonic(), {}
        self.ranks.on_first(lambda: found.update(measure()))
        held_out = {f"held_out/{name}": value for name, value in found.items() if math.isfinite(value)}
        return {**held_out, "perf/held_out_s": time.monotonic() - begin}

    def write(self, step: int, numbers: dict[str, float]) -> None:
        """Adds numbers at a step to every log."""
        if not self.ranks.is_first:
            return
        row = {"step": step, "time_s": round(time.monotonic() - self.begin, 3), **numbers}
        with writing(self.path):
            self.file.write(json.dumps(row) + "\n")
            self.file.flush()
        self.board.write(step, numbers)
        if self.wandb:
            self.wandb.log(numbers, step=step)

    def _print_line(self, step: int, numbers: dict[str, float]) -> None:
        pace = (step - self.first_step) / max(time.monotonic() - self.begin, 1e-9)
        left = datetime.timedelta(seconds=int((self.num_steps - step) / pace) if pace > 0 else 0)
        shown = "  ".join(f"{short} {numbers[key]:.3g}" for key, short in self.shown.items() if key in numbers)
        rate = numbers.get(self.rate, next((v for key, v in numbers.items() if key.startswith("lr/")), None))
        shown += "" if rate is None else f"  lr {rate:.3g}"
        share = numbers.get("perf/gpu_busy_share")
        shares = "" if share is None else f"GPU busy {share:.0%}  "
        shares += f"data wait {numbers['perf/data_wait_share']:.0%}"
        print(
            f"step {step}/{self.num_steps}  {numbers['perf/steps_per_s']:.1f} steps/s  left {left}  {shown}  "
            f"{shares}  mem {numbers['perf/memory_bytes'] / 2**30:.2f} GiB",
            flush=True,
        )

    def close(self) -> None:
        if not self.ranks.is_first:
            return
        with writing(self.path):
            self.file.close()
        self.board.close()
        if self.wandb:
            self.wandb.finish()


class _EventFile:
    """Scalars in TensorBoard's format; written here and now, so that a full disk is an error of this thread.

    Args:
        folder: where TensorBoard looks.
        first_step: what TensorBoard has seen of this step and later ones was undone.
    """

    def __init__(self, folder: Path, first_step: int) -> None:
        from tensorboard.compat.proto.event_pb2 import Event, SessionLog
        from tensorboard.summary.writer.record_writer import RecordWriter

        self.path = folder / f"events.out.tfevents.{time.time_ns() // 1000}.{os.getpid()}"
        with writing(self.path):
            folder.mkdir(parents=True, exist_ok=True)
            self.file = open(self.path, "wb")  # noqa: SIM115 (closed in close)
        self.records = RecordWriter(self.file)
        start = SessionLog(status=SessionLog.START)
        self._add(
            Event(wall_time=time.time(), file_version="brain.Event:2"),
            Event(wall_time=time.time(), step=first_step, session_log=start),
        )

    def write(self, step: int, numbers: dict[str, float]) -> None:
        """Adds numbers at a step."""
        from tensorboard.compat.proto.event_pb2 import Event
        from tensorboard.compat.proto.summary_pb2 import Summary

        values = [Summary.Value(tag=name, simple_value=value) for name, value in numbers.items()]
        self._add(Event(wall_time=time.time(), step=step, summary=Summary(value=values)))

    def _add(self, *events: Any) -> None:
        with writing(self.path):
            for event in events:
                self.records.write(event.SerializeToString())
            self.file.flush()

    def close(self) -> None:
        with writing(self.path):
            self.file.close()


def _memory_bytes() -> int:
    if torch.cuda.is_available():
        return torch.cuda.max_memory_allocated()
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
