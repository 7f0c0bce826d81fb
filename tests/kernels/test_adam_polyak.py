"""adam_polyak: three steps against float64, torch.optim.Adam with a lerp, and what moves tensors or their layout."""

from __future__ import annotations

import copy
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from ptr_fast import native
from ptr_fast.kernels import dispatch, triton_backend
from ptr_fast.kernels.adam_polyak import Operands, adam_polyak
from ptr_fast.learners.optimizer import AdamPolyak

sys.path.insert(0, str(Path(__file__).parents[1]))
from tape import TapeRecorder

LAST = torch.channels_last

# shapes of the tensors of one pass, with the reason
CASES = {
    "scalar_temperature": [()],
    "biases_and_odd_sizes": [(1,), (7,), (15, 3), (31,), (16,), (17,)],
    "convolution_channels_last": [(8, 5, 3, 3), (6, 4, 1, 1), (8,)],
    "several_chunks_and_a_tail": [(3, 2741), (4096,), (5,)],
    "more_tensors_than_a_block_of_scalars": [(2,)] * 33,
    "an_empty_tensor": [(0, 4), (3,)],
}
NUM_STEPS, TAU = 3, 0.1
OPTIONS = {
    "average": {},
    "none": {"averages": False},
    "decay": {"weight_decay": 0.3},
    "clipped": {"max_grad_norm": 0.5},
    "not clipped": {"max_grad_norm": 1e6},
    "decay, clipped, none": {"weight_decay": 0.3, "max_grad_norm": 0.5, "averages": False},
}

BACKENDS = [
    pytest.param("reference"),
    pytest.param("native", marks=pytest.mark.skipif(native.module() is None, reason=str(native.why_missing()))),
    pytest.param("triton", marks=pytest.mark.triton),
]
DEVICES = [
    "cpu",
    pytest.param(
        "cuda", marks=[pytest.mark.cuda, pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no GPU")]
    ),
]


def use(backend: str, device: str):
    """The backend forced; skips where it cannot run on the device."""
    if backend == "triton":
        pytest.importorskip("triton")
        if (device == "cpu") != triton_backend.interpreting():
            pytest.skip("the interpreter is for CPU tensors, GPUs run compiled kernels")
    if backend == "native" and device != "cpu":
        pytest.skip("the native kernel is for the CPU")
    return dispatch.use_backend(f"adam_polyak={backend}")


def normal(shapes: list[tuple[int, ...]], seed: int) -> list[torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    tensors = [torch.randn(shape, generator=generator) for shape in shapes]
    return [t.contiguous(memory_format=LAST) if t.ndim == 4 else t for t in tensors]


def operands(shapes, dtype=torch.float32, device="cpu", *, averages=True) -> Operands:
    parameters = [t.to(device, dtype) for t in normal(shapes, 0)]
    return Operands(
        parameters,
        [torch.zeros_like(p) for p in parameters],
        [torch.zeros_like(p) for p in parameters],
        torch.zeros(len(parameters), device=device),
        [t.to(device, dtype) for t in normal(shapes, 1)] if averages else None,
    )


def gradients(shapes, step: int, dtype=torch.float32, device="cpu") -> list[torch.Tensor | None]:
    out: list[torch.Tensor | None] = [t.to(device, dtype) for t in normal(shapes, 10 + step)]
    if step == 1 and len(out) > 1:
        out[1] = None  # only its average moves
    return out


def run(shapes, dtype=torch.float32, device="cpu", averages=True, **options) -> dict[str, list[torch.Tensor]]:
    state = operands(shapes, dtype, device, averages=averages)
    for step in range(NUM_STEPS):
        adam_polyak(state, gradients(shapes, step, dtype, device), 1e-2 / (1 + step), tau=TAU, **options)
    out = {"parameter": state.parameters, "exp_avg": state.exp_avgs, "exp_avg_sq": state.exp_avg_sqs}
    out |= {"average": state.averages or [], "step": [state.steps_N]}
    return {name: [t.cpu() for t in tensors] for name, tensors in out.items()}


def check(got: dict, exact: dict, plain: dict) -> None:
    for name in exact:
        for ours, wanted, torchs in zip(got[name], exact[name], plain[name], strict=True):
            if not wanted.numel():
                continue
            scale = wanted.abs().max().item() + 1e-30
            error = (ours.double() - wanted).abs().max().item() / scale
            bound = max(2 * (torchs.double() - wanted).abs().max().item() / scale, 1e-6)
            assert error <= bound, f"{name}: {error:.2e} > {bound:.2e}"


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("options", OPTIONS.values(), ids=OPTIONS.keys())
@pytest.mark.parametrize("shapes", CASES.values(), ids=CASES.keys())
@pytest.mark.parametrize("backend", BACKENDS[1:])
def test_parity(backend, shapes, options, device) -> None:
    with dispatch.use_backend("adam_polyak=reference"):
        exact, plain = run(shapes, torch.float64, **options), run(shapes, **options)
    with use(backend, device):
        got, again = run(shapes, device=device, **options), run(shapes, device=device, **options)
    check(got, {name: [t.double() for t in tensors] for name, tensors in exact.items()}, plain)
    for name, tensors in got.items():
        assert all(torch.equal(a, b) for a, b in zip(tensors, again[name], strict=True)), name


@pytest.mark.skipif(native.module() is None, reason=str(native.why_missing()))
@pytest.mark.parametrize("isa", native.build_info()["isas"].split() if native.module() is not None else [])
@pytest.mark.parametrize("regularised", [False, True], ids=["plain", "decay and clipping"])
def test_every_instruction_set_and_any_number_of_threads(isa, regularised) -> None:
    shapes, before, threads = [(5,), (3, 40_000), (131, 7)], native.isa(), torch.get_num_threads()
    options = {"weight_decay": 0.3, "max_grad_norm": 0.5} if regularised else {}
    with dispatch.use_backend("adam_polyak=reference"):
        exact, plain = run(shapes, torch.float64, **options), run(shapes, **options)
    try:
        try:
            native.set_isa(isa)
        except ValueError as error:
            pytest.skip(str(error))
        with dispatch.use_backend("adam_polyak=native"):
            one = run(shapes, **options)
            torch.set_num_threads(3)
            three = run(shapes, **options)
    finally:
        native.set_isa(before)
        torch.set_num_threads(threads)
    check(one, {name: [t.double() for t in tensors] for name, tensors in exact.items()}, plain)
    assert all(torch.equal(a, b) for name in one for a, b in zip(one[name], three[name], strict=True))


@pytest.mark.parametrize("tau", [0.0, 0.005, 0.7, 1.0])
@pytest.mark.parametrize("backend", BACKENDS)
def test_averages_are_those_of_lerp_exact_at_both_ends(backend, tau) -> None:
    shapes = [(3, 11), (20,)]
    state = operands(shapes)
    before = [t.clone() for t in state.averages]
    with use(backend, "cpu"):
        adam_polyak(state, gradients(shapes, 0), 1e-2, tau=tau)
    for average, old, parameter in zip(state.averages, before, state.parameters, strict=True):
        torch.testing.assert_close(average, torch.lerp(old, parameter, tau), rtol=1e-6, atol=1e-6)
        if tau in (0.0, 1.0):
            assert torch.equal(average, parameter if tau else old)


@pytest.mark.parametrize("backend", BACKENDS)
def test_gradients_of_another_layout_or_alignment(backend) -> None:
    shapes = [(8, 5, 3, 3), (9, 6)]
    aligned, other = operands(shapes), operands(shapes)
    given = normal(shapes, 3)
    room = torch.empty(given[1].numel() + 1)  # four bytes after a multiple of 16
    shifted = room[1:].view(given[1].shape).copy_(given[1])
    with use(backend, "cpu"):
        adam_polyak(aligned, given, 1e-2, tau=TAU)
        adam_polyak(other, [given[0].contiguous(), shifted], 1e-2, tau=TAU)
    for a, b in zip(aligned.parameters + aligned.averages, other.parameters + other.averages, strict=True):
        assert torch.equal(a, b)


@pytest.mark.filterwarnings("ignore:invalid value encountered:RuntimeWarning")  # numpy, in the interpreter
@pytest.mark.parametrize("backend", BACKENDS)
def test_nan_and_infinity_arrive(backend) -> None:
    given = torch.tensor([1.0, torch.nan, torch.inf, 0.0])
    state = operands([(4,)])
    with use(backend, "cpu"):
        adam_polyak(state, [given], 1e-2, tau=TAU)
    for tensor in (state.parameters[0], state.averages[0]):
        assert tensor.isnan().tolist() == [False, True, True, False]
    # inf / sqrt(inf) is a NaN; a gradient of 0 moves nothing
    assert torch.equal(state.parameters[0][3], normal([(4,)], 0)[0][3])


def test_mistakes_are_named() -> None:
    shapes = [(2, 3), (4,)]
    state = operands(shapes)
    with pytest.raises(ValueError, match="gradient 1"):
        adam_polyak(state, [torch.zeros(2, 3), torch.zeros(5)], 1e-2)
    for name in ("weight_decay", "max_grad_norm"):
        with pytest.raises(ValueError, match=f"expected no negative number, got .*{name} -1"):
            adam_polyak(state, [None, None], 1e-2, **{name: -1.0})
    with pytest.raises(ValueError, match="tau"):
        adam_polyak(state, [None, None], 1e-2, tau=2.0)
    p = state.parameters
    with pytest.raises(ValueError, match="at least one"):
        Operands([], [], [], torch.zeros(0))
    with pytest.raises(ValueError, match="expected 2 exp_avgs, got 1"):
        Operands(p, p[:1], p, torch.zeros(2))
    with pytest.raises(ValueError, match=r"averages\[0\].*strides"):
        Operands(p, p, p, torch.zeros(2), [torch.zeros(3, 2).t(), p[1]])
    with pytest.raises(ValueError, match="steps"):
        Operands(p, p, p, torch.zeros(3))


def net() -> torch.nn.Module:
    torch.manual_seed(0)
    layers = torch.nn.Conv2d(3, 6, 3), torch.nn.Flatten(), torch.nn.Linear(6 * 36, 5)
    return torch.nn.Sequential(*layers).to(memory_format=LAST)


def backward(model: torch.nn.Module, seed: int) -> None:
    images = torch.randn(2, 3, 8, 8, generator=torch.Generator().manual_seed(seed)).contiguous(memory_format=LAST)
    model.zero_grad(set_to_none=True)
    model(images).square().sum().backward()


def test_the_optimiser_follows_torch_optim_adam_and_trades_states_with_it() -> None:
    ours, theirs = net(), net()
    average, their_average = copy.deepcopy(ours), copy.deepcopy(theirs)
    adam_polyak_ = AdamPolyak(list(ours.parameters()), 1e-2, list(average.parameters()), 0.05)
    adam = torch.optim.Adam(theirs.parameters(), lr=1e-2, betas=(0.9, 0.999), eps=1e-8, fused=True)

    def both(seed: int) -> None:
        backward(ours, seed)
        backward(theirs, seed)
        adam_polyak_.step()
        adam.step()
        with torch.no_grad():
            torch._foreach_lerp_(list(their_average.parameters()), list(theirs.parameters()), 0.05)
        for mine, other in ((ours, theirs), (average, their_average)):
            for a, b in zip(mine.parameters(), other.parameters(), strict=True):
                torch.testing.assert_close(a, b, rtol=1e-6, atol=1e-7)

    for seed in range(4):
        both(seed)
    mine, other = adam_polyak_.state_dict(), adam.state_dict()
    assert mine["state"].keys() == other["state"].keys()
    assert all(mine["state"][i].keys() == other["state"][i].keys() for i in other["state"])
    assert mine["param_groups"][0].keys() == other["param_groups"][0].keys()
    swapped = copy.deepcopy((mine, other))
    adam.load_state_dict(swapped[0])
    adam_polyak_.load_state_dict(swapped[1])
    for seed in range(4, 6):
        both(seed)


@pytest.mark.parametrize("max_grad_norm", [0.5, 1e6], ids=["clipped", "not clipped"])
@pytest.mark.parametrize("backend", BACKENDS)
def test_decay_and_clipping_are_those_of_adamw_and_clip_grad_norm(backend, max_grad_norm) -> None:
    ours, theirs = net(), net()
    mine = AdamPolyak(list(ours.parameters()), 1e-2, weight_decay=0.2, max_grad_norm=max_grad_norm)
    adamw = torch.optim.AdamW(theirs.parameters(), lr=1e-2, betas=(0.9, 0.999), eps=1e-8, weight_decay=0.2)
    for seed in range(4):
        backward(ours, seed)
        backward(theirs, seed)
        before = [p.grad.clone() for p in ours.parameters()]
        norm = torch.nn.utils.clip_grad_norm_(theirs.parameters(), max_grad_norm)
        assert (norm > max_grad_norm) == (max_grad_norm < 1.0)
        with use(backend, "cpu"):
            mine.step()
        adamw.step()
        assert all(torch.equal(a, p.grad) for a, p in zip(before, ours.parameters(), strict=True))
        for a, b in zip(ours.parameters(), theirs.parameters(), strict=True):
            torch.testing.assert_close(a, b, rtol=1e-5, atol=1e-6)
    assert mine.state_dict()["param_groups"][0]["weight_decay"] == 0.2


def test_the_decay_is_the_optimisers_own_whatever_is_loaded() -> None:
    model = net()
    plain = AdamPolyak(list(model.parameters()), 1e-2)
    backward(model, 0)
    plain.step()
    decayed = AdamPolyak(list(model.parameters()), 1e-2, weight_decay=0.2)
    decayed.load_state_dict(copy.deepcopy(plain.state_dict()))
    assert decayed.param_groups[0]["weight_decay"] == 0.2
    plain.load_state_dict(copy.deepcopy(decayed.state_dict()))
    assert plain.param_groups[0]["weight_decay"] == 0.0


@pytest.mark.filterwarnings("ignore::RuntimeWarning")  # numpy, in the interpreter
@pytest.mark.parametrize("backend", BACKENDS)
def test_a_norm_that_is_not_finite_is_not_hidden(backend) -> None:
    shapes = [(4,), (3,)]
    for value, is_nan in ((torch.nan, [True, True, True, True]), (torch.inf, [False, True, False, False])):
        state = operands(shapes)
        given = normal(shapes, 3)
        given[0][1] = value
        with use(backend, "cpu"):
            adam_polyak(state, given, 1e-2, max_grad_norm=1.0)
        assert state.parameters[0].isnan().tolist() == is_nan
        assert state.parameters[1].isnan().tolist() == is_nan[:1] * 3


def test_a_replayed_step_decays_by_the_rate_of_its_turn_and_nothing_is_read_back() -> None:
    shapes = [(5,), (3, 4)]
    eager, captured = operands(shapes), operands(shapes)
    given, rate = normal(shapes, 3), torch.tensor(1e-2)
    options = {"weight_decay": 0.3, "max_grad_norm": 0.5}
    with dispatch.use_backend("adam_polyak=reference"):
        state = [*captured.written, *captured.exp_avgs, *captured.exp_avg_sqs, captured.steps_N]
        replay = TapeRecorder(lambda: state).capture(lambda: adam_polyak(captured, given, rate, tau=TAU, **options))
        for step in range(3):
            rate.fill_(1e-2 / (1 + step))
            replay()
            adam_polyak(eager, given, rate, tau=TAU, **options)
    assert all(torch.equal(a, b) for a, b in zip(eager.written, captured.written, strict=True))


def test_a_loaded_state_keeps_its_memory_and_takes_the_layout_of_the_parameters() -> None:
    model = net()
    optimizer = AdamPolyak(list(model.parameters()), 1e-2)
    backward(model, 0)
    optimizer.step()
    weight = next(model.parameters())
    moment = optimizer.state[weight]["exp_avg"]
    saved = copy.deepcopy(optimizer.state_dict())
    saved["state"] = {i: {k: v.contiguous() for k, v in entry.items()} for i, entry in saved["state"].items()}
    wanted = moment.clone()
    backward(model, 1)
    optimizer.step()
    optimizer.load_state_dict(saved)
    assert optimizer.state[weight]["exp_avg"] is moment
    assert torch.equal(moment, wanted)
    assert moment.stride() == weight.stride()
    assert [entry["step"].item() for entry in optimizer.state.values()] == [1.0, 1.0, 1.0, 1.0]
    with pytest.raises(ValueError, match="parameter group"):
        AdamPolyak([weight], 1e-2).load_state_dict(saved)


def test_parameters_that_move_are_found_again() -> None:
    model, same = net(), net()
    average, same_average = copy.deepcopy(model), copy.deepcopy(same)
    first = AdamPolyak(list(model.parameters()), 1e-2, list(average.parameters()), 0.05)
    second = AdamPolyak(list(same.parameters()), 1e-2, list(same_average.parameters()), 0.05)
    for seed in range(3):
        for one in (model, same):
            backward(one, seed)
        first.step()
        second.step()
        for module in (model, average):  # new memory
            for p in module.parameters():
                p.data = p.data.clone()
    for one, other in ((model, same), (average, same_average)):
        assert all(torch.equal(a, b) for a, b in zip(one.parameters(), other.parameters(), strict=True))


def test_a_graph_over_the_old_weights_is_refused() -> None:
    model = net()
    optimizer = AdamPolyak(list(model.parameters()), 1e-2)
    images = torch.randn(2, 3, 8, 8, requires_grad=True)
    loss = model(images).square().sum()
    loss.backward(retain_graph=True)
    optimizer.step()
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        loss.backward()


@pytest.mark.cuda
@pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no GPU")
def test_a_captured_step_replays_with_the_count_and_rate_of_its_turn() -> None:
    def make() -> tuple[torch.nn.Module, AdamPolyak]:
        model = net().cuda()
        average = copy.deepcopy(model).requires_grad_(False)
        return model, AdamPolyak(list(model.parameters()), 1e-2, list(average.parameters()), 0.05)

    images = torch.randn(2, 3, 8, 8, device="cuda").contiguous(memory_format=LAST)

    def step(model: torch.nn.Module, optimizer: AdamPolyak) -> None:
        optimizer.zero_grad(set_to_none=True)
        model(images).square().sum().backward()
        optimizer.step()

    eager, captured = make(), make()
    stream = torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        for _ in range(2):
            step(*captured)
    torch.cuda.current_stream().wait_stream(stream)
    graph = torch.cuda.CUDAGraph()
    captured[1].zero_grad(set_to_none=True)
    with torch.cuda.graph(graph):
        step(*captured)
    for _ in range(2):
        step(*eager)
    for turn in range(3):
        for optimizer in (eager[1], captured[1]):
            optimizer.param_groups[0]["lr"].fill_(1e-2 / (1 + turn))
        step(*eager)
        graph.replay()
    for a, b in zip(eager[0].parameters(), captured[0].parameters(), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-5, atol=1e-6)


def test_training_does_not_load_the_compiler() -> None:
    program = """
import sys, torch
from ptr_fast.learners.optimizer import AdamPolyak
weight = torch.nn.Parameter(torch.ones(3))
optimizer = AdamPolyak([weight], 0.1)
weight.square().sum().backward()
optimizer.step()
optimizer.zero_grad(set_to_none=True)
optimizer.load_state_dict(optimizer.state_dict())
assert "torch._dynamo" not in sys.modules
"""
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).resolve().parents[2])}
    subprocess.run([sys.executable, "-c", program], check=True, env=environment, timeout=120)
