"""``ptr-fast rollout --robot``: trials on a robot in real time, with their sheet, videos, latencies and one page."""

from __future__ import annotations

import datetime
import json
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape
from pathlib import Path
from typing import Any

import numpy as np

from ptr_fast.config import PolicySpec, TaskTable
from ptr_fast.diagnostics import wilson_interval
from ptr_fast.files import write_atomically
from ptr_fast.runtime.control import ControlLoop, LoopConfig
from ptr_fast.runtime.policy import Policy
from ptr_fast.runtime.safety import SafetyLimits, names_of
from ptr_fast.types import ActionSpec, CameraSpec, StateSpec
from ptr_robot.report.page import Section, write_page
from ptr_robot.report.plots import Series, interval_bar, line_chart
from ptr_robot.robots import make_robot
from ptr_robot.robots.interface import Robot, check_fits
from ptr_robot.serving.client import RemotePolicy
from ptr_robot.session import Operator, SessionResult, run_session
from ptr_robot.trial_sheet import TrialRecord, TrialSheet
from ptr_robot.video import write_video

__all__ = [
    "Contender",
    "RemoteActing",
    "RobotTrials",
    "load_contenders",
    "remote_contender",
    "robot_options",
    "run_robot_trials",
]

LEGS = {
    "jitter": "wakes after its time",
    "frame_age": "frame to policy",
    "policy": "policy",
    "overhead": "the loop's own",
    "send": "command to arm",
    "capture_to_command": "frame to command sent",
}


@dataclass(frozen=True, kw_only=True)
class Contender:
    """A policy that is tried: its label, its acting (``act`` as in Policy), and what it was trained for."""

    label: str
    policy: Any
    spec: Any
    about: dict[str, Any]


@dataclass(frozen=True, kw_only=True)
class RobotTrials:
    """How the trials are run.

    Attributes:
        robot, options: as :func:`ptr_robot.robots.make_robot` takes them.
        task: what the policy is told. camera: of the robot; empty where it has one.
        num_trials: of each policy. max_steps: of a trial. seed: of order and starts.
        dry_run: the arm gets no commands. realtime_priority: of the loop, 0 for none.
        video: file each trial as ``mp4`` or ``gif``, or ``none``. stop_file: ends the run where it exists.
        out: folder of sheet, videos and page.
    """

    robot: str
    options: dict[str, Any]
    task: str
    camera: str = ""
    num_trials: int = 20
    max_steps: int = 100
    seed: int = 0
    dry_run: bool = False
    realtime_priority: int = 0
    video: str = "mp4"
    stop_file: Path | None = None
    out: Path


def robot_options(pairs: tuple[str, ...]) -> dict[str, Any]:
    """``NAME=VALUE`` pairs as options; numbers become numbers.

    Raises:
        ValueError: a pair without ``=``.
    """
    options: dict[str, Any] = {}
    for pair in pairs:
        name, equals, value = pair.partition("=")
        if not equals:
            raise ValueError(f"robot-options: expected NAME=VALUE, got {pair!r}")
        try:
            options[name.replace("-", "_")] = json.loads(value)
        except ValueError:
            options[name.replace("-", "_")] = value
    return options


def run_robot_trials(plan: RobotTrials, contenders: list[Contender]) -> int:
    """Runs what the sheet does not have yet, and writes the page.

    Returns:
        0; 128 plus the signal's number where one ended it (run it again to go on).

    Raises:
        ValueError: the robot does not fit a checkpoint, or the sheet is of another evaluation.
        RuntimeError: the robot does not answer.
    """
    robot = make_robot(plan.robot, **plan.options)
    for contender in contenders:
        check_fits(robot, contender.spec, plan.camera)
        contender.spec.tasks.slot(plan.task)
    limits = _limits(robot, contenders[0].spec.control_hz)
    about = {
        "robot": plan.robot,
        "options": plan.options,
        "task": plan.task,
        "max_steps": plan.max_steps,
        "dry_run": plan.dry_run,
        "policies": [contender.about for contender in contenders],
    }
    sheet = TrialSheet(plan.out, about, [contender.label for contender in contenders], plan.num_trials, plan.seed)
    by_label = {contender.label: contender for contender in contenders}
    print(f"safety of {robot.name}:\n  " + "\n  ".join(limits.describe()), flush=True)
    if sheet.records:
        print(f"{plan.out}: {len(sheet.records)} trials are done, {len(sheet.remaining())} to go", flush=True)
    robot.connect()
    try:
        with Operator(plan.stop_file) as operator:
            for index, label, seed in sheet.remaining():
                record = _trial(plan, robot, by_label[label], limits, operator, index, seed)
                if operator.quit_signal:
                    print(f"stopped in trial {index + 1}, which is not counted; run it again to go on", flush=True)
                    break
                sheet.add(record)
                _tell(sheet, record, blinded=len(contenders) > 1)
    finally:
        robot.disconnect()
    page = write_page(plan.out / "report.html", f"{plan.task}: trials on {plan.robot}", _sections(sheet, limits))
    _write_result(plan, sheet)
    for contender in contenders:
        successes, judged = sheet.counts(contender.label)
        low, high = wilson_interval(successes, judged) if judged else (0.0, 1.0)
        print(f"{contender.label}: {successes}/{judged} succeeded (95 % interval {low:.0%} to {high:.0%})")
    print(f"wrote {page}")
    return 128 + operator.quit_signal if operator.quit_signal else 0


def _limits(robot: Robot, hz: float) -> SafetyLimits:
    limits = getattr(robot, "limits", None)
    if limits is None:
        raise ValueError(f"{robot.name}: no safety limits are known for this robot; nothing moves without them")
    return limits(hz)


def _trial(
    plan: RobotTrials,
    robot: Robot,
    contender: Contender,
    limits: SafetyLimits,
    operator: Operator,
    index: int,
    seed: int,
) -> TrialRecord:
    reset = getattr(robot, "reset", None)
    if reset is not None:
        reset(seed)
    config = LoopConfig(
        hz=contender.spec.control_hz,
        num_steps=plan.max_steps,
        dry_run=plan.dry_run,
        realtime_priority=plan.realtime_priority,
        record_frames=64,
    )
    steps = 0

    def act(frame: np.ndarray, state: np.ndarray) -> np.ndarray:
        nonlocal steps
        steps += 1
        return contender.policy.act(frame, state, plan.task, seed=seed * 100_003 + steps)

    result = run_session(robot, act, contender.spec, limits, config, operator, plan.camera, watch=_Console(index))
    record = _record(result, index, contender.label, seed)
    video = _write_video(plan, result, record, contender.spec.control_hz)
    return TrialRecord(**{**record, "video": video})


class _Console:
    """One line about once a second while a trial runs."""

    def __init__(self, index: int) -> None:
        self._index, self._calls = index, 0

    def __call__(self, loop: ControlLoop) -> None:
        self._calls += 1
        if self._calls % 10:
            return
        outcome = loop.outcome()
        whole, policy = outcome.legs["capture_to_command"], outcome.legs["policy"]
        print(
            f"  trial {self._index + 1}  step {outcome.num_steps}  frame to command p50 {whole['p50_ns'] * 1e-6:.1f} "
            f"p99 {whole['p99_ns'] * 1e-6:.1f} ms  policy {policy['p50_ns'] * 1e-6:.1f} ms  "
            f"missed {outcome.num_missed}  held {outcome.num_held}",
            flush=True,
        )


def _record(result: SessionResult, index: int, label: str, seed: int) -> dict[str, Any]:
    outcome = result.outcome
    interventions: Counter[str] = Counter()
    for record in result.records:
        interventions.update(names_of(int(record["interventions"])))
    scale = {"p50": "p50_ns", "p95": "p95_ns", "p99": "p99_ns", "p999": "p999_ns", "max": "max_ns"}
    done = outcome.reason == "stopped_operator" and outcome.message == "done"
    return {
        "index": index,
        "policy": label,
        "seed": seed,
        "success": result.success,
        "reason": "" if done else outcome.reason,
        "message": "" if done else outcome.message,
        "num_steps": outcome.num_steps,
        "num_missed": outcome.num_missed,
        "num_held": outcome.num_held,
        "num_dropped_frames": outcome.num_dropped_frames,
        "num_unrecorded": outcome.num_unrecorded,
        "arm_stopped": outcome.arm_stopped,
        "interventions": dict(interventions),
        "legs_ms": {
            leg: {short: round(values[key] * 1e-6, 4) for short, key in scale.items()}
            for leg, values in outcome.legs.items()
        },
        "histograms": {
            leg: (values["bucket_begin_ns"].tolist(), values["bucket_count"].tolist())
            for leg, values in outcome.legs.items()
        },
    }


def _write_video(plan: RobotTrials, result: SessionResult, record: dict[str, Any], hz: float) -> str:
    frames = [frame for frame in result.frames if frame is not None]
    if plan.video == "none" or not frames:
        return ""
    path = plan.out / f"trial-{record['index'] + 1:03d}.{plan.video}"
    write_video(path, frames, hz)
    return path.name


def _tell(sheet: TrialSheet, record: TrialRecord, *, blinded: bool) -> None:
    who = "" if blinded else f" of {record.policy}"
    verdict = {True: "success", False: "failure", None: "not judged"}[record.success]
    why = f", {record.reason}: {record.message}" if record.reason else ""
    whole = record.legs_ms["capture_to_command"]
    print(
        f"trial {record.index + 1}/{len(sheet.order)}{who}: {verdict} after {record.num_steps} steps{why}; "
        f"frame to command p50 {whole['p50']:.1f} ms, p99 {whole['p99']:.1f} ms, missed {record.num_missed}",
        flush=True,
    )


def _write_result(plan: RobotTrials, sheet: TrialSheet) -> None:
    policies = {}
    for label in sheet.policies:
        successes, judged = sheet.counts(label)
        policies[label] = {
            "successes": successes,
            "judged": judged,
            "interval95": wilson_interval(successes, judged) if judged else None,
        }
    now = datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")
    result = {"task": plan.task, "robot": plan.robot, "written": now, "policies": policies, "legs_ms": _pooled(sheet)}
    write_atomically(plan.out / "result.json", (json.dumps(result, indent=1) + "\n").encode())


def _histogram(sheet: TrialSheet, leg: str) -> tuple[np.ndarray, np.ndarray]:
    """Lower bounds (ns) and counts of one leg over all trials."""
    total: Counter[int] = Counter()
    for record in sheet.records:
        begins, counts = record.histograms.get(leg, ([], []))
        total.update(dict(zip(begins, counts, strict=True)))
    bounds = sorted(total)
    return np.array(bounds, np.int64), np.array([total[b] for b in bounds], np.int64)


def _pooled(sheet: TrialSheet) -> dict[str, dict[str, float]]:
    """Percentiles of every leg over all trials, ms."""
    out = {}
    for leg in LEGS:
        bounds, counts = _histogram(sheet, leg)
        if counts.sum() == 0:
            continue
        share = np.cumsum(counts) / counts.sum()
        values = {name: float(bounds[np.searchsorted(share, p)]) * 1e-6 for name, p in _SHARES.items()}
        out[leg] = {**values, "max": max(record.legs_ms[leg]["max"] for record in sheet.records)}
    return out


_SHARES = {"p50": 0.5, "p95": 0.95, "p99": 0.99, "p999": 0.999}


def _sections(sheet: TrialSheet, limits: SafetyLimits) -> list[Section]:
    return [
        Section(heading="Success", body=_success_table(sheet)),
        Section(heading="Latency", body=_latency_table(sheet)),
        Section(heading="Safety", body=_safety_table(sheet, limits)),
        Section(heading="Trials", body=_trial_table(sheet)),
    ]


def _table(head: list[str], rows: list[list[str]]) -> str:
    cells = "".join(f"<th>{escape(h)}</th>" for h in head)
    body = "".join("<tr>" + "".join(f"<td>{cell}</td>" for cell in row) + "</tr>" for row in rows)
    return f'<div class="scroll"><table><thead><tr>{cells}</tr></thead><tbody>{body}</tbody></table></div>'


def _success_table(sheet: TrialSheet) -> str:
    rows = []
    for label in sheet.policies:
        successes, judged = sheet.counts(label)
        low, high = wilson_interval(successes, judged) if judged else (0.0, 1.0)
        bar = interval_bar(successes / judged if judged else 0.0, low, high, label=f"{successes} of {judged}")
        rows.append([escape(label), f"{successes} / {judged}", bar, f"{low:.0%} to {high:.0%}"])
    return _table(["policy", "success", "0 to 100 %", "95 % interval (Wilson)"], rows)


def _latency_table(sheet: TrialSheet) -> str:
    pooled = _pooled(sheet)
    rows = [
        [escape(LEGS[leg]), *(f"{values[name]:.3g}" for name in (*_SHARES, "max"))] for leg, values in pooled.items()
    ]
    if not rows:
        return ""
    charts = []
    for leg in ("capture_to_command", "jitter"):
        bounds, counts = _histogram(sheet, leg)
        if counts.sum():
            # Eight buckets to a doubling are enough for a picture.
            key = np.floor(8 * np.log2(np.maximum(bounds, 1))).astype(int)
            merged = Counter[int]()
            for k, count in zip(key.tolist(), counts.tolist(), strict=True):
                merged[k] += count
            keys = range(min(merged) - 1, max(merged) + 2)
            x, y = [2 ** ((k + 0.5) / 8) * 1e-6 for k in keys], [merged.get(k, 0) for k in keys]
            series = Series(label=LEGS[leg], x=np.log10(x), y=np.array(y, float))
            charts.append(
                f"<h3>{escape(LEGS[leg])}: steps over log10(ms)</h3>"
                + line_chart([series], title=LEGS[leg], x_label="log10 of milliseconds", zero_line=True)
            )
    return _table(["leg, ms", "p50", "p95", "p99", "p99.9", "max"], rows) + "".join(charts)


def _safety_table(sheet: TrialSheet, limits: SafetyLimits) -> str:
    total: Counter[str] = Counter()
    for record in sheet.records:
        total.update(record.interventions)
    steps = sum(record.num_steps for record in sheet.records)
    rows = [[escape(name), str(count), f"{count / max(steps, 1):.1%}"] for name, count in total.most_common()]
    lines = "".join(f"<li>{escape(line)}</li>" for line in limits.describe())
    table = _table(["the filter did", "steps", "share"], rows) if rows else "<p>The filter changed nothing.</p>"
    return f"{table}<p>Limits:</p><ul>{lines}</ul>"


def _trial_table(sheet: TrialSheet) -> str:
    rows = []
    for record in sheet.records:
        verdict = {True: "success", False: "failure", None: "not judged"}[record.success]
        rows.append(
            [
                str(record.index + 1),
                escape(record.policy),
                verdict,
                str(record.num_steps),
                str(record.num_missed),
                str(record.num_held),
                escape(f"{record.reason} {record.message}".strip()),
                escape(record.video),
            ]
        )
    return _table(["trial", "policy", "verdict", "steps", "missed", "held", "ended early by", "video"], rows)


def load_contenders(checkpoints: Sequence[Path], labels: Sequence[str], mode: str, device: str) -> list[Contender]:
    """The policies of some checkpoints."""
    contenders = []
    for path, label in zip(checkpoints, labels, strict=True):
        policy = Policy.load(path, device, mode or None)
        about = {"label": label, "checkpoint": str(policy.info.path), "step": policy.info.step, "mode": policy.mode}
        contenders.append(Contender(label=label, policy=policy, spec=policy.spec, about=about))
    return contenders


class RemoteActing:
    """A policy server as a policy: no answer makes the arm stand still; none for ``GIVE_UP_S`` is an error.

    Args:
        url, token: of the server.
    """

    GIVE_UP_S = 2.0

    def __init__(self, url: str, token: str = "") -> None:
        self._remote = RemotePolicy(url, token)
        self.metadata = self._remote.metadata
        self._failing_since: float | None = None

    def act(self, image: np.ndarray, state: np.ndarray, task: str, seed: int = 0) -> np.ndarray | None:
        try:
            action = self._remote.act(image, state, task)
        except RuntimeError:
            now = time.monotonic()
            self._failing_since = self._failing_since or now
            if now - self._failing_since > self.GIVE_UP_S:
                raise
            return None
        self._failing_since = None
        return action


def remote_contender(url: str, token: str = "") -> Contender:
    """The policy behind a server; what it sees and commands is in the server's metadata.

    Raises:
        RuntimeError: nobody answers. ValueError: the server is not one of ours.
    """
    acting = RemoteActing(url, token)
    about = acting.metadata
    try:
        image, state, action = about["image"], about["state"], about["action"]
        spec = PolicySpec(
            camera=CameraSpec(name=image["camera"], height=image["height"], width=image["width"]),
            state=StateSpec(names=tuple(state["names"]), units=tuple(state["units"])),
            action=ActionSpec(**{key: tuple(action[key]) for key in ("names", "units", "low", "high")}),
            tasks=TaskTable(names=tuple(about["tasks"]["names"]), num_slots=len(about["tasks"]["names"])),
            control_hz=float(about["control_hz"]),
        )
    except (KeyError, TypeError) as error:
        raise ValueError(f"{url}: its metadata does not say what the policy sees and commands ({error!r})") from error
    label = str(about.get("checkpoint", url))
    return Contender(label=label, policy=acting, spec=spec, about={"label": label, "server": url})
