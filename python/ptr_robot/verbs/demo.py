"""The whole way in toy kitchens: collect, pre-train, fine-tune in an unseen kitchen, select, try, report.

Every stage is one ``ptr-fast`` command that is printed before it runs; a stage that has finished is not run again.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from ptr_robot.stages import LocalProcesses, Stage, run_stages

__all__ = ["Args", "main", "plan", "print_table"]

SECONDS_BETWEEN_LINES = 5.0
"""Of what a running stage prints, so that a console can be followed."""


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


def main(args: Args) -> int:
    """Runs all stages, prints the table of success rates and names the report."""
    out = args.out
    begin = time.monotonic()
    workers = args.workers or min(4, os.cpu_count() or 1)
    run_stages(plan(args, workers), out, LocalProcesses(workers), show_every_s=SECONDS_BETWEEN_LINES)
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
            + ["--episodes", str(args.episodes), "--kinds", "expert-clean:1.0"],
        ),
        Stage(
            "collect-unseen",
            [*collect, "--out", target, "--kitchens", TARGET_KITCHEN]
            + ["--episodes", str(args.num_demos + HELD_OUT), "--kinds", "expert-clean:1.0"],
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
