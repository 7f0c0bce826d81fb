"""``ptr-fast rollout --robot``: trials on a robot in real time, with their sheet, videos, latencies and one page."""

from __future__ import annotations

import contextlib
import datetime
import json
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from ptr_fast.config import PolicySpec
from ptr_fast.diagnostics import wilson_interval
from ptr_fast.files import write_atomically
from ptr_fast.runtime.control import ControlLoop, LoopConfig, PythonPolicy
from ptr_fast.runtime.playing import PlayConfig
from ptr_fast.runtime.safety import AxisLimits, SafetyFilter, SafetyLimits
from ptr_robot.console.video import VideoWriter, side_by_side
from ptr_robot.report.page import write_page
from ptr_robot.robots import make_robot
from ptr_robot.robots.interface import Robot, camera_names, check_fits, match_cameras
from ptr_robot.robots.limits_file import read_limits
from ptr_robot.trials.contenders import Contender
from ptr_robot.trials.page import decisions_late, pooled_legs, sections, told_late
from ptr_robot.trials.recorder import Recorder
from ptr_robot.trials.session import Operator, SessionResult, run_session
from ptr_robot.trials.sheet import TrialRecord, TrialSheet

__all__ = ["RobotTrials", "robot_options", "run_robot_trials"]

ROBOT_FAILED = ("stopped_arm", "stopped_stale")  # ends of a trial that are the robot's own
POLICY_FAILED = ("stopped_policy", "stopped_not_finite")  # ends where it gave no action that can be sent
MAX_FRAMES, MAX_FRAME_BYTES = 64, 512 << 20  # that wait for the recorder


@dataclass(frozen=True, kw_only=True)
class RobotTrials:
    """How the trials are run.

    Attributes:
        robot, options: as :func:`ptr_robot.robots.make_robot` takes them.
        task: what the policy is told.
        camera_map: ``ROBOT=CHECKPOINT`` pairs of cameras, where the names differ.
        play: how chunks of actions are played.
        num_trials: of each policy. max_steps: of a trial. seed: of order and starts.
        dry_run: the arm gets no commands. realtime_priority: of the loop, 0 for none.
        video: file each trial as ``mp4`` or ``gif``, or ``none``. stop_file: ends the run where it exists.
        limits: file of safety limits (:mod:`ptr_robot.robots.limits_file`) instead of the robot's own.
        record: store that the trials are added to as episodes; None records none.
        out: folder of sheet, videos and page.
    """

    robot: str
    options: dict[str, Any]
    task: str
    camera_map: tuple[str, ...] = ()
    play: PlayConfig = PlayConfig()
    num_trials: int = 20
    max_steps: int = 100
    seed: int = 0
    dry_run: bool = False
    realtime_priority: int = 0
    video: str = "mp4"
    stop_file: Path | None = None
    limits: Path | None = None
    record: Path | None = None
    out: Path


def robot_options(pairs: tuple[str, ...]) -> dict[str, Any]:
    """``NAME=VALUE`` pairs as options; numbers become numbers.

    Raises:
        ValueError: a pair without ``=``, or a name that is given twice.
    """
    options: dict[str, Any] = {}
    for pair in pairs:
        name, equals, value = pair.partition("=")
        if not equals:
            raise ValueError(f"robot-options: expected NAME=VALUE, got {pair!r}")
        name = name.replace("-", "_")
        if name in options:
            raise ValueError(f"robot-options: {name} is given twice")
        try:
            options[name] = json.loads(value)
        except ValueError:
            options[name] = value
    return options


def run_robot_trials(plan: RobotTrials, contenders: list[Contender]) -> int:
    """Runs what the sheet does not have yet, and writes the page.

    Returns:
        0; 128 plus the signal's number where one ended it (run it again to go on).

    Raises:
        ValueError: the robot does not fit a checkpoint, or the sheet is of another evaluation.
        RuntimeError: the robot does not answer, or failed in a trial; what is finished is written.
    """
    robot = make_robot(plan.robot, **plan.options)
    for contender in contenders:
        check_fits(robot, contender.spec, plan.camera_map)
        contender.spec.tasks.slot(plan.task)
    # Checkpoints may name the same axes in different orders.
    limits = {contender.label: _limits(plan, robot, contender.spec) for contender in contenders}
    shown = limits[contenders[0].label]
    about = {
        "robot": plan.robot,
        "options": plan.options,
        "task": plan.task,
        "max_steps": plan.max_steps,
        **({} if plan.play == PlayConfig() else {"play": asdict(plan.play)}),  # sheets of before have no such entry
        "dry_run": plan.dry_run,
        "policies": [contender.about for contender in contenders],
    }
    sheet = TrialSheet(plan.out, about, [contender.label for contender in contenders], plan.num_trials, plan.seed)
    by_label = {contender.label: contender for contender in contenders}
    print(f"safety of {robot.name}:\n  " + "\n  ".join(shown.describe()), flush=True)
    if sheet.records:
        print(f"{plan.out}: {len(sheet.records)} trials are done, {len(sheet.remaining())} to go", flush=True)
    if plan.stop_file is not None and plan.stop_file.exists():
        raise ValueError(f"{plan.stop_file} exists, nothing moves; remove it and run again")
    acting = {contender.label: _acting(plan, robot, contender) for contender in contenders if sheet.remaining()}
    with sheet.held():
        try:
            with contextlib.ExitStack() as stack:
                if plan.record is not None:  # a store that does not fit is refused before anything moves
                    for contender in contenders:
                        _recorder(plan, robot, contender).close()
                stack.enter_context(_connected(robot))
                operator = stack.enter_context(Operator(plan.stop_file))
                broken = _run_remaining(plan, robot, by_label, acting, limits, operator, sheet)
        except BaseException:
            with contextlib.suppress(OSError):  # what went wrong is told, not that its page cannot be written either
                if sheet.records:
                    _write_results(plan, sheet, shown)
            raise
        page = _write_results(plan, sheet, shown)
    for contender in contenders:
        successes, judged = sheet.counts(contender.label)
        low, high = wilson_interval(successes, judged) if judged else (0.0, 1.0)
        who = f"{contender.label}, step {contender.about.get('step', 'unknown')}"
        if way := sheet.way_of(contender.label):
            who += f" ({way})"
        print(f"{who}: {successes}/{judged} succeeded (95 % interval {low:.0%} to {high:.0%})")
    if failed := [trial for trial in sheet.records if trial.reason in POLICY_FAILED and not trial.success]:
        told = f"in {len(failed)} of {len(sheet.records)} trials the policy failed, which is no success: "
        print(f"{told}{failed[-1].message}")
    print(f"wrote {page}")
    if operator.quit_signal:
        return 128 + operator.quit_signal
    if broken:
        numbers = ", ".join(str(trial.index + 1) for trial in broken)
        raise RuntimeError(f"{robot.name} failed in trial {numbers} of {len(sheet.order)}: {broken[-1].message}")
    return 0


@contextlib.contextmanager
def _connected(robot: Robot) -> Iterator[None]:
    robot.connect()
    try:
        yield
    except BaseException:
        with contextlib.suppress(Exception):  # an arm that failed seldom disconnects well: the first error is told
            robot.disconnect()
        raise
    robot.disconnect()


def _run_remaining(
    plan: RobotTrials,
    robot: Robot,
    contenders: dict[str, Contender],
    acting: dict[str, Callable[[int], Any]],
    limits: dict[str, SafetyLimits],
    operator: Operator,
    sheet: TrialSheet,
) -> list[TrialRecord]:
    """Returns the trials that the robot broke, not the policy or a person."""
    broken = []
    for index, label, seed in sheet.remaining():
        if operator.button_pressed():
            print(f"{plan.stop_file} exists, nothing moves; remove it and run again to go on", flush=True)
            break
        record = _trial(plan, robot, contenders[label], acting[label](seed), limits[label], operator, index, seed)
        if operator.quit_signal:
            print(f"stopped in trial {index + 1}, which is not counted; run it again to go on", flush=True)
            break
        sheet.add(record)
        _tell(sheet, record, blinded=len(contenders) > 1)
        if record.reason in ROBOT_FAILED or not record.arm_stopped:
            broken.append(record)
    return broken


def _write_results(plan: RobotTrials, sheet: TrialSheet, limits: SafetyLimits) -> Path:
    page = write_page(plan.out / "report.html", f"{plan.task}: trials on {plan.robot}", sections(sheet, limits))
    _write_result(plan, sheet)
    return page


def _limits(plan: RobotTrials, robot: Robot, spec: PolicySpec) -> SafetyLimits:
    """The robot's limits, or the file's, in the order of the checkpoint's actions and states.

    Raises:
        ValueError: there are none, or they do not fit or are unsafe; names the file.
    """
    if plan.limits is not None:
        file = read_limits(plan.limits)
        for name, unit in zip(spec.action.names, spec.action.units, strict=True):
            if file.units.get(name, unit) != unit:
                told = f"expected unit {unit!r}, as the checkpoint has it, got {file.units[name]!r}"
                raise ValueError(f"{plan.limits}: axis {name!r}: {told}")
        try:
            given = file.limits(spec.action.names, spec.state.names, spec.control_hz)
            SafetyFilter(given)
        except ValueError as error:
            raise ValueError(f"{plan.limits}: {error}") from error
        return given
    limits = robot.limits(spec.control_hz)
    states = [name for name, feature in robot.observation_features.items() if not isinstance(feature, tuple)]
    by_name = {axis.name: axis for axis in limits.axes}

    def placed(axis: AxisLimits) -> AxisLimits:
        return axis if axis.position < 0 else replace(axis, position=spec.state.names.index(states[axis.position]))

    return replace(limits, axes=[placed(by_name[name]) for name in spec.action.names])


def _trial(
    plan: RobotTrials,
    robot: Robot,
    contender: Contender,
    policy: Any,
    limits: SafetyLimits,
    operator: Operator,
    index: int,
    seed: int,
) -> TrialRecord:
    robot.reset(seed)
    spec = contender.spec
    frame_bytes = sum(3 * height * width for height, width in _frame_sizes(plan, robot, spec).values())
    config = LoopConfig(
        hz=spec.control_hz,
        num_steps=plan.max_steps,
        dry_run=plan.dry_run,
        realtime_priority=plan.realtime_priority,
        record_frames=max(min(MAX_FRAMES, MAX_FRAME_BYTES // frame_bytes), 2),
        **asdict(plan.play),
    )
    name = "" if plan.video == "none" else f"trial-{index + 1:03d}.{plan.video}"
    with contextlib.ExitStack() as stack:
        video = stack.enter_context(VideoWriter(plan.out / name, spec.control_hz)) if name else None
        recorder = stack.enter_context(_recorder(plan, robot, contender)) if plan.record is not None else None
        if recorder is not None:
            stamp = datetime.datetime.now(datetime.UTC).strftime("%Y%m%dT%H%M%S%f")
            recorder.begin_episode(f"{plan.robot}-{stamp}-trial-{index + 1}", plan.task, domain=plan.robot)

        def keep(record: np.void, frames: dict[str, np.ndarray] | None) -> None:
            if frames is None:
                return
            if video is not None:
                video.add(side_by_side(list(frames.values())))
            if recorder is not None and record["sent_ns"]:
                recorder.add(frames, record["state"][: spec.state.dim], record["sent"][: spec.action.dim])

        result = run_session(robot, policy, spec, limits, config, operator, plan.camera_map, _Console(index), keep)
        if recorder is not None:
            verdict = {True: "success", False: "failure", None: "unknown"}[result.success]
            recorder.end_episode(verdict, keep=not operator.quit_signal)
    has_video = bool(name) and (plan.out / name).is_file()
    return TrialRecord(**{**_record(result, index, contender.label, seed), "video": name if has_video else ""})


def _acting(plan: RobotTrials, robot: Robot, contender: Contender) -> Callable[[int], Any]:
    """``seed of a trial -> policy`` as the control loop takes it, warmed up; tells what computes the actions."""
    sizes, policy = _frame_sizes(plan, robot, contender.spec), contender.policy
    executor = policy.make_executor(sizes, plan.task)
    if contender.engine:
        inside = {"OpenVinoExecutor": "openvino", "CudaGraphExecutor": "a captured CUDA graph"}
        name = type(executor).__name__
        how = f"{inside[name]} inside the control loop" if name in inside else policy.explain()
        print(f"{contender.label} acts by {how}", flush=True)
    if not isinstance(executor, PythonPolicy):
        return lambda seed: executor
    return lambda seed: policy.make_executor(sizes, plan.task, seed * 100_003 + 1)


def _frame_sizes(plan: RobotTrials, robot: Robot, spec: PolicySpec) -> dict[str, tuple[int, int]]:
    """Camera of the checkpoint -> height and width of the robot's frames, pixels."""
    cameras = match_cameras(robot.name, camera_names(robot), [camera.name for camera in spec.cameras], plan.camera_map)
    return {name: robot.observation_features[own][:2] for name, own in cameras.items()}


def _recorder(plan: RobotTrials, robot: Robot, contender: Contender) -> Recorder:
    assert plan.record is not None
    source = f"{contender.label}, step {contender.about.get('step', 'unknown')}"
    return Recorder(plan.record, contender.spec, _frame_sizes(plan, robot, contender.spec), source=source)


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
        "notes": outcome.notes,
        "interventions": dict(result.interventions),
        "decisions_late": [result.decisions_late[n] for n in range(max(result.decisions_late, default=-1) + 1)],
        "legs_ms": {
            leg: {short: round(values[key] * 1e-6, 4) for short, key in scale.items()}
            for leg, values in outcome.legs.items()
        },
        "histograms": {
            leg: (values["bucket_begin_ns"].tolist(), values["bucket_count"].tolist())
            for leg, values in outcome.legs.items()
        },
    }


def _tell(sheet: TrialSheet, record: TrialRecord, *, blinded: bool) -> None:
    who = "" if blinded else f" of {record.policy}"
    verdict = {True: "success", False: "failure", None: "not judged"}[record.success]
    why = f", {record.reason}: {record.message}" if record.reason else ""
    whole, sent = record.legs_ms["capture_to_command"], sum(record.decisions_late)
    measured = f"frame to command p50 {whole['p50']:.1f} ms, p99 {whole['p99']:.1f} ms, " if sent else ""
    print(
        f"trial {record.index + 1}/{len(sheet.order)}{who}: {verdict} after {record.num_steps} steps{why}; "
        f"{measured}{told_late(decisions_late([record]))}, missed {record.num_missed}",
        flush=True,
    )
    if not record.arm_stopped:
        print("  THE ARM DID NOT CONFIRM THAT IT STOPPED", flush=True)
    for note in (*record.notes, *_slowness(record)):
        print(f"  {note}", flush=True)


def _slowness(record: TrialRecord) -> Iterator[str]:
    """What kept the arm from acting in more than a tenth of a trial's periods."""
    legs, total = record.legs_ms, record.num_steps + record.num_missed
    if record.num_missed > 0.1 * total:
        slowest = max(("policy", "send", "overhead"), key=lambda leg: legs[leg]["p50"])
        took = f"{slowest} took {legs[slowest]['p50']:.0f} ms (p50)"
        yield f"{record.num_missed} of {total} periods passed without a command: {took}"
    if record.num_held > 0.1 * record.num_steps:
        yield f"the arm stood still in {record.num_held} of {record.num_steps} steps for want of a fresh observation"


def _write_result(plan: RobotTrials, sheet: TrialSheet) -> None:
    policies = {}
    for label in sheet.policies:
        successes, judged = sheet.counts(label)
        policies[label] = {
            "step": sheet.step_of(label),
            "acts_by": sheet.way_of(label),
            "successes": successes,
            "judged": judged,
            "interval95": wilson_interval(successes, judged) if judged else None,
        }
    now = datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")
    result = {
        "task": plan.task,
        "robot": plan.robot,
        "written": now,
        "policies": policies,
        "legs_ms": pooled_legs(sheet),
        "decisions_late": decisions_late(sheet.records),
    }
    write_atomically(plan.out / "result.json", (json.dumps(result, indent=1) + "\n").encode())
