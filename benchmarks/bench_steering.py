"""A clone steered by a critic beside the clone alone: trials of ``rollout`` in a toy kitchen, from states.

``python -m benchmarks.bench_steering [FOLDER]``: FOLDER (default ``outputs/bench_steering``) gets the data of
operators, a clone of many modes and, apart from it, CQL with cloned proposals on the same data; what is there already
is not made again. Then the clone is tried alone (a sample, and its mode) and with the critic of the other run choosing
among its samples, from the same starts; beside them the critic's own policy, which chooses among its own clone's
samples. One seed of training, one kitchen: it shows that steering works, not how much it gives elsewhere.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import torch

from benchmarks.harness import environment, record
from ptr_robot.cli import main as ptr_fast
from ptr_robot.steering.log import SteeringLog
from ptr_robot.steering.options import SteeringOptions
from ptr_robot.verbs.rollout import Args, rollout

NUM_EPISODES, NUM_STEPS, NUM_TRIALS, NUM_PROPOSALS = 240, 6000, 50, 16
MAX_STEPS = {"60 decisions": 60}
KITCHEN = "A"


def prepare(folder: Path) -> tuple[Path, Path]:
    """Runs of clone and critic; made where they are not there."""
    store, clone, critic = folder / "kitchens", folder / "clone", folder / "critic"
    if not store.exists():
        kinds = ("--kinds", "teleop:1.0", "--max-steps", "120", "--kitchens", KITCHEN)
        run("collect", "--out", store, "--observe", "state", *kinds, "--episodes", NUM_EPISODES)
    for recipe, out in (("states-mixture", clone), ("states-proposals", critic)):
        if not (out / "checkpoints" / f"{NUM_STEPS:06d}").is_dir():
            run("pretrain", recipe, "--data.stores", store, "--num-steps", NUM_STEPS, "--out", out)
    return clone, critic


def run(*words: Any) -> None:
    """One verb of ``ptr-fast``."""
    if code := ptr_fast([str(word) for word in words]):
        raise SystemExit(code)


def tried(folder: Path, clone: Path, critic: Path, max_steps: int) -> dict[str, dict[str, Any]]:
    """Results of ``rollout`` by policy, each from the same starts."""
    steered = {"steer": str(clone), "steer_proposals": NUM_PROPOSALS}
    plans: dict[str, dict[str, Any]] = {
        "clone alone, sample": {"run": clone, "mode": "sample"},
        "clone alone, mode": {"run": clone, "mode": "ema_mean"},
        "clone steered, best": {"run": critic, "steering": SteeringOptions(**steered)},
        "clone steered, mean of best 4": {
            "run": critic,
            "steering": SteeringOptions(**steered, steer_choose="average"),
        },
        "clone steered, softmax 1": {"run": critic, "steering": SteeringOptions(**steered, steer_choose="softmax")},
        "critic with its own clone": {"run": critic, "mode": "search"},
    }
    options = {"kitchen": KITCHEN, "trials": NUM_TRIALS, "max_steps": max_steps, "workers": 1}
    return {
        name: rollout(Args(**options, **plan, out=folder / f"{max_steps}-{number}.json"))
        for number, (name, plan) in enumerate(plans.items())
    }


def main() -> None:
    torch.set_num_threads(1)
    folder = Path(sys.argv[1] if len(sys.argv) > 1 else "outputs/bench_steering")
    clone, critic = prepare(folder)
    for case, max_steps in MAX_STEPS.items():
        policies = {}
        for name, result in tried(folder, clone, critic, max_steps).items():
            done = [trial["num_steps"] for trial in result["trials"] if trial["success"]]
            steering = SteeringLog(**result["steering"]) if "steering" in result else None
            policies[name] = {
                "successes": result["successes"],
                "interval95": result["interval95"],
                "mean_steps_of_successes": sum(done) / len(done) if done else None,
                **({"steering": steering.as_dict()} if steering else {}),
            }
        kept = {
            "num_trials": NUM_TRIALS,
            "num_proposals": NUM_PROPOSALS,
            "episodes": NUM_EPISODES,
            "updates": NUM_STEPS,
        }
        row = {"name": "steering", "case": f"put block on plate, kitchen {KITCHEN}, {case}", **kept}
        record({**row, "policies": policies, "environment": environment()})


if __name__ == "__main__":
    main()
