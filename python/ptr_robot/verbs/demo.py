"""The point in toy kitchens: offline RL pre-training on people-like data, ten demonstrations in a kitchen never seen.

Three methods see the same episodes of three kitchens, then the same ten demonstrations in a fourth: CQL that chooses
among cloned proposals (ours), the clone of many modes alone, and behaviour cloning. Each is tried in the fourth kitchen
before and after the demonstrations, from the same starts. Every stage is one ``ptr-fast`` command that is printed
before it runs; a stage that has finished is not run again.
"""

from __future__ import annotations

import json
import os
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from ptr_fast.files import write_atomically
from ptr_robot.stages import LocalProcesses, Stage, run_stages

__all__ = ["METHODS", "Args", "Method", "main", "plan", "print_table", "result"]

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
        seed: seed of data, trainings and the starts of trials.
    """

    out: Path = Path("outputs/demo")
    workers: int = 0
    trials: int = 40
    num_demos: int = 10
    episodes: int = 120
    scale: float = 1.0
    seed: int = 0

    def __post_init__(self) -> None:
        for name in ("trials", "num_demos", "episodes"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be at least 1, got {getattr(self, name)}")
        if not 0.0 < self.scale <= 10.0:
            raise ValueError(f"scale must lie in (0, 10], got {self.scale}")


class Method(NamedTuple):
    """What the demo compares.

    Attributes:
        label: in the table.
        recipe: of ``ptr-fast pretrain``.
        num_updates: of pre-training and of fine-tuning.
    """

    label: str
    recipe: str
    num_updates: tuple[int, int]


METHODS = {
    "ours": Method("CQL, cloned proposals", "sim-proposals", (4000, 600)),
    "clone": Method("clone of many modes", "sim-mixture", (4000, 600)),
    "bc": Method("behaviour cloning", "sim-bc", (4000, 600)),
}
TASK = "put block on plate"
PRIOR_KITCHENS = ("A", "B", "C")
TARGET_KITCHEN = "H"
NUM_ATTEMPTS = 2
"""Attempts in the unseen kitchen per demonstration that is used: operators fail, and some are held out."""
LONGEST = 120
"""Decisions that an operator has; a policy has half of them (the default of ``ptr-fast rollout``)."""


def main(args: Args) -> int:
    """Runs all stages, prints the table of success rates and names the report."""
    out = args.out
    begin = time.monotonic()
    workers = args.workers or min(4, os.cpu_count() or 1)
    run_stages(plan(args, workers), out, LocalProcesses(workers), show_every_s=SECONDS_BETWEEN_LINES)
    table = result(args, out / "rollouts", round(time.monotonic() - begin))
    write_atomically(out / "table.json", (json.dumps(table) + "\n").encode())
    print_table(table)
    print(f"\nreport: {out / 'report.html'}   ({time.monotonic() - begin:.0f} s)")
    return 0


def plan(args: Args, workers: int) -> list[Stage]:
    """The stages of the demo in the order in which they should start."""
    out, seed = args.out, str(args.seed)
    prior, target = str(out / "kitchens"), str(out / "unseen_kitchen")
    collect = ["collect", "--task", TASK, "--kinds", "teleop:1.0", "--max-steps", str(LONGEST), "--image-size", "64"]
    collect += ["--workers", str(workers), "--seed", seed]
    kitchens, attempts = list(PRIOR_KITCHENS), args.num_demos * NUM_ATTEMPTS
    stages = [
        Stage(
            "collect",
            [*collect, "--out", prior, "--kitchens", *kitchens, "--episodes", str(args.episodes)],
            work=args.episodes * len(kitchens),
        ),
        Stage(
            "collect-unseen",
            [*collect, "--out", target, "--kitchens", TARGET_KITCHEN, "--episodes", str(attempts)],
            work=attempts,
        ),
    ]
    for name, method in METHODS.items():
        pre, fine = (str(out / "runs" / f"{name}-{what}") for what in ("pretrain", "finetune"))
        num_updates = [max(1, round(args.scale * number)) for number in method.num_updates]
        lengths = [["--num-steps", str(number), "--seed", seed] for number in num_updates]
        stages += [
            Stage(
                f"{name}-pretrain",
                ["pretrain", method.recipe, "--data.stores", prior, "--out", pre, *lengths[0]],
                after=["collect"],
                kind=f"train {method.recipe}",
                work=num_updates[0],
            ),
            Stage(
                f"{name}-finetune",
                ["finetune", "--checkpoint", f"{pre}/checkpoints/last", "--target", target]
                + [
                    "--num-demos",
                    str(args.num_demos),
                    "--outcomes",
                    "success",
                    "--mix",
                    "0.5",
                    "--lr-scale",
                    "0.3",
                    "--out",
                    fine,
                    *lengths[1],
                ],
                after=[f"{name}-pretrain", "collect-unseen"],
                kind=f"train {method.recipe}",
                work=num_updates[1],
            ),
            _trials(args, f"{name}-before", f"{method.label}, before", f"{pre}/checkpoints/last", f"{name}-pretrain"),
            _trials(args, f"{name}-after", f"{method.label}, after", f"{fine}/checkpoints/last", f"{name}-finetune"),
        ]
    stages.append(_trials(args, "random", "random", "", "collect-unseen"))
    runs = [str(out / "runs" / f"{name}-{what}") for name in METHODS for what in ("finetune", "pretrain")]
    shown = [word for run in runs for word in ("--run", run)] + ["--rollouts", str(out / "rollouts")]
    report = ["report", "--out", str(out / "report.html"), "--title", f"{TASK}, kitchen {TARGET_KITCHEN}", *shown]
    evaluate = [
        Stage(
            f"{name}-evaluate",
            ["select", "--run", str(out / "runs" / f"{name}-finetune")],
            after=[f"{name}-finetune"],
            accepts=(0, 1),  # 1: no checkpoint is fit to be picked, which the report says
        )
        for name in METHODS
    ]
    stages += evaluate
    stages.append(Stage("report", report, after=[*_trial_names(), *(stage.name for stage in evaluate)]))
    return stages


def _trial_names() -> list[str]:
    return [*(f"{name}-{when}" for name in METHODS for when in ("before", "after")), "random"]


def _trials(args: Args, name: str, label: str, checkpoint: str, after: str) -> Stage:
    """Trials in the unseen kitchen; of a random policy where there is no checkpoint. The first are filmed."""
    policy = ["--checkpoint", checkpoint] if checkpoint else ["--policy", "random"]
    verb = ["rollout", *policy, "--label", label, "--task", TASK, "--kitchen", TARGET_KITCHEN, "--video", "gif"]
    verb += ["--videos", "2", "--trials", str(args.trials), "--seed", str(args.seed), "--workers", "1"]
    out = args.out / "rollouts" / f"{name}.json"
    return Stage(name, [*verb, "--out", str(out)], after=[after], makes=out, work=args.trials)


def result(args: Args, rollouts: Path, seconds: int) -> dict[str, Any]:
    """All that the table says, and what it hangs on: a row of ``benchmarks/results/demo.jsonl``."""
    import torch

    from ptr_robot.verbs.info import instruction_set, processor

    trials = {name: json.loads((rollouts / f"{name}.json").read_text(encoding="utf-8")) for name in _trial_names()}
    rows = [
        {
            "policy": method.label,
            "mode": trials[f"{name}-after"]["mode"],
            "before": _counted(trials[f"{name}-before"]),
            "after": _counted(trials[f"{name}-after"]),
        }
        for name, method in METHODS.items()
    ]
    rows.append({"policy": "random", "mode": "", "before": _counted(trials["random"]), "after": None})
    where = {"processor": processor(), "instruction_set": instruction_set(), "torch": torch.__version__}
    what = {"task": TASK, "kitchen": TARGET_KITCHEN, "prior_kitchens": list(PRIOR_KITCHENS), "scale": args.scale}
    what |= {"episodes": args.episodes, "num_demos": args.num_demos, "trials": args.trials, "seed": args.seed}
    return {
        "case": f"seed {args.seed}, {args.trials} trials",
        **what,
        **where,
        "seconds_of_last_start": seconds,
        "rows": rows,
    }


def _counted(rollout: dict[str, Any]) -> dict[str, Any]:
    """Successes, trials, interval, and the mean decisions of the successes (None without one)."""
    steps = [trial["num_steps"] for trial in rollout["trials"] if trial["success"]]
    mean = round(sum(steps) / len(steps), 1) if steps else None
    return {**{key: rollout[key] for key in ("successes", "num_trials", "interval95")}, "mean_steps": mean}


def print_table(result: dict[str, Any]) -> None:
    """Successes before and after the demonstrations with their 95 % Wilson intervals, and what they hang on."""
    from rich.console import Console
    from rich.table import Table

    table = Table(
        title=f"{result['task']}, in a kitchen that pre-training never saw,\n"
        f"before and after {result['num_demos']} demonstrations"
    )
    for column in ("policy", "acts by", "before", "after", "steps"):
        table.add_column(column)
    for row in result["rows"]:
        before, after = row["before"], row["after"]
        steps = after["mean_steps"] if after else None
        cells = [_successes(before), _successes(after) if after else "", "" if steps is None else f"{steps:.0f}"]
        table.add_row(row["policy"], row["mode"], *cells)
    console = Console(soft_wrap=True, highlight=False)
    console.print(table)
    console.print(
        f"in brackets the 95 % interval of {result['trials']} trials; steps: decisions of the successes after, on "
        f"average\none training seed ({result['seed']}), on {result['processor']}, {result['instruction_set']}, torch "
        f"{result['torch']}: another seed is another policy, and so is this one on a processor that rounds otherwise"
    )


def _successes(counted: dict[str, Any]) -> str:
    low, high = counted["interval95"]
    return f"{counted['successes']}/{counted['num_trials']} ({low:.0%}-{high:.0%})"
