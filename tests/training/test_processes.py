"""How a process is set up for a learner: what is refused before anything is written, and what the first line says."""

import pytest
import torch

from ptr_robot.training import processes as launch
from ptr_robot.training.config import LoopConfig


@pytest.fixture
def settings_restored():
    cudnn = torch.backends.cudnn.benchmark, torch.backends.cudnn.deterministic, torch.backends.cudnn.allow_tf32
    matmul, fill = torch.backends.cuda.matmul.allow_tf32, torch.utils.deterministic.fill_uninitialized_memory
    algorithms = torch.are_deterministic_algorithms_enabled()
    yield
    torch.backends.cudnn.benchmark, torch.backends.cudnn.deterministic, torch.backends.cudnn.allow_tf32 = cudnn
    torch.backends.cuda.matmul.allow_tf32, torch.utils.deterministic.fill_uninitialized_memory = matmul, fill
    torch.use_deterministic_algorithms(algorithms)


@pytest.mark.parametrize("deterministic", [False, True])
def test_how_a_gpu_chooses_its_kernels_is_set_and_told(deterministic, settings_restored, monkeypatch, capsys):
    monkeypatch.setattr(launch, "pick_device", lambda name: torch.device("cuda"))
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: (9, 0))
    monkeypatch.setenv("CUBLAS_WORKSPACE_CONFIG", "")  # so that it is restored
    monkeypatch.delenv("CUBLAS_WORKSPACE_CONFIG")
    loop, _ = launch.prepare_process(LoopConfig(deterministic=deterministic))
    assert loop.precision == "bf16"
    assert torch.backends.cudnn.benchmark is not deterministic
    assert torch.backends.cudnn.deterministic is deterministic
    assert torch.are_deterministic_algorithms_enabled() is deterministic
    assert not torch.utils.deterministic.fill_uninitialized_memory
    assert ("CUBLAS_WORKSPACE_CONFIG" in launch.os.environ) is deterministic
    told = "deterministic" if deterministic else "the fastest convolutions by time"
    assert capsys.readouterr().out == f"training on cuda in bf16, {told}\n"


def test_the_cpu_has_nothing_to_choose(settings_restored, capsys):
    before = torch.backends.cudnn.benchmark
    launch.prepare_process(LoopConfig(device="cpu", deterministic=True))
    assert torch.backends.cudnn.benchmark is before
    assert not torch.are_deterministic_algorithms_enabled()
    assert capsys.readouterr().out == "training on cpu in fp32\n"


def test_a_backend_of_another_device_is_refused(monkeypatch):
    monkeypatch.delenv("TRITON_INTERPRET", raising=False)
    monkeypatch.setenv("PTR_FAST_BACKEND", "cql_head=triton")
    with pytest.raises(ValueError, match=r"cql_head has no backend 'triton' here .*on this cpu it has \['native'"):
        launch.prepare_process(LoopConfig(device="cpu"))


@pytest.mark.parametrize(
    ("name", "value"), [("memory_gib", float("inf")), ("memory_gib", float("nan")), ("rank_timeout_s", float("nan"))]
)
def test_a_number_that_is_none_is_refused_by_name(name, value):
    with pytest.raises(ValueError, match=f"{name} must lie in .*, got {value}"):
        LoopConfig(**{name: value})
