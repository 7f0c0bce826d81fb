"""cql_head: outputs and all gradients against float64; errors at most twice those of plain PyTorch."""

from __future__ import annotations

import gc
import math
import weakref

import pytest
import torch
from cql_head_cases import CASES, Case, arguments, call, double, make, run
from torch.utils.dlpack import to_dlpack

from ptr_fast import native
from ptr_fast.kernels import dispatch
from ptr_fast.kernels.cql_head import cql_head, row_sums
from ptr_fast.kernels.cql_head import native as native_op
from ptr_fast.kernels.cql_head import reference as reference_op

needs_native = pytest.mark.skipif(native.module() is None, reason=str(native.why_missing()))


def check_parity(op, given: dict[str, torch.Tensor | None], with_lse: bool = True, floor: float = 1e-6) -> None:
    exact = run(reference_op.cql_head, double(given), with_lse)
    plain = run(reference_op.cql_head, given, with_lse)
    ours = run(op, given, with_lse)
    for name, wanted in exact.items():
        assert ours[name].shape == wanted.shape, name
        scale = wanted.abs().max().item() + 1e-30
        error = (ours[name].double() - wanted).abs().max().item() / scale
        torch_error = (plain[name].double() - wanted).abs().max().item() / scale
        assert error <= max(2 * torch_error, floor), f"{name}: error {error:.2e}, PyTorch's {torch_error:.2e}"


def check_tf32_parity(op, given: dict[str, torch.Tensor | None]) -> None:
    """Errors of the whole tensor: single gradients jump where rounding turns a ReLU over."""
    exact, ours = run(reference_op.cql_head, double(given)), run(op, given)
    for name, wanted in exact.items():
        assert ours[name].shape == wanted.shape, name
        finite = wanted.isfinite()
        error = (ours[name].double() - wanted)[finite].norm() / (wanted[finite].norm() + 1e-30)
        assert float(error) <= (5e-3 if name in ("q", "lse") else 0.1), f"{name}: error {float(error):.2e}"


def by_concatenation(given: dict[str, torch.Tensor | None]) -> tuple[torch.Tensor, torch.Tensor]:
    """Row by row in the widest sense: one state, one action, one head at a time."""
    actions = given["actions"]
    (B, K, _), E = actions.shape, given["state0"].shape[0]
    q = torch.empty(E, B, K, dtype=actions.dtype)
    for e in range(E):
        for b in range(B):
            for k in range(K):
                hidden = None
                for i in range(99):
                    if f"state{i}" not in given:
                        break
                    term = given[f"state{i}"][e]
                    out = term[b if len(term) == B else 0]
                    if given[f"action{i}"] is not None:
                        out = out + actions[b, k] @ given[f"action{i}"][e]
                    if hidden is not None:
                        out = out + hidden @ given[f"hidden{i}"][e]
                    hidden = out.relu()
                q[e, b, k] = out[0]
    return q, (q + given["log_weight"]).logsumexp(dim=2)


@pytest.mark.parametrize("name", ["papers_form", "action_again_but_no_state", "one_hidden_layer"])
def test_the_reference_is_the_definition(name: str) -> None:
    given = double(make(CASES[name]))
    q, lse = call(reference_op.cql_head, given)
    wanted_q, wanted_lse = by_concatenation(given)
    torch.testing.assert_close(q, wanted_q, rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(lse, wanted_lse, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("with_lse", [True, False], ids=["lse", "q_alone"])
@pytest.mark.parametrize("case", CASES.values(), ids=CASES.keys())
def test_native_parity(case: Case, with_lse: bool, each_isa: str) -> None:
    check_parity(native_op.cql_head, make(case), with_lse)


@needs_native
@pytest.mark.parametrize("name", ["papers_form", "plain_form", "odd_widths"])
def test_native_gradients_of_some_inputs_alone(name: str) -> None:
    """The actor step wants the gradient of the actions, a frozen head those of the state terms."""
    given, every = make(CASES[name]), run(native_op.cql_head, make(CASES[name]))
    for wanted in (["actions"], ["state0"], ["state1", "hidden1"], ["hidden2"], ["action0"]):
        leaves = {w: given[w].detach().requires_grad_() for w in wanted}
        outputs = call(native_op.cql_head, {**given, **leaves})
        got = torch.autograd.grad(outputs, list(leaves.values()), (given["dq"], given["dlse"]))
        for w, gradient in zip(wanted, got, strict=True):
            assert torch.equal(gradient, every[f"d{w}"]), w


@needs_native
def test_native_takes_either_output_alone() -> None:
    given = make(CASES["papers_form"])
    leaf = given["state0"].requires_grad_()
    for i in (0, 1):
        weight = given[("dq", "dlse")[i]]
        (ours,) = torch.autograd.grad(call(native_op.cql_head, given)[i], leaf, weight)
        (plain,) = torch.autograd.grad(call(reference_op.cql_head, given)[i], leaf, weight)
        torch.testing.assert_close(ours, plain, rtol=1e-4, atol=1e-5)


@needs_native
def test_native_reads_any_layout() -> None:
    given = make(CASES["papers_form"])
    wanted = run(native_op.cql_head, given)
    other = {
        name: None if t is None else t.transpose(-1, -2).contiguous().transpose(-1, -2) for name, t in given.items()
    }
    other["dlse"] = given["dlse"].t().contiguous().t()
    for name, value in run(native_op.cql_head, other).items():
        assert torch.equal(value, wanted[name]), name
    shared = torch.ones(1).expand_as(given["dq"])
    (expanded,) = torch.autograd.grad(
        call(native_op.cql_head, {**given, "state0": (s := given["state0"].requires_grad_())})[0], s, shared
    )
    (dense,) = torch.autograd.grad(call(native_op.cql_head, given)[0], s, shared.contiguous())
    assert torch.equal(expanded, dense)


@needs_native
def test_native_bits_are_the_same_for_any_number_of_threads_and_again() -> None:
    given = make(Case(2, 300, 9, 7, (64, 64)))
    before = torch.get_num_threads()
    try:
        torch.set_num_threads(1)
        first = run(native_op.cql_head, given)
        for threads in (1, 2, 5):
            torch.set_num_threads(threads)
            for name, value in run(native_op.cql_head, given).items():
                assert torch.equal(value, first[name]), f"{name} with {threads} threads"
    finally:
        torch.set_num_threads(before)


def both_passes(given: dict[str, torch.Tensor | None], keep: bool) -> tuple[object, list[torch.Tensor]]:
    """What the native forward pass kept, and all that both passes wrote, over NaN."""
    num_layers = sum(name.startswith("state") for name in given)
    parts = [
        [given.get(f"{name}{i}") for i in range(first, num_layers)]
        for name, first in (("state", 0), ("action", 0), ("hidden", 1))
    ]
    capsules = [tuple(None if t is None else to_dlpack(t) for t in part) for part in parts]
    nans = [[None if t is None else torch.full(t.shape, math.nan) for t in part] for part in parts]
    q, lse, da = (torch.full(given[n].shape, math.nan) for n in ("dq", "dlse", "actions"))
    actions, log_weight, dq, dlse = (to_dlpack(given[n]) for n in ("actions", "log_weight", "dq", "dlse"))
    module = native.require()
    kept = module.cql_head_forward(*capsules, actions, log_weight, to_dlpack(q), to_dlpack(lse), keep, 1)
    gradients = [tuple(None if t is None else to_dlpack(t) for t in part) for part in nans]
    module.cql_head_backward(
        *capsules, actions, log_weight, to_dlpack(q), to_dlpack(lse), kept, dq, dlse, *gradients, to_dlpack(da), 1
    )
    return kept, [q, lse, da, *(t for part in nans for t in part if t is not None)]


@needs_native
@pytest.mark.parametrize("name", ["odd_widths", "papers_form", "more_rows_than_a_tile"])
def test_native_writes_every_element_the_same_kept_or_recomputed(name: str, each_isa: str) -> None:
    given = make(CASES[name])
    kept, written = both_passes(given, keep=True)
    nothing, recomputed = both_passes(given, keep=False)
    assert kept is not None
    assert nothing is None
    for a, b in zip(written, recomputed, strict=True):
        assert torch.isfinite(a).all()
        assert torch.equal(a, b)


@needs_native
def test_native_keeps_no_more_than_32_mib() -> None:
    large = Case(1, 400, 20, 2, (1040,))
    assert 400 * 20 * 1040 * 4 < 32 << 20, "with what each row is padded by it is more"
    assert both_passes(make(large), keep=True)[0] is None


@needs_native
def test_native_checks_its_own_arguments() -> None:
    given = make(CASES["one_hidden_layer"])
    terms, actions = [given["state0"], given["state1"]], [given["action0"], given["action1"]]
    q = torch.empty(2, 4, 3)

    def forward(hidden: torch.Tensor = given["hidden1"], terms=terms, q: torch.Tensor = q, threads: int = 1) -> None:
        parts = terms, actions, [hidden]
        capsules = [tuple(to_dlpack(t) for t in part) for part in parts]
        native.require().cql_head_forward(
            *capsules, to_dlpack(given["actions"]), None, to_dlpack(q), None, False, threads
        )

    forward()
    with pytest.raises(ValueError, match=r"hidden_weights: expected shape \[2, 17, 1\]"):
        forward(torch.ones(2, 16, 1))
    with pytest.raises(ValueError, match="hidden_weights: expected dense rows, got stride 2"):
        forward(torch.ones(2, 17, 2)[:, :, :1])
    with pytest.raises(ValueError, match="state_terms: expected float32, got float64"):
        forward(terms=[terms[0].double(), terms[1]])
    with pytest.raises(ValueError, match=r"q: expected shape \[2, 4, 3\]"):
        forward(q=q[:, :, :2])
    with pytest.raises(ValueError, match="num_threads"):
        forward(threads=0)


@needs_native
def test_native_refuses_a_second_derivative() -> None:
    given = make(CASES["plain_form"])
    given["actions"].requires_grad_()
    with pytest.raises(RuntimeError, match="no second derivative"):
        torch.autograd.grad(call(native_op.cql_head, given)[0].sum(), given["actions"], create_graph=True)


@needs_native
def test_float64_and_empty_batches_go_to_the_reference() -> None:
    given = make(CASES["plain_form"])
    assert dispatch.select("cql_head", *arguments(given)).name == "native"
    assert call(cql_head, double(given))[0].dtype == torch.float64
    assert "float64, the native kernel is for float32" in str(dispatch.explain("cql_head")[-1])
    empty = {n: t[:, :0] if n == "state0" else t[:0] if n in ("actions", "log_weight") else t for n, t in given.items()}
    assert call(cql_head, empty)[0].shape == (2, 0, 5)


def triton_op(*args):
    pytest.importorskip("triton")
    from ptr_fast.kernels.cql_head.triton import cql_head

    return cql_head(*args)


OPS = {"reference": reference_op.cql_head, "native": native_op.cql_head, "triton": triton_op}


@pytest.fixture(params=[name if name != "triton" else pytest.param(name, marks=pytest.mark.triton) for name in OPS])
def each_op(request: pytest.FixtureRequest):
    if request.param == "native" and native.module() is None:
        pytest.skip(str(native.why_missing()))
    return OPS[request.param]


CUDA = pytest.param(
    "cuda", marks=[pytest.mark.cuda, pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU")]
)
INTERPRETER = pytest.param("cpu", marks=pytest.mark.skipif(torch.cuda.is_available(), reason="the GPU runs instead"))


# On a GPU the kernels multiply in TF32, in the interpreter in float32.
CHECKS = {"cpu": check_parity, "cuda": check_tf32_parity}


@pytest.fixture
def tf32_allowed():
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("high")
    yield
    torch.set_float32_matmul_precision(before)


@pytest.mark.triton
@pytest.mark.usefixtures("tf32_allowed")
@pytest.mark.parametrize("device", [INTERPRETER, CUDA])
@pytest.mark.parametrize("case", CASES.values(), ids=CASES.keys())
def test_triton_parity(case: Case, device: str) -> None:
    given = {name: None if t is None else t.to(device) for name, t in make(case).items()}
    CHECKS[device](triton_op, given)
    again = [run(triton_op, given) for _ in range(2 if device == "cuda" else 1)]
    assert all(torch.equal(again[0][name], other[name]) for other in again[1:] for name in other)


@pytest.mark.triton
@pytest.mark.usefixtures("tf32_allowed")
@pytest.mark.parametrize("device", [INTERPRETER, CUDA])
def test_triton_backward_in_blocks_of_states(device: str, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("triton")
    monkeypatch.setattr(row_sums, "BLOCK_ROWS", 20)  # two states at a time
    given = {name: None if t is None else t.to(device) for name, t in make(CASES["plain_form"]).items()}
    CHECKS[device](triton_op, given)


@pytest.mark.triton
@pytest.mark.usefixtures("tf32_allowed")
@pytest.mark.parametrize("device", [INTERPRETER, CUDA])
@pytest.mark.parametrize("name", ["papers_form", "plain_form", "one_hidden_layer"])
def test_triton_gradient_of_the_actions_alone(name: str, device: str) -> None:
    given = {name: None if t is None else t.to(device) for name, t in make(CASES[name]).items()}
    leaf = given["actions"].requires_grad_()
    (ours,) = torch.autograd.grad(call(triton_op, given, with_lse=False)[0], leaf, given["dq"])
    (plain,) = torch.autograd.grad(call(reference_op.cql_head, given, with_lse=False)[0], leaf, given["dq"])
    assert float((ours - plain).norm() / plain.norm()) < (1e-5 if device == "cpu" else 0.1)


@pytest.mark.triton
@pytest.mark.usefixtures("tf32_allowed")
def test_what_triton_does_not_take(monkeypatch: pytest.MonkeyPatch) -> None:
    torch.set_float32_matmul_precision("highest")
    pytest.importorskip("triton")
    from ptr_fast.kernels.cql_head.triton import supports

    def why(case: Case, dtype: torch.dtype = torch.float32) -> str:
        return str(supports(*arguments({name: t if t is None else t.to(dtype) for name, t in make(case).items()})))

    monkeypatch.setenv("TRITON_INTERPRET", "0")
    papers = CASES["papers_form"]
    assert why(papers) == "products in full float32 are asked for, the kernels' are in TF32"
    [choice] = dispatch.explain("cql_head", *arguments(make(papers)))
    assert "tensors are on the CPU" in choice.reasons["triton"]
    torch.set_float32_matmul_precision("high")
    assert why(papers) == "None"
    assert "4 hidden layers" in why(Case(1, 2, 2, 2, (8, 8, 8, 8)))
    assert "hidden layer of 512, the kernels are for 256 at most" in why(Case(1, 2, 2, 2, (512, 8)))
    assert "bfloat16" in why(papers, torch.bfloat16)


def test_large_values_do_not_overflow(each_op) -> None:
    given = make(CASES["papers_form"])
    given["state3"] = given["state3"] * 1e4  # differences of Q far beyond what exp can hold
    given["log_weight"][2] += 5e4
    check_parity(each_op, given, floor=1e-5)
    assert torch.isfinite(call(each_op, given)[1]).all()


def test_nan_stays_nan(each_op) -> None:
    given = make(CASES["papers_form"])
    given["actions"][1, 3, 0] = math.nan
    q, lse = call(each_op, given)
    assert torch.isnan(q[:, 1, 3]).all()
    assert torch.isnan(q).sum() == 2
    assert torch.isnan(lse[:, 1]).all()
    assert torch.isnan(lse).sum() == 2


def test_gradients_through_a_nan_are_what_autograd_gives(each_op) -> None:
    """The ReLU of a NaN passes the gradient on: what is broken shows everywhere at once."""
    given = make(CASES["papers_form"])
    given["state1"][1, 2, 5] = math.nan
    wanted, got = run(reference_op.cql_head, given), run(each_op, given)
    for name, value in wanted.items():
        assert torch.equal(got[name].isnan(), value.isnan()), name


def test_an_infinite_logit_gives_an_infinite_log_sum_exp(each_op) -> None:
    given = make(CASES["papers_form"])
    given["log_weight"][1, 4] = math.inf
    given["log_weight"][3, 2:4] = math.inf
    wanted, got = call(reference_op.cql_head, given)[1], call(each_op, given)[1]
    assert (wanted[:, [1, 3]] == math.inf).all()
    torch.testing.assert_close(got, wanted)


def test_states_without_any_action_have_no_gradient(each_op) -> None:
    given = make(CASES["papers_form"])
    given["log_weight"][1] = -math.inf
    given["dq"] = torch.zeros_like(given["dq"])
    out = run(each_op, given)
    assert (out["lse"][:, 1] == -math.inf).all()
    assert torch.isfinite(out["lse"][:, [0, 2, 3, 4]]).all()
    assert all(torch.isfinite(value).all() for name, value in out.items() if name != "lse")
    assert (out["dstate0"][:, 1] == 0).all()


def test_log_weight_is_a_constant() -> None:
    given = make(CASES["plain_form"])
    given["log_weight"].requires_grad_()
    given["state0"].requires_grad_()
    call(cql_head, given)[1].sum().backward()
    assert given["log_weight"].grad is None
    assert given["state0"].grad is not None


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"actions": torch.ones(5, 9, 6)}, r"actions \[B, K, 7\], got \(5, 9, 6\)"),
        ({"actions": torch.ones(45, 7)}, r"actions \[B, K, 7\]"),
        ({"state1": torch.ones(2, 4, 64)}, r"state_terms\[1\] \[2, 5 or 1, H\], got \(2, 4, 64\)"),
        ({"action1": torch.ones(2, 7, 63)}, r"action_weights\[1\] \[2, 7, 64\]"),
        ({"action0": None}, "action_weights of the first layer"),
        ({"hidden2": torch.ones(2, 63, 64)}, r"hidden_weights\[1\] \[2, 64, 64\]"),
        ({"log_weight": torch.ones(5, 8)}, r"log_weight \[5, 9\]"),
        ({"state3": torch.ones(2, 5, 2), "action3": None, "hidden3": torch.ones(2, 64, 2)}, "one output"),
    ],
)
def test_wrong_shapes_are_named(change: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        call(cql_head, {**make(CASES["papers_form"]), **change})


def test_choices_do_not_keep_tensors_alive() -> None:
    given = make(CASES["plain_form"])
    call(cql_head, given)
    seen = [weakref.ref(given["state0"]), weakref.ref(given["hidden1"])]
    del given
    gc.collect()
    assert all(ref() is None for ref in seen)
    assert any("float32[2, 6, 48]@cpu" in str(choice) for choice in dispatch.explain("cql_head"))
