"""Stores and runs of the toy table, made once: a healthy one, and one for each illness that grows within seconds."""

import json
import shutil
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))
import toy_reach

from ptr_robot.training.log import RunLog

SOUND = ["--rewards.num-steps", "5", "--rewards.lower-bound-returns", "--learner.tau", "0.05"]
SOUND += ["--learner.cql-alpha", "1", "--learner.discount", "0.97"]
WILD = ["--learner.cql-alpha", "0", "--learner.tau", "1", "--learner.critic-lr", "1e-2", "--learner.actor-lr", "1e-2"]
WILD += ["--learner.init-temperature", "1e-3", "--learner.discount", "0.97", "--no-stop-on-divergence"]
RUNS = {  # name: store, updates, recipe, options
    "healthy": ("people", 300, "smoke", SOUND),
    "healthy_proposals": (
        *("people", 300, "smoke-proposals"),
        [*SOUND, "--learner.actor-lr", "1e-3", "--learner.critic-lr", "1e-3"],
    ),
    "healthy_clone": ("people", 300, "smoke-bc", ["--learner.lr", "3e-3", "--learner.lr-schedule", "cosine"]),
    "short_sighted": ("people", 25, "smoke", [*SOUND, "--learner.discount", "0.8"]),
    "slow": ("people", 100, "smoke", ["--learner.tau", "0.0005", "--learner.cql-alpha", "1"]),
    "pressed": ("people", 100, "smoke", [*SOUND, "--learner.cql-alpha", "20"]),
    "wild": ("people", 120, "smoke", WILD),
    "hot": ("people", 80, "smoke", [*SOUND, "--learner.target-entropy", "1.38", "--learner.temperature-lr", "0.1"]),
    "lazy_actor": ("people", 200, "smoke", [*SOUND, "--learner.actor-lr", "1e-6", "--learner.critic-lr", "6e-3"]),
    "by_heart": (
        *("few", 400, "smoke-bc"),
        ["--learner.lr", "2e-3", "--learner.hidden-dims", "256", "256", "256", "--data.validation-share", "0.8"],
    ),
    "unripe_clone": ("people", 150, "smoke-bc", ["--learner.lr", "1e-4"]),
    "alike": ("machine", 25, "smoke", SOUND),
    "alike_and_slow": ("slow_machine", 25, "smoke", SOUND),
    "no_failure": ("few", 25, "smoke", SOUND),
}


@pytest.fixture(scope="session")
def table(tmp_path_factory) -> Path:
    """A folder of stores."""
    folder = tmp_path_factory.mktemp("table")
    toy_reach.write(folder / "people", toy_reach.people(40))
    toy_reach.write(folder / "machine", toy_reach.machine(60))
    toy_reach.write(folder / "slow_machine", toy_reach.machine(20, speed=0.12))
    toy_reach.write(folder / "few", toy_reach.people(10, seed=5, fails=0.0))
    return folder


@pytest.fixture(scope="session")
def trained(table, tmp_path_factory) -> Callable[[str], Path]:
    """A run of :data:`RUNS` by name, trained when it is first asked for."""
    folder = tmp_path_factory.mktemp("runs")

    def run(name: str) -> Path:
        store, num_steps, recipe, options = RUNS[name]
        out = folder / name
        return out if out.exists() else toy_reach.train(table / store, out, num_steps, *options, recipe=recipe)

    return run


@pytest.fixture
def rewritten(trained, tmp_path) -> Callable[..., Path]:
    """A copy of a run without its checkpoints, whose log says something else: written by the log of the product."""

    def run(name: str | Path, change: Callable[[int, dict], dict], out: str = "rewritten") -> Path:
        was = trained(name) if isinstance(name, str) else name
        folder = tmp_path / out
        shutil.copytree(was, folder, ignore=shutil.ignore_patterns("checkpoints", "tensorboard", "metrics.jsonl"))
        log = RunLog(folder, 0, 300)
        for row in map(json.loads, (was / "metrics.jsonl").read_text().splitlines()):
            step, _ = row.pop("step"), row.pop("time_s")
            log.write(step, change(step, row))
        log.close()
        return folder

    return run
