"""cql_head in CUDA C++, run by the emulator: outputs and gradients against float64, in any order of the threads.

Note "Two references". Against the definition in float64 Q and the log-sum-exp may be off by what rounding the factors
of L layers' products to p significant bits gives, in norm: each product has two factors with independent relative
errors of at most 2^-p, so sqrt(2 L) 2^-p of its size. Gradients then jump wherever a ReLU turns over. So they are
compared with a definition in float64 that rounds where the kernels do, which has the same ReLUs. What is left are
float32 sums, and factors that an error of 1e-6 takes to the other side of a tie: 1e-6 2^p of them, each by 2^(1-p), in
norm the root of that share. A gradient goes through L layers down and back, and its sums cancel: five times as much.
"""

from __future__ import annotations

import math

import pytest
import torch
from cql_head_cases import CASES, Case, arguments, call, double, make, run
from emulated_kernels import emulator

from ptr_fast.kernels import dispatch
from ptr_fast.kernels.cql_head import cql_head, cuda, row_sums
from ptr_fast.kernels.cql_head import reference as reference_op

BITS = {"tf32": 11, "bf16": 8}  # of the factors of a product
TIES = {products: math.sqrt(1e-6 * 2.0**p) * 2.0 ** (1 - p) for products, p in BITS.items()}

# What the recipes run: the paper's heads, those of the simulations, states alone, search; three states.
NETS = {
    "paper": Case(2, 3, 9, 7, (256, 256, 256)),
    "paper_one_state": Case(2, 1, 9, 7, (256, 256, 256)),
    "simulation": Case(2, 4, 17, 4, (128, 128, 128)),
    "states": Case(2, 2, 31, 6, (256, 256), "first", "first"),
    "search": Case(2, 1, 50, 7, (128, 128, 128)),
    "bimanual": Case(2, 2, 9, 14, (256, 256, 256)),
    "four_layers": Case(1, 2, 9, 7, (128, 64, 128, 128)),
}
SLOW = {
    "ten_critics": Case(10, 2, 91, 7, (256, 256, 256)),
    "search_of_a_thousand": Case(2, 1, 1000, 7, (256, 256, 256)),
}
ON_A_GPU = {**CASES, **NETS, **SLOW, "search_of_ten_thousand": Case(2, 1, 10_000, 7, (256, 256, 256))}
ALL = {**CASES, **NETS}


class Emulated:
    """The kernels of the native module, by the emulator."""

    seed = 0

    def __init__(self, device: torch.device) -> None:
        self.packed_words = emulator().cql_head_packed_words

    def forward(self, call) -> None:
        emulator().cql_head_forward(call, self.seed)

    def backward(self, call) -> None:
        emulator().cql_head_backward(call, self.seed)


@pytest.fixture(params=BITS)
def products(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch):
    """``cuda.cql_head`` runs in the emulator, with products of this precision."""
    monkeypatch.setattr(cuda, "_Kernels", Emulated)
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision({"tf32": "high", "bf16": "medium"}[request.param])
    assert cuda.products() == request.param
    yield request.param
    torch.set_float32_matmul_precision(before)


def rounded(x: torch.Tensor, products: str) -> torch.Tensor:
    """The nearest numbers with so many bits; of two, TF32 takes the one away from zero, bfloat16 the even one."""
    mantissa, exponent = torch.frexp(x)
    scaled = mantissa * 2 ** BITS[products]
    whole = scaled.round() if products == "bf16" else scaled.sign() * (scaled.abs() + 0.5).floor()
    return torch.ldexp(whole, exponent - BITS[products])


class _Factor(torch.autograd.Function):
    """Rounds on the way forward; the gradient passes."""

    @staticmethod
    def forward(ctx, x, products):
        return rounded(x, products)

    @staticmethod
    def backward(ctx, gradient):
        return gradient, None


class _RoundsGradient(torch.autograd.Function):
    """Rounds on the way back."""

    @staticmethod
    def forward(ctx, x, products):
        ctx.products = products
        return x.view_as(x)

    @staticmethod
    def backward(ctx, gradient):
        return rounded(gradient, ctx.products), None


def product(x, weight, equation: str, forward, backward) -> torch.Tensor:
    """x times weight of ``forward`` of both; the gradient of the weight is that of ``backward`` of x."""
    value = torch.einsum(equation, forward(x), forward(weight.detach()))
    return value + torch.einsum(equation, backward(x.detach()), weight - weight.detach())


def rounding_definition(products: str):
    """Q and log-sum-exp by the formula, with rounded factors of all products but the last layer's; gradients of weights
    are products with the hidden layers as they were rounded, and with the actions as they are."""

    def factor(x: torch.Tensor) -> torch.Tensor:
        return _Factor.apply(x, products)

    def exact(x: torch.Tensor) -> torch.Tensor:
        return x

    def op(terms, action_weights, hidden_weights, actions, log_weight):
        hidden = q = torch.empty(0)
        for i, (term, action_weight) in enumerate(zip(terms, action_weights, strict=True)):
            last = i + 1 == len(terms)
            forward = exact if last else factor
            out = term[:, :, None]
            if action_weight is not None:
                out = out + product(actions, action_weight, "bka,eah->ebkh", forward, exact)
            if i > 0:
                out = out + product(hidden, hidden_weights[i - 1], "ebkg,egh->ebkh", forward, factor)
            if last:
                q = out.expand(-1, *actions.shape[:2], -1).squeeze(3)
            else:
                hidden = _RoundsGradient.apply(out, products).relu()
        return q, None if log_weight is None else (q + log_weight).logsumexp(dim=2)

    return op


def distance(ours: torch.Tensor, wanted: torch.Tensor) -> float:
    assert ours.shape == wanted.shape
    finite = wanted.isfinite()
    assert torch.equal(ours.isfinite(), finite)
    return float((ours.double() - wanted)[finite].norm() / (wanted[finite].norm() + 1e-30))


def check(case: Case, products: str, with_lse: bool = True, turned_over: float = 0.0) -> None:
    given = make(case)
    ours = run(cuda.cql_head, given, with_lse)
    for name, wanted in run(rounding_definition(products), double(given), with_lse).items():
        bound = TIES[products] if name in ("q", "lse") else 5 * TIES[products] + turned_over
        assert distance(ours[name], wanted) <= bound, name
    bound = math.sqrt(2 * len(case.hidden_dims)) * 2.0 ** -BITS[products]
    exact = call(reference_op.cql_head, double(given), with_lse)
    for name, wanted in zip(("q", "lse"), exact, strict=True):
        if wanted is not None:
            assert distance(ours[name], wanted) <= bound, name


@pytest.mark.parametrize("case", ALL.values(), ids=ALL.keys())
def test_against_float64(case: Case, products: str) -> None:
    check(case, products)


@pytest.mark.slow
@pytest.mark.parametrize("case", SLOW.values(), ids=SLOW.keys())
def test_large_calls_against_float64(case: Case, products: str) -> None:
    """Of a million units some lie closer to 0 than ties move them, 1e-5 of their size: a share of 4e-6 turns over."""
    check(case, products, turned_over=2e-3)


@pytest.mark.parametrize("name", ["papers_form", "plain_form"])
def test_q_alone(name: str, products: str) -> None:
    check(CASES[name], products, with_lse=False)


@pytest.mark.parametrize("name", ["papers_form", "odd_widths", "more_rows_than_a_tile", "states"])
def test_any_order_of_the_threads_gives_the_same_bits(
    name: str, products: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    given = make(ALL[name])
    first = run(cuda.cql_head, given)
    for seed in (1, 2):
        monkeypatch.setattr(Emulated, "seed", seed)
        for output, value in run(cuda.cql_head, given).items():
            assert torch.equal(value, first[output]), output


def test_backward_in_blocks_of_states_gives_the_same(products: str, monkeypatch: pytest.MonkeyPatch) -> None:
    given = make(CASES["papers_form"])
    whole = run(cuda.cql_head, given)
    monkeypatch.setattr(row_sums, "BLOCK_ROWS", 40)  # two states at a time
    for name, value in run(cuda.cql_head, given).items():
        torch.testing.assert_close(value, whole[name], rtol=1e-5, atol=1e-5, msg=name)


@pytest.mark.parametrize("name", ["papers_form", "plain_form", "odd_widths"])
def test_gradients_of_some_inputs_alone(name: str, products: str) -> None:
    """The actor step wants the gradient of the actions, a frozen head those of the state terms."""
    given, every = make(CASES[name]), run(cuda.cql_head, make(CASES[name]))
    for wanted in (["actions"], ["state0"], ["state1", "hidden1"], ["hidden2"], ["action0"]):
        leaves = {w: given[w].detach().requires_grad_() for w in wanted}
        outputs = call(cuda.cql_head, {**given, **leaves})
        got = torch.autograd.grad(outputs, list(leaves.values()), (given["dq"], given["dlse"]))
        for w, gradient in zip(wanted, got, strict=True):
            assert torch.equal(gradient, every[f"d{w}"]), w


def test_either_output_alone(products: str) -> None:
    given = make(CASES["papers_form"])
    leaf, definition = given["state2"].requires_grad_(), rounding_definition(products)
    for i in (0, 1):
        weight = given[("dq", "dlse")[i]]
        (ours,) = torch.autograd.grad(call(cuda.cql_head, given)[i], leaf, weight)
        exact = double({**given, "state2": leaf})
        (wanted,) = torch.autograd.grad(call(definition, exact)[i], leaf, weight.double())
        assert distance(ours, wanted.double()) <= 5 * TIES[products]


def test_nan_stays_nan(products: str) -> None:
    given = make(CASES["papers_form"])
    given["actions"][1, 3, 0] = math.nan
    q, lse = call(cuda.cql_head, given)
    assert torch.isnan(q[:, 1, 3]).all()
    assert torch.isnan(q).sum() == 2
    assert torch.isnan(lse[:, 1]).all()
    assert torch.isnan(lse).sum() == 2


@pytest.mark.parametrize("broken", ["state0", "state1", "state2", "hidden1", "action0", "hidden3"])
def test_gradients_through_a_nan_are_what_autograd_gives(broken: str, products: str) -> None:
    given = make(CASES["papers_form"])
    given[broken][1, 2, -1] = math.nan
    wanted, got = run(reference_op.cql_head, given), run(cuda.cql_head, given)
    for name, value in wanted.items():
        assert torch.equal(got[name].isnan(), value.isnan()), name


@pytest.mark.parametrize("name", ["papers_form", "odd_widths"])
def test_infinities_are_what_autograd_gives(name: str, products: str) -> None:
    """An infinite logit gives an infinite log-sum-exp, and pads make no NaN of an infinite layer."""
    for broken in ("log_weight", "state0", "state3"):
        given = make(CASES[name])
        given[broken].view(-1)[4] = math.inf
        wanted, got = run(reference_op.cql_head, given), run(cuda.cql_head, given)
        assert broken != "log_weight" or wanted["lse"].isposinf().any()
        for output, value in wanted.items():
            assert torch.equal(got[output].isnan(), value.isnan()), (broken, output)
            assert torch.equal(got[output].isinf(), value.isinf()), (broken, output)


def test_states_without_any_action_have_no_gradient(products: str) -> None:
    given = make(CASES["papers_form"])
    given["log_weight"][1] = -math.inf
    given["dq"] = torch.zeros_like(given["dq"])
    out = run(cuda.cql_head, given)
    assert (out["lse"][:, 1] == -math.inf).all()
    assert all(torch.isfinite(value).all() for name, value in out.items() if name != "lse")
    assert (out["dstate0"][:, 1] == 0).all()


def test_large_values_do_not_overflow(products: str) -> None:
    given = make(CASES["papers_form"])
    given["state3"] = given["state3"] * 1e4  # differences of Q far beyond what exp can hold
    given["log_weight"][2] += 5e4
    assert torch.isfinite(call(cuda.cql_head, given)[1]).all()


def test_a_second_derivative_is_refused(products: str) -> None:
    given = make(CASES["plain_form"])
    given["actions"].requires_grad_()
    with pytest.raises(RuntimeError, match="no second derivative"):
        torch.autograd.grad(call(cuda.cql_head, given)[0].sum(), given["actions"], create_graph=True)


@pytest.mark.cuda
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU")
@pytest.mark.parametrize("precision", ["high", "medium"])
@pytest.mark.parametrize("case", ON_A_GPU.values(), ids=ON_A_GPU.keys())
def test_on_a_gpu(case: Case, precision: str) -> None:
    """As the emulator says, twice the same bits; sums of tensor cores turn over a ReLU in a million, in norm 1e-3."""
    given = make(case)
    there = {name: None if t is None else t.cuda() for name, t in given.items()}
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision(precision)
    try:
        products = cuda.products()
        assert products is not None
        with dispatch.use_backend("cql_head=cuda"):
            ours, again = run(cql_head, there), run(cql_head, there)
    finally:
        torch.set_float32_matmul_precision(before)
    bound = math.sqrt(2 * len(case.hidden_dims)) * 2.0 ** -BITS[products]
    for name, wanted in run(rounding_definition(products), double(given)).items():
        assert torch.equal(ours[name], again[name]), name
        assert distance(ours[name].cpu(), wanted) <= (bound if name in ("q", "lse") else 1e-2), name


@pytest.mark.parametrize("phase", [0, 2, 3], ids=["actions", "layer is written", "layer is read"])
def test_a_missing_barrier_is_found(phase: int, products: str) -> None:
    """The same kernel without the barrier after one of its phases."""
    call = forward_call(make(CASES["papers_form"]))
    emulator().cql_head_forward_without_barrier(call, 99, 0)
    with pytest.raises(
        emulator().BlockError, match=r"shared '\w+'\[\d+\]: .* (writes what is read|reads what is written)"
    ):
        emulator().cql_head_forward_without_barrier(call, phase, 0)


def test_a_wrong_index_is_found(products: str) -> None:
    call = forward_call(make(CASES["papers_form"]))
    with pytest.raises(emulator().BlockError, match=r"global: thread \d+ .* reads element 3\d\d of 315"):
        emulator().cql_head_forward_with_a_row_too_many(call, 0)


def forward_call(given) -> dict:
    """What the kernels are told of a forward pass without a log-sum-exp; its tensors live as long as this."""
    terms, weights, hidden, actions, _ = arguments(given, with_lse=False)
    tensors = (*terms, *weights, *(weight.contiguous() for weight in hidden))
    out = cuda._call(len(terms), (actions, None), tensors, cuda.products())
    q = torch.empty(terms[0].shape[0], *actions.shape[:2])
    packed = torch.empty(terms[0].shape[0], emulator().cql_head_packed_words(out), dtype=torch.int32)
    addresses = {"packed": packed.data_ptr(), "with_back": False, "q": q.data_ptr(), "lse": 0}
    return out | addresses | {"alive": (tensors, q, packed)}


def test_what_it_does_not_take(monkeypatch: pytest.MonkeyPatch) -> None:
    def why(case: Case, dtype: torch.dtype = torch.float32) -> str:
        given = {name: t if t is None else t.to(dtype) for name, t in make(case).items()}
        return str(cuda.supports(*arguments(given)))

    papers = CASES["papers_form"]
    assert why(papers) == "products in full float32 are asked for, the kernels' are in TF32 or bfloat16"
    [choice] = dispatch.explain("cql_head", *arguments(make(papers)))
    assert choice.reasons["cuda"] == "tensors are on cpu, the kernels are for CUDA GPUs"
    assert dispatch.ops()["cql_head"][0] == "cuda"
    monkeypatch.setattr(cuda, "products", lambda: "tf32")
    assert why(papers) == "None"
    assert "5 hidden layers" in why(Case(1, 2, 2, 2, (8,) * 5))
    assert "hidden layer of 512, the kernels are for 256 at most" in why(Case(1, 2, 2, 2, (512, 8)))
    assert "actions of 17 dimensions" in why(Case(1, 2, 2, 17, (8, 8)))
    assert "bfloat16" in why(papers, torch.bfloat16)
