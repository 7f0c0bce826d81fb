"""One camera, one observation and one action: what batches and updates cost today and cost before there could be more.

``before`` is the commit below, checked out and built in a temporary folder for the time of the run. Each state works in
a process of its own, round by round. ``PTR_FAST_BENCH_BEFORE`` names a checkout that is built already.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from benchmarks.harness import Milliseconds, compare
from benchmarks.peers.client import ROOT, Worker

BEFORE = "1a3533f"
LOADS = [("map", "cql"), ("host", "cql"), ("jpeg", "cql"), ("device", "cql"), ("host", "bc"), ("jpeg", "bc")]
UPDATES = [("cql", "conv3", 64, 2), ("cql", "resnet_small", 16, 1), ("bc", "conv3", 64, 4)]


class _State(Worker):
    """The worker on a checkout of the project."""

    def __init__(self, tree: Path) -> None:
        self.module = "benchmarks.batches_worker"
        search = f"{tree}:{tree / 'python'}"
        self.process = subprocess.Popen(
            [sys.executable, "-W", "ignore", str(ROOT / "benchmarks" / "batches_worker.py")],
            **{"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True, "cwd": tree},
            env={**os.environ, "PYTHONPATH": search},
        )


@pytest.fixture(scope="module")
def states(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, _State]]:
    made = os.environ.get("PTR_FAST_BENCH_BEFORE")
    if made is not None:
        with _State(ROOT) as today, _State(Path(made)) as before:
            yield _checked(today, before)
        return
    tree = tmp_path_factory.mktemp("before") / "tree"
    git = ["git", "-C", str(ROOT), "worktree"]
    subprocess.run([*git, "add", "--quiet", "--detach", str(tree), BEFORE], check=True)
    try:
        build = [sys.executable, "setup.py", "build_ext", "--inplace"]
        subprocess.run(build, cwd=tree, check=True, capture_output=True)
        with _State(ROOT) as today, _State(tree) as before:
            yield _checked(today, before)
    finally:
        subprocess.run([*git, "remove", "--force", str(tree)], check=True)


def _checked(today: _State, before: _State) -> dict[str, _State]:
    for state in (today, before):
        assert state.ask("versions")["native"], "a native module is missing"
    return {"today": today, "before": before}


def _compared(states: dict[str, _State], case: str, setup: dict, work: str, count: int, rounds: int) -> None:
    digests = {name: state.ask(**setup)["digest"] for name, state in states.items()}

    def gate() -> None:
        assert digests["today"] == digests["before"], f"{case}: other bits"

    numbers = dict.fromkeys(states, 1)

    def run(name: str) -> Milliseconds:
        begin, numbers[name] = numbers[name], numbers[name] + count
        return Milliseconds(states[name].ask(work, step=begin, count=count)["ms"])

    variants = {name: lambda name=name: run(name) for name in states}
    clock = "process_time" if work == "load" else "thread_time"
    compare("batches", case, variants, gate, num_rounds=rounds, clock_of_the_process=clock)


@pytest.mark.parametrize(("tier", "learner"), LOADS)
def test_loading(states: dict[str, _State], tier: str, learner: str, tmp_path_factory: pytest.TempPathFactory) -> None:
    folder = tmp_path_factory.getbasetemp() / "stores"
    folder.mkdir(exist_ok=True)
    case = f"20 batches of 64 for {learner}, {tier}, 64x64"
    setup = {"do": "open", "folder": str(folder), "tier": tier, "learner": learner}
    _compared(states, case, setup, "load", count=20, rounds=25)


@pytest.mark.parametrize(("learner", "encoder", "num_batch", "count"), UPDATES)
def test_updates(states: dict[str, _State], learner: str, encoder: str, num_batch: int, count: int) -> None:
    case = f"{count} updates of {learner}, {encoder} 64x64 batch {num_batch}"
    setup = {"do": "learn", "learner": learner, "encoder": encoder, "num_batch": num_batch}
    _compared(states, case, setup, "update", count=count, rounds=15)
