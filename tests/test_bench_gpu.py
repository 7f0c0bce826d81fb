"""Every section of the GPU benchmarks runs at tiny sizes on the CPU: a rented GPU should not find a typing error."""

import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from benchmarks import bench_gpu
from benchmarks.peers.client import interpreter_with


def run(*arguments: str) -> None:
    assert bench_gpu.main(["--dry", "--out", "/nonexistent", *arguments]) == 0


@pytest.mark.parametrize("section", ["build", "roofline", "kernels", "act", "touch"])
def test_a_section_runs(section, capsys):
    run("--sections", section)
    assert "failed" not in capsys.readouterr().out


@pytest.mark.parametrize("group", ["eager", "ablations", "compiled", "autotuned"])
def test_a_group_of_steps_passes_its_gate_and_runs(group, capsys):
    run("--sections", "step", "--groups", group)
    assert "gate" in capsys.readouterr().out


@pytest.mark.parametrize("group", ["jax", "jax_reference"])
def test_the_steps_in_jax_pass_their_gate(group, capsys):
    if interpreter_with("jax", "flax", "optax") is None:
        pytest.skip("jax, flax and optax are not installed (make peers)")
    run("--sections", "step", "--groups", group)
    assert "gate" in capsys.readouterr().out


def test_without_a_gpu_it_says_so(capsys):
    import torch

    if torch.cuda.is_available():
        pytest.skip("there is a GPU")
    with pytest.raises(SystemExit):
        bench_gpu.main(["--sections", "roofline"])
    assert "no GPU" in capsys.readouterr().err
