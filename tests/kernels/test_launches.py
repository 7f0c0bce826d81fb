"""Every Triton kernel that the product launches, compiled and launched as on a GPU, without one.

``python -m benchmarks.registers`` runs updates, actions and samplers under a driver that writes launches down
(``benchmarks/launches.py``). It fails on a grid or an argument that a GPU would refuse, and on too much shared memory.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterable
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

pytest.importorskip("triton")

from benchmarks import launches
from benchmarks.launch_cases import CASES, QUICK

REPOSITORY = Path(__file__).resolve().parents[2]
KERNELS = {
    "adam_polyak": {"_scalars", "_squares", "_gradient_scale", "_update"},
    "augment": {"augment_kernel"},
    "counter_random": {"counter_random_kernel"},
    "cql_head": {"cql_head_forward_kernel", "cql_head_backward_kernel"},
    "group_norm_act": {"forward_resident", "forward_streamed", "backward_resident", "backward_streamed"},
    "group_norm_act_pool": {"forward", "backward"},
    "spatial_embedding": {"_contract", "_expand"},
}
pytestmark = pytest.mark.triton


def start(cases: Iterable[str], architecture: int, *extra_paths: Path) -> subprocess.Popen[str]:
    """A process of its own: the interpreter, which these tests run in, must be off."""
    environment = {name: value for name, value in os.environ.items() if name != "TRITON_INTERPRET"}
    paths = [*extra_paths, REPOSITORY, REPOSITORY / "python", environment.get("PYTHONPATH", "")]
    environment |= {"PYTHONPATH": os.pathsep.join(map(str, paths)), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-m", "benchmarks.registers", "--json", "--architecture", str(architecture), *cases]
    return subprocess.Popen(
        command, env=environment, cwd=REPOSITORY, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )


def rows_of(processes: list[subprocess.Popen[str]]) -> list[dict]:
    """What they wrote down; no kernel may spill."""
    rows = []
    try:
        for process in processes:
            out, errors = process.communicate()
            assert process.returncode == 0, errors[-4000:]
            rows += [json.loads(line) for line in out.splitlines()]
    finally:
        for process in processes:
            process.kill()
    assert [row for row in rows if row["spilled_bytes"]] == []
    return rows


def check_kernels(rows: list[dict]) -> None:
    found = {row["kernel"] for row in rows}
    for op, kernels in KERNELS.items():
        assert kernels <= found, op


@pytest.mark.timeout(1200)
def test_what_is_run_most_launches_on_sm_90_and_spills_nothing():
    rows = rows_of([start(QUICK, 90)])
    check_kernels(rows)
    values = " ".join(row["arguments"] for row in rows)
    sizes = ("num_samples=1", "num_actions=1", "M=1", "B=1", "F=1")
    for constant in (*sizes, "YUV420=True", "ALIGNED=False", "CLIPS=True", "WEIGHT_DECAY=0.1"):
        assert constant in values, constant


@pytest.mark.slow
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("architecture", launches.ARCHITECTURES)
def test_everything_launches_on_every_architecture_and_spills_nothing(architecture):
    names = list(CASES)
    rows = rows_of([start(names[i::2], architecture) for i in range(2)])
    check_kernels(rows)
    assert "scale_kernel" in {row["kernel"] for row in rows}


@pytest.mark.slow
@pytest.mark.timeout(7200)
def test_the_oldest_triton_launches_the_same(tmp_path):
    """3.6 is what PyTorch 2.11 brings; its compiler takes other registers than that of later versions."""
    command = [sys.executable, "-m", "pip", "install", "-q", "--no-deps", "--target", str(tmp_path), "triton==3.6.0"]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode != 0:
        pytest.skip(f"triton 3.6.0 cannot be installed here: {done.stderr[-300:]}")
    names = list(CASES)
    for architecture in launches.ARCHITECTURES:
        check_kernels(rows_of([start(names[i::2], architecture, tmp_path) for i in range(2)]))


def test_compiling_refuses_to_run_in_the_interpreter(monkeypatch):
    monkeypatch.setenv("TRITON_INTERPRET", "1")
    with pytest.raises(RuntimeError, match="another process"), launches.recorded(90):
        pass


META, HERE = torch.empty(2, device="meta"), torch.empty(2)


@pytest.mark.parametrize(
    ("grid", "kind", "value", "message"),
    [
        ((0, 1, 1), "i32", 1, r"a grid of \(0, 1, 1\)"),
        ((1, 65_536, 1), "i32", 1, "the limits are"),
        ((1, 1, 1), "i32", 2**31, "toy: x is a i32, got 2147483648"),
        ((1, 1, 1), "i32", 1.0, "toy: x is a i32, got 1.0"),
        ((1, 1, 1), "*fp32", HERE, "got torch.float32 on cpu"),
        ((1, 1, 1), "*fp32", None, "got None"),
        ((1, 1, 1), "fp32", META, "got torch.float32 on meta"),
    ],
)
def test_what_a_gpu_would_refuse_is_refused(grid, kind, value, message):
    source = SimpleNamespace(name="toy", signature={"x": kind})
    launcher = launches._Launcher(source, SimpleNamespace(), 90, [])
    with pytest.raises(ValueError, match=message):
        launcher(*grid, 0, None, None, None, None, None, value)
