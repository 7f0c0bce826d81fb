"""The sheet of an evaluation on a robot: which policy is tried when, and what came of it; it survives a crash.

Policies are tried in a seeded random order within each round, so that nobody knows which one acts, and a robot that
wears out or a light that changes meets all alike. Every finished trial is on disk before the next one begins.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from ptr_fast.errors import DataError
from ptr_fast.files import write_atomically, writing
from ptr_robot.report.runs import told_search

__all__ = ["TrialRecord", "TrialSheet"]


@dataclass(frozen=True, kw_only=True)
class TrialRecord:
    """What came of one trial.

    Attributes:
        index: place in the sheet's order. policy: its label. seed: of the start.
        success: True, False, or None where nobody judged. reason: why the run ended early, or empty. message: in words.
        num_steps, num_missed, num_held, num_dropped_frames, num_unrecorded: as in
            :class:`ptr_fast.runtime.control.Outcome`, as are ``arm_stopped`` and ``notes``.
        interventions, decisions_late: as in :class:`ptr_robot.trials.session.SessionResult`; ``decisions_late`` as a
            list of counts, of 0 periods, 1, ...; empty where it was not counted.
        legs_ms: leg -> ``p50``, ``p95``, ``p99``, ``p999``, ``max``, milliseconds.
        histograms: leg -> (lower bounds of buckets, counts), ns.
        video: file name beside the sheet, or empty.
    """

    index: int
    policy: str
    seed: int
    success: bool | None
    reason: str
    message: str
    num_steps: int
    num_missed: int
    num_held: int
    num_dropped_frames: int
    num_unrecorded: int
    arm_stopped: bool
    notes: list[str] = field(default_factory=list)
    interventions: dict[str, int] = field(default_factory=dict)
    decisions_late: list[int] = field(default_factory=list)
    legs_ms: dict[str, dict[str, float]] = field(default_factory=dict)
    histograms: dict[str, tuple[list[int], list[int]]] = field(default_factory=dict)
    video: str = ""


class TrialSheet:
    """Plan and results of an evaluation in one folder: ``plan.json`` and ``trials.jsonl``.

    Args:
        folder: made where it is missing; a sheet that is there is gone on with.
        about: what identifies the evaluation (robot, task, checkpoints ...); must equal that of a sheet in the folder.
        policies: labels, all different.
        num_trials: of each policy.
        seed: of the order and of the starts.

    Raises:
        ValueError: the folder holds the sheet of another evaluation.
        DataError: the sheet there is broken.
    """

    def __init__(
        self, folder: Path, about: dict[str, Any], policies: Sequence[str], num_trials: int, seed: int = 0
    ) -> None:
        if len(set(policies)) != len(policies) or not policies:
            raise ValueError(f"policies need different labels, got {list(policies)}")
        if num_trials < 1:
            raise ValueError(f"trials must be at least 1, got {num_trials}")
        self.folder, self.about, self.policies = folder, about, list(policies)
        plan = {"about": about, "policies": list(policies), "num_trials": num_trials, "seed": seed}
        self._plan = json.dumps(plan, indent=1) + "\n"
        rng = np.random.default_rng(seed)
        # Round r: every policy once, in its own order, all from the same start.
        self.order = [
            (self.policies[i], int(start))
            for start in rng.integers(0, 2**31, num_trials)
            for i in rng.permutation(len(policies))
        ]
        self._log = folder / "trials.jsonl"
        self.records = self._finished()
        with writing(folder):
            folder.mkdir(parents=True, exist_ok=True)

    @contextlib.contextmanager
    def held(self) -> Iterator[None]:
        """While trials run: the plan is on disk, and no other process writes to the folder or moves the arm for it.

        Raises:
            ValueError: another one does.
        """
        path = self.folder / ".lock"
        with writing(path):
            file = open(path, "w", encoding="utf-8")  # noqa: SIM115 (held until the trials end)
        with file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                raise ValueError(f"{self.folder}: another rollout is running there") from None
            self.records = self._finished()
            write_atomically(self.folder / "plan.json", self._plan.encode())
            yield

    def remaining(self) -> list[tuple[int, str, int]]:
        """Index, policy and seed of the trials that are still to come."""
        done = {record.index for record in self.records}
        return [(i, policy, seed) for i, (policy, seed) in enumerate(self.order) if i not in done]

    def add(self, record: TrialRecord) -> None:
        """Puts a finished trial on disk.

        Raises:
            OSError: it cannot be written; the message names the file.
        """
        with writing(self._log), open(self._log, "a", encoding="utf-8") as file:
            file.write(json.dumps(asdict(record)) + "\n")
            file.flush()
            os.fsync(file.fileno())
        self.records.append(record)

    def counts(self, policy: str) -> tuple[int, int]:
        """Successes and judged trials of a policy."""
        judged = [record.success for record in self.records if record.policy == policy and record.success is not None]
        return sum(judged), len(judged)

    def step_of(self, policy: str) -> int | None:
        """Updates that a policy's checkpoint had done; None where that is not known."""
        return self._about_of(policy).get("step")

    def way_of(self, policy: str) -> str:
        """How a policy acts, in words; empty where that is not known, as of a server of another make."""
        about = self._about_of(policy)
        return about.get("mode", "") + told_search(about)

    def _about_of(self, policy: str) -> dict[str, Any]:
        return next((about for about in self.about["policies"] if about["label"] == policy), {})

    def _finished(self) -> list[TrialRecord]:
        """The trials that are there, of this plan; a plan that began no trial is nobody's."""
        if not self._log.is_file():
            return []
        file, plan = self.folder / "plan.json", json.loads(self._plan)
        there = _read(file) if file.is_file() else plan
        if there != plan:
            different = [
                *(key for key in ("policies", "num_trials", "seed") if there.get(key) != plan[key]),
                *(key for key, value in plan["about"].items() if there.get("about", {}).get(key) != value),
            ]
            raise ValueError(f"{file} is of another evaluation ({', '.join(different)} differ); choose another folder")
        kept, lines = [], self._log.read_bytes().splitlines(keepends=True)
        for number, line in enumerate(lines):
            try:
                kept.append(TrialRecord(**json.loads(line)))
            except (ValueError, TypeError) as error:
                if number < len(lines) - 1 or line.endswith(b"\n"):
                    raise DataError(f"{self._log}: line {number + 1} is not a trial ({error})") from error
                # A line cut short by a crash: that trial is done again.
                write_atomically(self._log, b"".join(lines[:-1]))
        return kept


def _read(file: Path) -> dict[str, Any]:
    try:
        return json.loads(file.read_text(encoding="utf-8"))
    except ValueError as error:
        raise DataError(f"{file}: not JSON ({error})") from error
