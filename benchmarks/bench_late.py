"""Trials with late cameras in real time, beside lock step with frames that are as many decisions old.

``python -m benchmarks.bench_late [CHECKPOINT]``: the toy kitchen as a robot whose camera delivers each frame 0, 20, 50
and 100 ms after it was taken (and twice with a state that is as late), from the starts of the lock step. Two things are
told apart: how old frames are when they are acted on (that is the loop's affair: the camera's own lateness and a fifth
of a period, no more), and what so old an observation costs (that is the policy's: the lock step with the same delay
pays it too, with the same safety filter behind the policy, as without one it is another contest). Without a checkpoint
one is cloned from 200 expert episodes first, in outputs/bench_late (some minutes on one core).

The simulated arm shares the machine with whatever else runs there, as a real one does not: where it is permitted, the
arm runs under SCHED_RR and the loop under SCHED_FIFO. ``PTR_FAST_BENCH_ROUNDS`` times 20 trials are run in turns.
"""

from __future__ import annotations

import contextlib
import math
import os
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import torch

from benchmarks.harness import environment, record, rounds
from ptr_fast.runtime.control import LoopConfig
from ptr_fast.runtime.observation import Observation
from ptr_fast.runtime.playing import PlayConfig
from ptr_fast.runtime.policy import Policy
from ptr_fast.runtime.safety import SafetyFilter
from ptr_robot.robots.simulated import SimulatedRobot
from ptr_robot.sim.environment import KitchenEnv
from ptr_robot.sim.policies import ActingPolicy, CheckpointSource
from ptr_robot.sim.trials import TrialPlan, run_trials, trial_seed
from ptr_robot.trials.session import Operator, run_session

FOLDER = Path("outputs/bench_late")
TASK, KITCHEN, IMAGE_SIZE = "put block on plate", "H", 64
HZ, NUM_TRIALS, MAX_STEPS = 20.0, 20, 80
# Latency of the camera and of the state, ms.
CASES = ((0, 0), (20, 0), (50, 0), (100, 0), (50, 50), (100, 100))
PRIORITY = 50


@dataclass
class Met:
    """What the trials of one case met.

    Attributes:
        successes: of each round. age_ms, wait_ms: of the frame at the policy, from its capture and from its delivery.
        decisions_late: whole periods -> commands. interventions: of the safety filter -> steps.
        num_missed: periods without a command in time.
        load: average before each round.
    """

    successes: list[int] = field(default_factory=list)
    age_ms: list[float] = field(default_factory=list)
    wait_ms: list[float] = field(default_factory=list)
    decisions_late: Counter[int] = field(default_factory=Counter)
    interventions: Counter[str] = field(default_factory=Counter)
    num_missed: int = 0
    load: list[float] = field(default_factory=list)


def make_checkpoint() -> Path:
    """A cloned policy of the kitchen; commands that have been run are not run again."""
    store, run = FOLDER / "store", FOLDER / "bc"
    options = ["--task", TASK, "--kitchens", KITCHEN, "--episodes", "200", "--kinds", "expert-clean:1.0"]
    verbs = [["collect", *options, "--image-size", str(IMAGE_SIZE), "--workers", "1", "--out", str(store)]]
    if not (run / "checkpoints" / "003000").is_dir():
        verbs.append(["pretrain", "sim-bc", "--data.stores", str(store), "--num-steps", "3000", "--out", str(run)])
    for verb in verbs:
        subprocess.run([sys.executable, "-m", "ptr_robot", *verb], check=True)
    return run / "checkpoints" / "003000"


@contextlib.contextmanager
def own_processor() -> Iterator[int]:
    """The simulated arm comes before other programs, where that is permitted; the loop's priority, 0 where not."""
    before = os.sched_getscheduler(0), os.sched_getparam(0)
    try:
        os.sched_setscheduler(0, os.SCHED_RR, os.sched_param(1))
    except PermissionError:
        yield 0
        return
    try:
        yield PRIORITY
    finally:
        os.sched_setscheduler(0, *before)


def in_real_time(policy: Policy, case: tuple[int, int], met: Met) -> None:
    """One round of trials."""
    latency_ms, state_latency_ms = case
    met.load.append(round(os.getloadavg()[0], 2))
    met.successes.append(0)

    def keep(step: np.void, _frames: dict[str, np.ndarray] | None) -> None:
        met.age_ms.append(1e-6 * (int(step["policy_in_ns"]) - int(step["captured_ns"])))
        met.wait_ms.append(1e-6 * (int(step["policy_in_ns"]) - int(step["arrived_ns"])))

    with own_processor() as priority, Operator() as operator:
        late = {"latency_ms": latency_ms, "state_latency_ms": state_latency_ms}
        robot = SimulatedRobot(TASK, KITCHEN, HZ, IMAGE_SIZE, **late)
        config = LoopConfig(hz=HZ, num_steps=MAX_STEPS, realtime_priority=priority)
        with robot:
            for index in range(NUM_TRIALS):
                robot.reset(trial_seed(0, index))
                result = run_session(
                    robot,
                    lambda images, state: policy.decide(images["image_0"][-1], state[-1], TASK),
                    policy.spec,
                    robot.limits(HZ),
                    config,
                    operator,
                    sink=keep,
                )
                if operator.quit_signal:
                    raise SystemExit(128 + operator.quit_signal)
                met.successes[-1] += bool(result.success)
                met.decisions_late.update(result.decisions_late)
                met.interventions.update(result.interventions)
                met.num_missed += result.outcome.num_missed


@dataclass(frozen=True)
class Filtered:
    """A policy behind the simulated arm's safety filter, with the times that it would meet in real time.

    Attributes:
        source: of the policy. frame_delay, state_delay: of the trials, decisions.
    """

    source: CheckpointSource
    frame_delay: int
    state_delay: int

    def make(self, env: KitchenEnv, play: PlayConfig, num_periods_late: int) -> ActingPolicy:
        policy, reset = self.source.make(env, play, num_periods_late), env.reset
        safety, period_ns, phase_ns = SafetyFilter(SimulatedRobot(hz=HZ).limits(HZ)), round(1e9 / HZ), round(0.2e9 / HZ)
        now_ns = 0

        def begin(**options: Any) -> Any:
            nonlocal now_ns
            now_ns = phase_ns
            safety.start(now_ns)
            return reset(**options)

        def act(observation: Observation, seed: int = 0) -> np.ndarray:
            nonlocal now_ns
            now_ns += period_ns
            ages_ns = (period_ns * delay + phase_ns for delay in (self.frame_delay, self.state_delay))
            wanted = policy.act(observation, seed)
            command, _ = safety.apply(wanted, observation.state, next(ages_ns), now_ns, next(ages_ns))
            assert command is not None, "a policy that is stopped has no place here"
            return command

        env.reset = begin  # type: ignore[method-assign]
        return SimpleNamespace(act=act, reset=policy.reset)


def in_lock_step(source: CheckpointSource, delays: tuple[int, int]) -> tuple[int, int]:
    """Successes with frame and state so many decisions late: behind the safety filter, and without it."""
    names = ("frame_delay", "state_delay")
    plan = TrialPlan(task=TASK, kitchen=KITCHEN, max_steps=MAX_STEPS, **dict(zip(names, delays, strict=True)))
    both = (Filtered(source, *delays), source)
    filtered, plain = (sum(trial.success for trial in run_trials(who, plan, NUM_TRIALS)) for who in both)
    return filtered, plain


def delays_of(case: tuple[int, int], late: int) -> tuple[int, int]:
    """Decisions that frame and state are late in lock step, where frames in real time were ``late``."""
    return late, late if case[1] == case[0] else 0


def row_of(
    case: tuple[int, int], met: Met, lock_step: dict[tuple[int, int], tuple[int, int]], checkpoint: Path
) -> dict:
    """Success in real time beside the lock step's, and how old frames were."""
    late, count = met.decisions_late.most_common(1)[0]
    needed = math.ceil(case[0] * 1e-3 * HZ)
    percentiles = {"p50": 50, "p95": 95}
    too = " and state" if case[1] else ""
    return {
        "name": "late",
        "case": f"camera{too} {case[0]} ms late",
        "hz": HZ,
        "checkpoint": "/".join(checkpoint.parts[-3:]),
        "frame_age_ms": {p: round(float(np.percentile(met.age_ms, q)), 1) for p, q in percentiles.items()},
        "frame_wait_ms": {p: round(float(np.percentile(met.wait_ms, q)), 1) for p, q in percentiles.items()},
        "decisions_late": {str(n): count for n, count in sorted(met.decisions_late.items())},
        "mostly_late": late,
        "mostly_late_share": round(count / met.decisions_late.total(), 3),
        "real_time": {"succeeded": sum(met.successes), "trials": NUM_TRIALS * len(met.successes)},
        "real_time_rounds": met.successes,
        "lock_step": {str(n): lock_step[delays_of(case, n)][0] for n in sorted({0, late, needed})},
        "lock_step_without_filter": {str(n): lock_step[delays_of(case, n)][1] for n in sorted({0, late, needed})},
        "lock_step_trials": NUM_TRIALS,
        "latency_in_decisions": needed,
        "steps": len(met.age_ms),
        "interventions": dict(met.interventions),
        "missed": met.num_missed,
        "load_average": met.load,
        "environment": environment(),
    }


def main(argv: list[str]) -> None:
    checkpoint = Path(argv[0]) if argv else make_checkpoint()
    torch.set_num_threads(1)
    source = CheckpointSource(str(checkpoint))
    policy = source.load()
    policy.warm_up()
    met = {case: Met() for case in CASES}
    for turn in range(rounds(2)):
        for case in CASES[turn % len(CASES) :] + CASES[: turn % len(CASES)]:
            in_real_time(policy, case, met[case])
    lock_step: dict[tuple[int, int], tuple[int, int]] = {}
    for case, result in met.items():
        for late in {0, result.decisions_late.most_common(1)[0][0], math.ceil(case[0] * 1e-3 * HZ)}:
            delays = delays_of(case, late)
            if delays not in lock_step:
                lock_step[delays] = in_lock_step(source, delays)
        record(row_of(case, result, lock_step, checkpoint))


if __name__ == "__main__":
    main(sys.argv[1:])
