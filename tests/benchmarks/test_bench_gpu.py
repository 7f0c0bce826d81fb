"""Every part of the GPU benchmarks runs at tiny sizes on the CPU: a rented GPU should not find a typing error."""

import subprocess
import sys
import zipfile
from dataclasses import replace
from pathlib import Path

import pytest
import torch

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))
from benchmarks import bench_gpu
from benchmarks.gpu import kernels, step, supervise
from benchmarks.gpu.supervise import BEGIN
from benchmarks.gpu.timing import Bench
from benchmarks.peers.client import interpreter_with
from benchmarks.step_variants import TorchVariant, gate
from ptr_fast.kernels import dispatch
from ptr_fast.kernels.group_norm_act_pool import group_norm_act_pool, reference


def run(*arguments: str) -> None:
    assert bench_gpu.main(["--dry", "--out", "/nonexistent", *arguments]) == 0


PARTS: list = ["build", "tests", "roofline", "sanitizer", "replay", "decode", "counters"]
PARTS += [pytest.param(part, marks=pytest.mark.slow) for part in ("act", "act/compiled", "curves", "compiled")]
PARTS += ["step/r34_64/eager", "step/r34_64/ablations", "step/r34_64/compiled", "step/r34_256/autotuned"]


@pytest.mark.filterwarnings("ignore:Dynamo detected a call:UserWarning")
@pytest.mark.parametrize("part", [*PARTS, "kernels"])
def test_a_part_runs(part, capsys):
    run("--parts", part)
    said = capsys.readouterr().out
    assert "failed" not in said
    assert said.count(BEGIN) == len(bench_gpu._named(part))
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


def test_the_pool_is_held_to_maxima_that_were_not_rounded():
    """In bfloat16 the definition gives gradients to other pixels than float64; a kernel has to give them as float64."""
    (case,) = kernels.group_norm_act_pool(Bench(dry=True, seconds=60.0))
    torch.manual_seed(0)
    x = torch.randn(4, 64, 16, 16).to(torch.bfloat16).requires_grad_()
    weight, bias = (torch.randn(64).requires_grad_() for _ in range(2))

    def pool(wide, dtype):
        return reference.group_norm_act_pool(x.to(wide), weight.to(dtype), bias.to(dtype), 4, 1e-5).to(x.dtype)

    def measure(call):
        leaves, exact = (x, weight, bias), lambda: pool(torch.float64, torch.float64)
        made = replace(case, call=call, leaves=leaves, exact=exact)
        with dispatch.use_backend("group_norm_act_pool=reference"):
            return kernels.measure(Bench(dry=True, seconds=60.0), made, True, "pool")["errors"]["reference"]

    assert measure(lambda: group_norm_act_pool(x, weight, bias, 4, 1e-5)) > 2 * case.error_bound
    assert measure(lambda: pool(torch.float32, torch.float32)) < case.error_bound / 2


def test_what_no_time_was_left_for_is_a_row(supervised):
    failures, rows, _ = supervised("hangs", "two", "three", seconds=1.0)
    assert failures == ["hangs: ended with the whole program's time"]
    assert [(row["case"], "skipped" in row) for row in rows] == [("hangs", False), ("two", True), ("three", True)]


def test_what_a_program_needs_is_compiled_before_in_shares(capsys):
    run("--parts", "prepare,kernels/counter_random")
    said = capsys.readouterr().out
    assert "precompile kernels/counter_random 0/1: code 0" in said
    assert said.index("precompile") < said.index("== part kernels/counter_random")


def test_every_part_belongs_to_one_program_and_begins_with_what_it_needs():
    for program in bench_gpu.PROGRAMS.values():
        assert program[0] == "build"
        assert "prepare" in program[:3]
    told = [part for program in bench_gpu.PROGRAMS.values() for part in program if part not in ("build", "prepare")]
    assert len(told) == len(set(told))
    assert {f"kernels/{op}" for op in kernels.OPS} <= set(told)


def test_a_whole_name_means_that_part_alone_and_a_beginning_all_that_begin_so():
    assert bench_gpu._named("kernels/group_norm_act") == ["kernels/group_norm_act"]
    assert set(bench_gpu._named("sanitizer")) == {"sanitizer/memcheck", "sanitizer/racecheck"}
    assert bench_gpu._named("nothing") == []


class Broken:
    def check(self):
        raise RuntimeError("no kernel image")

    def close(self):
        self.closed = True


def test_a_variant_that_raises_is_dropped_and_the_others_keep_their_row():
    case, broken = step.DRY, Broken()
    variants = {"ours": TorchVariant(case, "ours"), "broken": broken, "plain": TorchVariant(case, "plain")}
    dropped = {}
    found = gate(case, variants, 5e-2, 1.0, dropped)
    assert list(variants) == list(found) == ["ours", "plain"]
    assert dropped == {"broken": "RuntimeError: no kernel image"}
    assert broken.closed
    with pytest.raises(RuntimeError, match="no kernel image"):
        gate(case, {"ours": TorchVariant(case, "ours"), "broken": Broken()}, 5e-2, 1.0)


def test_missing_packages_come_from_the_carried_wheels_and_the_machines_own_stay(monkeypatch, tmp_path):
    from benchmarks.gpu import wheels

    for name in ("numpy-0.0.1-py3-none-any.whl", "carried_along-1.0-py3-none-any.whl"):
        package, version = name.split("-")[:2]
        with zipfile.ZipFile(tmp_path / name, "w") as wheel:
            info = f"{package}-{version}.dist-info"
            wheel.writestr(f"{package}.py", f"VERSION = {version!r}")
            wheel.writestr(f"{info}/METADATA", f"Metadata-Version: 2.1\nName: {package}\nVersion: {version}\n")
            tags = "Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: py3-none-any\n"
            wheel.writestr(f"{info}/WHEEL", tags)
            wheel.writestr(f"{info}/RECORD", "")
    monkeypatch.setattr(wheels, "FOLDER", tmp_path)
    monkeypatch.setenv("PTR_FAST_GPU_SITE", "")
    monkeypatch.setattr(sys, "path", list(sys.path))
    wheels.install()
    (site,) = wheels.folders()
    assert sorted(path.name for path in Path(site).glob("*.py")) == ["carried_along.py"]
    assert sys.path[-1] == site


def test_without_a_gpu_it_says_so(capsys):
    if torch.cuda.is_available():
        pytest.skip("there is a GPU")
    with pytest.raises(SystemExit):
        bench_gpu.main(["--parts", "roofline"])
    assert "no GPU" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("option", "value", "message"),
    [
        ("--share", "x", "--share: expected i/n with 0 <= i < n, got 'x'"),
        ("--share", "2/2", "--share: expected i/n with 0 <= i < n, got '2/2'"),
        ("--seconds", "-5", "--seconds: expected a number from 0, got -5"),
        ("--seconds", "nan", "--seconds: expected a number from 0, got nan"),
    ],
)
def test_options_without_sense_are_refused(option, value, message, capsys):
    with pytest.raises(SystemExit) as end:
        bench_gpu.main(["--dry", "--parts", "roofline", option, value])
    assert end.value.code == 2
    assert message in capsys.readouterr().err


def test_wheels_that_are_not_to_be_had_are_one_line_and_leave_nothing(monkeypatch, tmp_path):
    from benchmarks.gpu import wheels

    monkeypatch.setattr(wheels, "FOLDER", tmp_path / "wheels")

    def pip(command, **_):
        folder = Path(command[command.index("-d") + 1])
        folder.mkdir()
        (folder / "large.whl").write_bytes(bytes(100))
        return subprocess.CompletedProcess(command, 0)

    monkeypatch.setattr(wheels.subprocess, "run", pip)
    monkeypatch.setattr(wheels, "MAX_BYTES", 10)
    with pytest.raises(SystemExit, match=r"^gpu-wheels: 0 MiB, expected at most 0 MiB$"):
        wheels.main(["--python", "3.12"])
    assert not list(tmp_path.iterdir())
