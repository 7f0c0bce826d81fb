"""Every part of the GPU benchmarks runs at tiny sizes on the CPU: a rented GPU should not find a typing error."""

import subprocess
import sys
from pathlib import Path

import pytest
import torch

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from benchmarks import bench_gpu
from benchmarks.gpu import kernels, supervise
from benchmarks.gpu.supervise import BEGIN
from benchmarks.gpu.timing import Bench
from benchmarks.peers.client import interpreter_with


def run(*arguments: str) -> None:
    assert bench_gpu.main(["--dry", "--out", "/nonexistent", *arguments]) == 0


PARTS = ["build", "tests", "roofline", "act", "sanitizer", "step/r34_64/eager", "step/r34_64/ablations"]
PARTS += ["step/r34_64/compiled", "step/r34_256/autotuned"]


@pytest.mark.filterwarnings("ignore:Dynamo detected a call:UserWarning")
@pytest.mark.parametrize("part", [*PARTS, "kernels", "compiled"])
def test_a_part_runs(part, capsys):
    run("--parts", part)
    said = capsys.readouterr().out
    assert "failed" not in said
    assert said.count(BEGIN) == sum(name.startswith(part) for name in bench_gpu.PARTS)
    assert "gate" in said or not part.startswith("step")


@pytest.mark.parametrize("group", ["jax", "jax_reference"])
def test_the_steps_in_jax_pass_their_gate(group, capsys):
    if interpreter_with("jax", "flax", "optax") is None:
        pytest.skip("jax, flax and optax are not installed (make peers)")
    run("--parts", f"step/r34_256/{group}")
    assert "gate" in capsys.readouterr().out


CHILD = """
import os, sys, time
for part in sys.argv[1].split(","):
    print("== part", part, flush=True)
    if part == "crashes":
        os.abort()
    if part == "raises":
        raise KeyError(part)
    if part == "hangs":
        time.sleep(60)
    print("row of", part, flush=True)
sys.exit(1 if "bad" in part else 0)
"""


@pytest.fixture
def supervised(monkeypatch):
    """Runs parts of a child that crashes or hangs in some of them; returns failures, rows and the children's parts."""

    def supervised(*parts, seconds=30.0, limit=10.0):
        rows, started = [], []
        monkeypatch.setattr(supervise, "record", rows.append)

        def start(left, seconds):
            started.append(left)
            command = [sys.executable, "-u", "-c", CHILD, ",".join(left)]
            pipe = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "text": True}
            return subprocess.Popen(command, **pipe, start_new_session=True)

        failures = supervise.supervise(dict.fromkeys(parts, limit), start, seconds)
        return failures, rows, started

    return supervised


def test_one_process_runs_all_parts(supervised, capsys):
    assert supervised("one", "two") == ([], [], [["one", "two"]])
    assert "row of two" in capsys.readouterr().out
    assert supervised("one", "bad")[0] == ["rows (see above)"]


def test_a_part_that_crashes_or_hangs_takes_no_other_with_it(supervised, capsys):
    failures, rows, started = supervised("one", "crashes", "two", "hangs", "three", limit=1.5)
    assert failures == ["crashes: the process ended with code -6", "hangs: took over 2 s"]
    assert [row["case"] for row in rows] == ["crashes", "hangs"]
    assert started[1:] == [["two", "hangs", "three"], ["three"]]
    said = capsys.readouterr().out
    assert all(f"row of {part}" in said for part in ("one", "two", "three"))


def test_an_exception_outside_of_any_row_takes_no_other_part_with_it(supervised, capsys):
    failures, _, started = supervised("raises", "two")
    assert failures == ["raises: the process ended with code 1"]
    assert started == [["raises", "two"], ["two"]]
    assert "row of two" in capsys.readouterr().out


def test_an_interrupt_ends_the_child_too(monkeypatch):
    children = []

    def start(left, seconds):
        command = [sys.executable, "-u", "-c", CHILD, "hangs"]
        pipe = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "text": True}
        children.append(subprocess.Popen(command, **pipe, start_new_session=True))
        return children[0]

    def interrupt(*arguments, **options):
        raise KeyboardInterrupt

    monkeypatch.setattr("builtins.print", interrupt)  # the child's first line
    with pytest.raises(KeyboardInterrupt):
        supervise.supervise({"hangs": 30.0}, start, 30.0)
    assert children[0].returncode == -9


def test_a_nan_does_not_pass_the_gate():
    def broken():
        return torch.ones(3), torch.full((3,), float("nan"))

    case = kernels.OpCase("augment", "broken", broken)
    with pytest.raises(AssertionError, match="away from the reference"):
        kernels.measure(Bench(dry=True, seconds=60.0), case, False, "broken")


def test_what_no_time_was_left_for_is_a_row(supervised):
    failures, rows, _ = supervised("hangs", "two", "three", seconds=1.0)
    assert failures == ["hangs: ended with the whole program's time"]
    assert [(row["case"], "skipped" in row) for row in rows] == [("hangs", False), ("two", True), ("three", True)]


def test_without_a_gpu_it_says_so(capsys):
    if torch.cuda.is_available():
        pytest.skip("there is a GPU")
    with pytest.raises(SystemExit):
        bench_gpu.main(["--parts", "roofline"])
    assert "no GPU" in capsys.readouterr().err
