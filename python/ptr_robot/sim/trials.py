"""Trials of a policy in a toy kitchen: the same seeded starts for every policy, success as the simulator sees it."""

from __future__ import annotations

import json
import time
import zlib
from collections import deque
from collections.abc import Callable, Container, Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np

from ptr_fast.errors import DataError
from ptr_fast.files import write_atomically, writing
from ptr_fast.runtime.control import Play
from ptr_fast.runtime.observation import Observation
from ptr_fast.runtime.playing import PlayConfig
from ptr_robot.console.video import write_video
from ptr_robot.sim.environment import CAMERA_NAME, KitchenEnv, Observe, make_environment
from ptr_robot.sim.policies import ActingPolicy, PolicySource, TellsOfSteering
from ptr_robot.sim.tasks import find_task
from ptr_robot.sim.worlds import PutWorld, StartRange, World

__all__ = ["Filming", "Trial", "TrialPlan", "run_trials", "trial_seed"]


@dataclass(frozen=True, kw_only=True)
class TrialPlan:
    """Everything that the outcome of a trial depends on, besides the policy.

    Attributes:
        task, kitchen: where. seed: of all starts.
        policy_task: what the policy is told; empty: ``task``.
        image_size, action_repeat, max_steps, start, distractors: as in
            :class:`~ptr_robot.sim.environment.KitchenEnv`; a trial ends at the first state of success.
        cameras: of the kitchen, in the order of the checkpoint's; observe: ``state`` tells the positions of object and
            container instead, and draws nothing.
        frame_delay, state_delay: so many decisions old are the frame and the state that the policy sees, 0 or more, as
            with a late camera and a late arm; the first one is seen until then. Both together are actions that act so
            late.
        play, execute, ensemble_decay: how chunks of actions are played, as in
            :class:`ptr_fast.runtime.playing.PlayConfig`; ``latency`` knows the ``frame_delay``.
    """

    task: str
    kitchen: str
    seed: int = 0
    policy_task: str = ""
    image_size: int = 64
    action_repeat: int = 4
    max_steps: int = 60
    start: StartRange = "easy"
    distractors: int = 0
    frame_delay: int = 0
    state_delay: int = 0
    play: Play = "receding"
    execute: int = 0
    ensemble_decay: float = 0.01
    cameras: tuple[str, ...] = (CAMERA_NAME,)
    observe: Observe = "frames"

    def __post_init__(self) -> None:
        for name in ("frame_delay", "state_delay"):
            if getattr(self, name) < 0:
                raise ValueError(f"{name} must not be negative, got {getattr(self, name)}")

    def environment(self) -> KitchenEnv:
        names = ("cameras", "observe", "image_size", "action_repeat", "max_steps", "start")
        options = {name: getattr(self, name) for name in names}
        return make_environment(self.task, self.kitchen, distractors=self.distractors, hold_steps=0, **options)


@dataclass(frozen=True, kw_only=True)
class Trial:
    """What came of one trial.

    Attributes:
        index: within the plan. seed: of its start, the same for every policy.
        success: the task was done within the time. num_steps: decisions until then, or all.
        reached: the fingertips came within 3 cm of the object; None where there is no object to pick up.
        lifted: the object was raised by 4 cm; None likewise.
        act_ms: mean time of one ``act``, milliseconds. video: file name, or empty.
        steering: of a policy that a critic steers, its counts; files have no such entry of others.
    """

    index: int
    seed: int
    success: bool
    num_steps: int
    reached: bool | None
    lifted: bool | None
    act_ms: float
    video: str = ""
    steering: dict[str, float] | None = None

    def as_dict(self) -> dict[str, Any]:
        """As it is written."""
        return {name: value for name, value in asdict(self).items() if name != "steering" or value is not None}


@dataclass(frozen=True, kw_only=True)
class Filming:
    """Which trials become films, one file each.

    Attributes:
        folder: of the files. kind: of file, also its ending.
        number: so many of the first trials, or of each outcome.
        of: ``first`` trials, or ``outcomes``: the first successes and the first failures, which are played once more.
        size: height and width, pixels.
    """

    folder: Path
    kind: Literal["gif", "mp4"]
    number: int
    of: Literal["first", "outcomes"] = "first"
    size: int = 256

    def path(self, index: int) -> Path:
        """The file of a trial."""
        return self.folder / f"trial_{index:03d}.{self.kind}"


@dataclass(frozen=True, kw_only=True)
class _Job:
    plan: TrialPlan
    source: PolicySource
    index: int
    filming: Filming | None = None


def trial_seed(seed: int, index: int) -> int:
    """Seed of the start of trial ``index``; apart from every demonstration's."""
    return int(np.random.SeedSequence([seed, zlib.crc32(b"trial"), index]).generate_state(1)[0])


def run_trials(
    source: PolicySource,
    plan: TrialPlan,
    num_trials: int,
    *,
    num_workers: int = 1,
    log: Path | None = None,
    about: dict[str, Any] | None = None,
    filming: Filming | None = None,
    each: Callable[[Trial], None] | None = None,
) -> list[Trial]:
    """Trials 0 to ``num_trials - 1`` of a policy.

    Args:
        source: of the policy. plan: where and how.
        num_workers: processes; each acts on one thread.
        log: JSON lines file; every finished trial is there at once, and a later call with the same plan and ``about``
            runs only the others.
        about: what else identifies these trials (policy, checkpoint, mode).
        filming: which of them are filmed; None: none.
        each: called after each trial, also for those found in the log.

    Returns:
        The trials in order.

    Raises:
        ValueError: the task or kitchen is unknown, the policy does not fit, or the log has trials of something else.
        RuntimeError: a worker died, no OpenGL context can be made, or another call began its own trials in the log.
        DataError: the log holds something that no trial is. OSError: it cannot be written.
    """
    from ptr_robot.sim.workers import ordered_map

    if num_trials < 1:
        raise ValueError(f"trials must be at least 1, got {num_trials}")
    find_task(plan.task)
    header = json.loads(json.dumps({"plan": asdict(plan), **(about or {})}))
    done = _read_log(log, header) if log else {}
    first = () if filming is None or filming.of != "first" else range(filming.number)
    trials = {
        i: trial for i, trial in done.items() if i < num_trials and (i not in first or _is_filmed(filming, trial))
    }
    for index in sorted(trials):
        if each:
            each(trials[index])
    if log:
        _start_log(log, header, done)

    def play(indices: Iterable[int], filmed: Container[int]) -> Iterator[Trial]:
        jobs = [
            _Job(plan=plan, source=source, index=index, filming=filming if index in filmed else None)
            for index in indices
        ]
        for trial in ordered_map(_run_job, jobs, min(num_workers, max(1, len(jobs)))):
            trials[trial.index] = trial
            if log:
                _add_to_log(log, header, trial)
            yield trial

    for trial in play([index for index in range(num_trials) if index not in trials], first):
        if each:
            each(trial)
    if filming is not None and filming.of == "outcomes":
        wanted = [trial for trial in _first_of_each_outcome(trials, filming.number) if not _is_filmed(filming, trial)]
        again = [trial.index for trial in wanted]
        for _ in play(again, again):
            pass
    return [trials[index] for index in sorted(trials)]


def _first_of_each_outcome(trials: Mapping[int, Trial], number: int) -> list[Trial]:
    """The first ``number`` successes and as many failures, as far as there are so many."""
    ordered = [trials[index] for index in sorted(trials)]
    return [trial for wanted in (True, False) for trial in [t for t in ordered if t.success is wanted][:number]]


_bench: dict[tuple[Any, ...], tuple[KitchenEnv, ActingPolicy]] = {}  # the process's latest environment and policy


def _run_job(job: _Job) -> Trial:
    name = (job.plan, job.source)
    if name not in _bench:
        for env, _ in _bench.values():
            env.close()
        _bench.clear()
        env = job.plan.environment()
        _bench[name] = (env, job.source.make(env, _play_of(job.plan), job.plan.frame_delay))
    env, policy = _bench[name]
    trial, frames = _run(env, policy, job)
    if job.filming is None:
        return trial
    path = job.filming.path(job.index)
    path.parent.mkdir(parents=True, exist_ok=True)
    write_video(path, frames, env.control_hz / 2)
    return replace(trial, video=path.name)


def _play_of(plan: TrialPlan) -> PlayConfig:
    return PlayConfig(play=plan.play, execute=plan.execute, ensemble_decay=plan.ensemble_decay)


def _run(env: KitchenEnv, policy: ActingPolicy, job: _Job) -> tuple[Trial, list[np.ndarray]]:
    plan, seed = job.plan, trial_seed(job.plan.seed, job.index)
    observation, _ = env.reset(seed=seed)
    frames = [env.picture(job.filming.size)] if job.filming else []
    watch = _Watch(env.world)
    seconds, num_steps, ended, info = 0.0, 0, False, {"success": False}
    images = deque([env.images(observation)] * (plan.frame_delay + 1), plan.frame_delay + 1)
    states = deque([observation["state"]] * (plan.state_delay + 1), plan.state_delay + 1)
    still = np.array([0, 0, 0, -1], np.float32)
    policy.reset()
    while not ended:
        begin = time.perf_counter()
        seen = Observation(images[0], states[0], plan.policy_task or plan.task)
        answer = policy.act(seen, seed=_step_seed(seed, num_steps))
        seconds += time.perf_counter() - begin
        action = still if answer is None else answer  # its chunk has run out: the hand stands still
        still[3] = action[3]  # and the gripper stays as it is
        observation, _, terminated, truncated, info = env.step(action)
        images.append(env.images(observation))
        states.append(observation["state"])
        num_steps += 1
        ended = terminated or truncated
        watch.look()
        if job.filming:
            frames.append(env.picture(job.filming.size))
    trial = Trial(
        index=job.index,
        seed=seed,
        success=bool(info["success"]),
        num_steps=num_steps,
        reached=watch.reached,
        lifted=watch.lifted,
        act_ms=round(1000.0 * seconds / num_steps, 3),
        steering=policy.steering() if isinstance(policy, TellsOfSteering) else None,
    )
    return trial, frames


def _step_seed(seed: int, step: int) -> int:
    return (seed * 1000 + step) % 2**63


class _Watch:
    """How far a put trial came, for the failures."""

    def __init__(self, world: World) -> None:
        self.world = world if isinstance(world, PutWorld) else None
        self.reached: bool | None = None if self.world is None else False
        self.lifted: bool | None = self.reached
        self.start_height = 0.0 if self.world is None else self.world.item_position()[2]

    def look(self) -> None:
        if self.world is None:
            return
        item = self.world.item_position()
        self.reached = bool(self.reached or np.linalg.norm(self.world.fingertips() - item) < 0.03)
        self.lifted = bool(self.lifted or item[2] > self.start_height + 0.04)


def _is_filmed(filming: Filming | None, trial: Trial) -> bool:
    """Whether its film is there."""
    if filming is None:
        return False
    path = filming.path(trial.index)
    return trial.video == path.name and path.is_file()


def _read_log(path: Path, header: dict[str, Any]) -> dict[int, Trial]:
    """The trials in a log with this header; the line that a killed process was writing is left out."""
    if not path.is_file():
        return {}
    rows = list(_json_lines(path))
    if not rows:
        return {}
    is_header = isinstance(rows[0], dict) and isinstance(rows[0].get("plan"), dict)
    if is_header:
        for name in ("frame_delay", "state_delay", "play", "execute", "ensemble_decay"):  # logs from before they were
            rows[0]["plan"].setdefault(name, getattr(TrialPlan, name))
        rows[0]["plan"].setdefault("cameras", list(TrialPlan.cameras))
        rows[0]["plan"].setdefault("observe", TrialPlan.observe)
    if rows[0] != header and len(rows) > 1 and is_header:
        told = f"has trials of another evaluation ({_unlike(rows[0], header)})"
        raise ValueError(f"{path}: {told}; name another --out, or remove it")
    if rows[0] != header:
        return {}
    try:
        return {row["index"]: Trial(**row) for row in rows[1:]}
    except (KeyError, TypeError) as error:
        raise DataError(f"{path}: not a log of trials ({error!r}); remove it, and they run again") from error


def _unlike(there: dict[str, Any], wanted: dict[str, Any]) -> str:
    """The first value that differs between two headers."""
    there, wanted = ({**header, **header["plan"], "plan": None} for header in (there, wanted))
    name = next(name for name in {**wanted, **there} if there.get(name) != wanted.get(name))
    return f"{name} {there.get(name)!r} instead of {wanted.get(name)!r}"


def _json_lines(path: Path) -> Iterator[Any]:
    for line in path.read_bytes().splitlines():
        try:
            yield json.loads(line)
        except ValueError:
            return


def _start_log(path: Path, header: dict[str, Any], trials: dict[int, Trial]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    lines = [header, *(trials[index].as_dict() for index in sorted(trials))]
    write_atomically(path, b"".join(map(_line, lines)))


def _add_to_log(path: Path, header: dict[str, Any], trial: Trial) -> None:
    """Adds a trial, unless the log is of other trials by now: it would count among theirs."""
    with writing(path), open(path, "r+b") as file:
        if file.readline() != _line(header):
            raise RuntimeError(f"{path}: another call began other trials here; give each its own --out")
        file.seek(0, 2)
        file.write(_line(trial.as_dict()))


def _line(value: dict[str, Any]) -> bytes:
    return (json.dumps(value) + "\n").encode()
