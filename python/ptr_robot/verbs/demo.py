"""The whole way in toy kitchens: collect, pre-train, fine-tune in an unseen kitchen, select, try, report.

Every stage is one ``ptr-fast`` command that is printed before it runs; a stage that has finished is not run again.
"""

from __future__ import annotations

import hashlib
import json
import os
import shlex
import subprocess
import sys
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

__all__ = ["Args", "Stage", "main", "run_stages"]


@dataclass(frozen=True, kw_only=True)
class Args:
    """Options of the verb.

    Attributes:
        out: folder for data, runs, logs and the report.
        workers: stages that run side by side; 0 takes the number of CPU cores, at most 4.
        trials: trials per policy, on the same seeds.
        num_demos: demonstrations in the unseen kitchen.
        episodes: episodes in each of the other kitchens.
        scale: factor on the number of updates of every training; below 1 it is a quick look, not a result.
        seed: of everything.
    """

    out: Path = Path("outputs/demo")
    workers: int = 0
    trials: int = 20
    num_demos: int = 5
    episodes: int = 200
    scale: float = 1.0
    seed: int = 0

    def __post_init__(self) -> None:
        for name in ("trials", "num_demos", "episodes"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be at least 1, got {getattr(self, name)}")
        if not 0.0 < self.scale <= 10.0:
            raise ValueError(f"scale must lie in (0, 10], got {self.scale}")


TASK = "put block on plate"
PRIOR_KITCHENS = ("A", "B", "C")
TARGET_KITCHEN = "H"
HELD_OUT = 10
# Updates of pre-training, of fine-tuning and of training on the target alone. The last two see the same five
# demonstrations; imitation needs fewer updates than Q-learning, and more of them only over-fit.
NUM_STEPS = {"ptr": (4000, 600, 1500), "bc": (1500, 400, 1000)}


@dataclass
class Stage:
    """One command of the demo.

    Attributes:
        name: shown before its lines; also the name of its log.
        verb: arguments of ``ptr-fast``.
        after: stages that must have finished.
        accepts: exit codes after which the demo goes on.
        key: changes when the command or anything it waits for changes, so that a finished stage runs again; filled in
            by :func:`run_stages`.
    """

    name: str
    verb: list[str]
    after: list[str] = field(default_factory=list)
    accepts: tuple[int, ...] = (0,)
    key: str = ""


def main(args: Args) -> int:
    """Runs all stages, prints the table of success rates and names the report."""
    out = args.out
    for folder in ("logs", "done"):
        (out / folder).mkdir(parents=True, exist_ok=True)
    begin = time.monotonic()
    workers = args.workers or min(4, os.cpu_count() or 1)
    stages = plan(args, workers)
    run_stages(stages, out, workers)
    print_table(sorted((out / "rollouts").glob("*.json")), args.seed)
    print(f"\nreport: {out / 'report.html'}   ({time.monotonic() - begin:.0f} s)")
    return 0


def plan(args: Args, workers: int) -> list[Stage]:
    """The stages of the demo in the order in which they should start."""
    out, seed = args.out, str(args.seed)
    prior, target = str(out / "kitchens"), str(out / "unseen_kitchen")
    collect = ["collect", "--task", TASK, "--workers", str(workers), "--seed", seed, "--image-size", "64"]
    stages = [
        Stage(
            "collect",
            [*collect, "--out", prior, "--kitchens", *PRIOR_KITCHENS]
            + ["--episodes", str(args.episodes), "--kinds", "expert:1.0"],
        ),
        Stage(
            "collect-unseen",
            [*collect, "--out", target, "--kitchens", TARGET_KITCHEN]
            + ["--episodes", str(args.num_demos + HELD_OUT), "--kinds", "expert:1.0"],
        ),
    ]
    trials = []
    for learner, recipe in (("ptr", "sim"), ("bc", "sim-bc")):
        pre, alone, fine = (str(out / "runs" / f"{learner}-{what}") for what in ("pretrain", "target-only", "finetune"))
        steps = [max(1, round(args.scale * num)) for num in NUM_STEPS[learner]]
        pre_length, fine_length, alone_length = (
            ["--seed", seed, "--num-steps", str(num), "--checkpoint-every", str(max(1, num // 4))] for num in steps
        )
        demos = str(args.num_demos)
        stages += [
            Stage(
                f"{learner}-pretrain",
                ["pretrain", recipe, "--data.stores", prior, "--out", pre, *pre_length],
                after=["collect"],
            ),
            Stage(
                f"{learner}-target-only",
                ["pretrain", recipe, "--data.stores", target, "--data.num-demos", demos, "--out", alone, *alone_length],
                after=["collect-unseen"],
            ),
            Stage(
                f"{learner}-finetune",
                ["finetune", "--checkpoint", pre, "--target", target, "--num-demos", demos, "--mix", "0.5"]
                + ["--lr-scale", "0.3", "--out", fine, *fine_length],
                after=[f"{learner}-pretrain", "collect-unseen"],
            ),
        ]
        for what, run in (("target only", alone), ("pre-trained", fine)):
            name = f"{learner}-{what.replace(' ', '-')}"
            # Exit code 1: no checkpoint is fit to be picked; then the newest one is tried, and the table shows it.
            stages.append(
                Stage(f"{name}-select", ["select", "--run", run], after=[_trained_by(learner, what)], accepts=(0, 1))
            )
            label = f"{learner.upper()} ({what})"
            stages.append(Stage(f"{name}-trials", _rollout(args, run, label, name), after=[f"{name}-select"]))
            trials.append(f"{name}-trials")
    stages.append(Stage("random-trials", _rollout(args, "random", "random", "random"), after=["collect-unseen"]))
    stages.append(
        Stage(
            "report",
            ["report", "--out", str(out / "report.html"), "--title", f"{TASK}, kitchen {TARGET_KITCHEN}"]
            + [
                x
                for name in ("ptr-finetune", "ptr-pretrain", "ptr-target-only", "bc-finetune", "bc-target-only")
                for x in ("--run", str(out / "runs" / name))
            ]
            + ["--rollouts", str(out / "rollouts")],
            after=[*trials, "random-trials"],
        )
    )
    return stages


def _trained_by(learner: str, what: str) -> str:
    return f"{learner}-finetune" if what == "pre-trained" else f"{learner}-target-only"


def _rollout(args: Args, policy: str, label: str, name: str) -> list[str]:
    source = ["--policy", "random"] if policy == "random" else ["--run", policy]
    return [
        *["rollout", *source, "--label", label, "--task", TASK, "--kitchen", TARGET_KITCHEN],
        *["--trials", str(args.trials), "--seed", str(args.seed), "--workers", "1"],
        *["--out", str(args.out / "rollouts" / f"{name}.json")],
    ]


def run_stages(stages: Sequence[Stage], out: Path, workers: int) -> None:
    """Runs stages as soon as those they wait for have finished, at most ``workers`` at a time.

    Raises:
        RuntimeError: a stage failed; names its log. The others are stopped; a later call goes on from here.
        KeyboardInterrupt: passed on after the running stages have stopped, each having saved what it can.
    """
    keys: dict[str, str] = {}
    for stage in stages:
        lineage = json.dumps([stage.verb, [keys[name] for name in stage.after]])
        stage.key = keys[stage.name] = hashlib.sha256(lineage.encode()).hexdigest()[:16]
    finished = {s.name for s in stages if _marker(s, out).exists()}
    for stage in stages:
        if stage.name in finished:
            print(f"[{stage.name}] done before")
    running: dict[str, _Process] = {}
    try:
        while len(finished) < len(stages):
            for stage in stages:
                ready = stage.name not in finished and stage.name not in running and set(stage.after) <= finished
                if ready and len(running) < workers:
                    running[stage.name] = _Process(stage, out)
            for name, process in list(running.items()):
                code = process.poll()
                if code is None:
                    continue
                del running[name]
                if code not in process.stage.accepts:
                    raise RuntimeError(f"stage {name} failed with exit code {code}; see {process.log}")
                _marker(process.stage, out).touch()
                finished.add(name)
                print(f"[{name}] done in {process.seconds:.0f} s", flush=True)
            time.sleep(0.05)
    finally:
        for process in running.values():
            process.stop()


def _marker(stage: Stage, out: Path) -> Path:
    return out / "done" / f"{stage.name}-{stage.key}"


class _Process:
    """A stage on its way: its lines go to a log, and a few of them to the console."""

    SECONDS_BETWEEN_LINES = 5.0

    def __init__(self, stage: Stage, out: Path) -> None:
        self.stage, self.log = stage, out / "logs" / f"{stage.name}.log"
        self.begin = time.monotonic()
        verb = _resumed(stage, out)
        print(f"[{stage.name}] $ ptr-fast {shlex.join(verb)}", flush=True)
        self.process = subprocess.Popen(
            [sys.executable, "-m", "ptr_robot", *verb],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            stdin=subprocess.DEVNULL,
            text=True,
            errors="replace",
            env={**os.environ, "OMP_NUM_THREADS": os.environ.get("OMP_NUM_THREADS", "1"), "PYTHONUNBUFFERED": "1"},
        )
        self.reader = threading.Thread(target=self._read, daemon=True)
        self.reader.start()

    def _read(self) -> None:
        shown = time.monotonic()
        with open(self.log, "a", encoding="utf-8") as log:
            for line in self.process.stdout or ():
                log.write(line)
                log.flush()
                urgent = "error" in line or "alarm" in line
                if urgent or time.monotonic() - shown >= self.SECONDS_BETWEEN_LINES:
                    shown = time.monotonic()
                    print(f"[{self.stage.name}] {line.rstrip()}", flush=True)

    @property
    def seconds(self) -> float:
        return time.monotonic() - self.begin

    def poll(self) -> int | None:
        code = self.process.poll()
        if code is not None:
            self.reader.join(timeout=5.0)
        return code

    def stop(self) -> None:
        self.process.terminate()
        try:
            self.process.wait(timeout=30.0)
        except subprocess.TimeoutExpired:
            self.process.kill()


def _resumed(stage: Stage, out: Path) -> list[str]:
    """A training that was stopped half-way goes on instead of beginning again.

    Raises:
        ValueError: the run that is there was begun with other arguments.
    """
    started = _marker(stage, out).with_suffix(".started")
    if stage.verb[0] in ("pretrain", "finetune"):
        run = Path(stage.verb[stage.verb.index("--out") + 1])
        if (run / "train_config.json").exists():
            if not started.exists():
                raise ValueError(f"{run}: made by a demo with other options; name another --out, or remove {out}")
            return ["resume", str(run)]
    started.touch()
    return stage.verb


def print_table(results: Sequence[Path], seed: int) -> None:
    """Success rates with their 95 % Wilson intervals, best first, and what they hang on beside the method."""
    import torch
    from rich.console import Console
    from rich.table import Table

    from ptr_robot.verbs.info import instruction_set, processor

    rows = [json.loads(path.read_text(encoding="utf-8")) for path in results]
    rows.sort(key=lambda row: -row["successes"])
    table = Table(title=f"{TASK}, kitchen {TARGET_KITCHEN} (never seen in pre-training)")
    for column in ("policy", "acts by", "success", "95 % interval"):
        table.add_column(column)
    for row in rows:
        low, high = row["interval95"]
        table.add_row(row["policy"], row["mode"], f"{row['successes']}/{row['num_trials']}", f"{low:.0%} to {high:.0%}")
    console = Console(soft_wrap=True, highlight=False)
    console.print(table)
    console.print(
        f"one training seed ({seed}), on {processor()}, {instruction_set()}, torch {torch.__version__}: another seed "
        "is another policy, and so is the same one on a processor that rounds otherwise"
    )
