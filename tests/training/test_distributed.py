"""Runs of several processes as of torchrun (gloo on the CPU): the same training, resumed by any number of processes,
stopped together, and ended when one of them dies."""

import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
from dataclasses import replace
from pathlib import Path

import pytest
import safetensors.torch
import torch
import toy_robot
import warm_python

from ptr_fast.checkpoint import list_checkpoints, read_checkpoint

pytestmark = pytest.mark.skipif(not torch.distributed.is_available(), reason="torch was built without distributed")

NUM_STEPS = 9
SMALL = ["--batch-size", "12", "--log-every", "1", "--checkpoint-every", "3", "--keep-last", "0", "--keep-best", "0"]
SMALL += ["--device", "cpu"]
HERE = Path(__file__).parents[1]


def command(num_ranks: int, *arguments) -> dict:
    launcher = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(num_ranks)]
    paths = [str(HERE), str(HERE / "learners"), os.environ.get("PYTHONPATH", "")]
    return {
        "args": [*(launcher if num_ranks > 1 else [sys.executable]), *map(str, arguments)],
        "env": {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONUNBUFFERED": "1", "PYTHONPATH": os.pathsep.join(paths)},
        "stdout": subprocess.PIPE,
        "stderr": subprocess.STDOUT,
        "text": True,
    }


def run(num_ranks: int, *arguments) -> subprocess.CompletedProcess:
    """One process, or ranks as torchrun starts them; what they print, and the first exit code that is not 0."""
    alone = command(1, *arguments)
    if num_ranks == 1:
        return warm_python.run(**alone, timeout=240)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    where = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "WORLD_SIZE": str(num_ranks)}
    with tempfile.TemporaryFile("w+") as told, contextlib.ExitStack() as stack:
        ranks = []
        for rank in map(str, range(num_ranks)):
            env = {**alone["env"], **where, "RANK": rank, "LOCAL_RANK": rank}
            ranks.append(warm_python.Popen(**{**alone, "env": env, "stdout": told}))
            stack.callback(ranks[-1].kill)
        codes = [rank.wait(timeout=240) for rank in ranks]
        told.seek(0)
        return subprocess.CompletedProcess(alone["args"], next(filter(None, codes), 0), told.read())


def pretrain(num_ranks: int, store: Path, out: Path, *more) -> subprocess.CompletedProcess:
    return run(num_ranks, *verb(store, out), *more)


def verb(store: Path, out: Path) -> list:
    return ["-m", "ptr_robot", "pretrain", "smoke", "--data.stores", store, "--out", out, *SMALL]


def numbers(out: Path) -> list[dict]:
    """The metrics without what depends on the clock."""
    rows = [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]
    return [{k: v for k, v in row.items() if k != "time_s" and not k.startswith("perf/")} for row in rows]


def weights(out: Path) -> dict[str, torch.Tensor]:
    folder = list_checkpoints(out)[-1] / "pretrained_model"
    files = ("model.safetensors", "critic.safetensors")
    return {name: w for file in files for name, w in safetensors.torch.load_file(folder / file).items()}


@pytest.fixture(scope="module")
def store(tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("toy") / "store"
    return toy_robot.write_store(path, toy_robot.toy_episodes(12, cameras=("image_0",)))


@pytest.fixture(scope="module")
def alone(store, tmp_path_factory) -> Path:
    out = tmp_path_factory.mktemp("runs") / "alone"
    done = pretrain(1, store, out, "--num-steps", NUM_STEPS)
    assert done.returncode == 0, done.stdout
    return out


def test_learners_of_three_ranks_equal_one_process():
    done = run(3, HERE / "ranks_program.py")
    assert done.returncode == 0, done.stdout
    assert "all equal over 3 ranks" in done.stdout


def test_two_ranks_then_three_then_one_make_the_run_of_one(store, alone, tmp_path):
    out = tmp_path / "changing"
    first = pretrain(2, store, out, "--num-steps", 3)
    assert first.returncode == 0, first.stdout
    assert "by 2 processes" in first.stdout
    assert first.stdout.count("saved ") == 1
    for num_ranks, num_steps in ((3, 6), (1, NUM_STEPS)):
        resumed = run(num_ranks, "-m", "ptr_robot", "resume", out, "--num-steps", num_steps)
        assert resumed.returncode == 0, resumed.stdout
        assert resumed.stdout.count("going on from") == 1
    assert [row["step"] for row in numbers(out)] == list(range(1, NUM_STEPS + 1))  # written once each
    for row, expected in zip(numbers(out), numbers(alone), strict=True):
        assert row == pytest.approx(expected, rel=5e-5, abs=5e-6)
    for name, weight in weights(alone).items():
        assert (weights(out)[name] - weight).abs().max() < 1e-5, name
    assert len(list((out / "tensorboard").iterdir())) == 3  # one writer per start


LATE = """
import os, sys, time
from ptr_robot import cli
from ptr_robot.training import loop
make = loop.RunLog

def late(*arguments):
    time.sleep(2.0 * (os.environ["RANK"] == "1"))
    return make(*arguments)

loop.RunLog = late
sys.exit(cli.main(sys.argv[1:]))
"""


def test_a_rank_that_is_late_agrees_on_saving_what_fine_tuning_begins_with(alone, tmp_path):
    toys = [replace(toy, task="fold towel") for toy in toy_robot.toy_episodes(4, cameras=("image_0",), seed=3)]
    target, out = toy_robot.write_store(tmp_path / "target", toys), tmp_path / "fine"
    words = ["finetune", "--checkpoint", alone, "--target", target, "--num-demos", "3", "--mix", "0.5", "--out", out]
    done = run(2, "-c", LATE, *words, *SMALL, "--num-steps", "3", "--rank-timeout-s", "20")
    assert done.returncode == 0, done.stdout
    assert [path.name for path in list_checkpoints(out)] == ["000000", "000003"]


class Running:
    """A run that goes on until it is stopped; killed as a whole at the end of the block."""

    def __init__(self, num_ranks: int, store: Path, out: Path, *more) -> None:
        self.out, self.log = out, out.with_suffix(".log")
        options = command(num_ranks, *verb(store, out), "--num-steps", 100_000, *more)
        with open(self.log, "w") as file:
            self.process = warm_python.Popen(**{**options, "stdout": file}, start_new_session=True)

    def __enter__(self) -> "Running":
        self.wait_until(lambda: (self.out / "metrics.jsonl").exists() and len(numbers(self.out)) >= 4)
        return self

    def __exit__(self, *_: object) -> None:
        for pid in [*self.pids().values(), self.process.pid]:
            try:
                os.kill(pid, signal.SIGKILL)
            except ProcessLookupError:
                continue
        self.process.wait()

    def wait_until(self, condition, seconds: float = 120.0) -> None:
        deadline = time.monotonic() + seconds
        while not condition():
            if self.process.poll() is not None or time.monotonic() > deadline:
                pytest.fail(self.log.read_text())
            time.sleep(0.02)

    def pids(self) -> dict[int, int]:
        """Process of each rank."""
        children = Path(f"/proc/{self.process.pid}/task/{self.process.pid}/children")
        found = {}
        for pid in children.read_text().split() if children.exists() else []:
            settings = dict(s.partition("=")[::2] for s in Path(f"/proc/{pid}/environ").read_text().split("\0"))
            if "RANK" in settings:
                found[int(settings["RANK"])] = int(pid)
        return found

    def ended(self, seconds: float) -> str:
        """What it printed, once it has ended within a bound."""
        self.process.wait(timeout=seconds)
        return self.log.read_text()


def test_a_dead_rank_ends_the_run_and_says_how_to_go_on(store, tmp_path):
    with Running(3, store, tmp_path / "killed") as running:
        os.kill(running.pids()[1], signal.SIGKILL)
        text = running.ended(seconds=30)
        assert running.process.returncode != 0
        assert "lost contact with another process of this run" in text
        assert f"resume {running.out}" in text
        step = read_checkpoint(running.out).step
        assert f"checkpoints up to step {step} are kept" in text
        assert "Traceback (most recent call last):\n  File" not in text.partition("lost contact")[0]


@pytest.mark.parametrize("target", [pytest.param("one rank", marks=pytest.mark.slow), "torchrun"])
def test_a_signal_anywhere_stops_all_ranks_after_the_same_update(target, store, tmp_path):
    with Running(2, store, tmp_path / "stopped") as running:
        pid = running.pids()[1] if target == "one rank" else running.process.pid
        os.kill(pid, signal.SIGTERM)
        text = running.ended(seconds=60)
        assert running.process.returncode != 0
        step = read_checkpoint(running.out).step
        assert text.count(f"stopped at step {step} of 100000; go on with: torchrun") == 1
        assert "lost contact" not in text
        assert numbers(running.out)[-1]["step"] == step


def test_mistakes_are_told_once(store, alone, tmp_path):
    again = pretrain(2, store, alone, "--num-steps", NUM_STEPS)
    assert again.returncode != 0
    assert again.stdout.count("there is a run here already") == 1
    uneven = pretrain(2, store, tmp_path / "uneven", "--batch-size", 7)
    assert uneven.returncode != 0
    assert "batch_size 7 must be a positive multiple of the number of ranks 2" in uneven.stdout
    assert not (tmp_path / "uneven" / "train_config.json").exists()
