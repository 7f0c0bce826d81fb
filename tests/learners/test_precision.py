"""bfloat16 activations: what stays float32, and that learning is the same."""

import contextlib
import copy

import pytest
import torch
from learner_cases import make_batch, make_spec
from torch.utils._python_dispatch import TorchDispatchMode

from ptr_fast.config import BcConfig, CqlConfig, EncoderConfig
from ptr_fast.kernels import dispatch
from ptr_fast.learners import CqlLearner, make_learner
from ptr_fast.nets.critic import EnsembleHead

CASES = {
    "conv3": EncoderConfig(name="conv3", num_filters=8, embedding_dim=16),
    "resnet_small": EncoderConfig(name="resnet_small", num_filters=8, embedding_dim=16),
    "spatial_softmax": EncoderConfig(name="conv3", num_filters=8, pooling="spatial_softmax", embedding_dim=16),
    "mean": EncoderConfig(name="conv3", num_filters=8, pooling="mean", embedding_dim=16),
}


def make(kind: str, encoder: str, dtype: torch.dtype | None, **config):
    cls = CqlConfig if kind == "cql" else BcConfig
    config = {"encoder": CASES[encoder], "hidden_dims": (16, 16), **config}
    return make_learner(cls(**config), make_spec(), encoder_dtype=dtype)


def note(seen: dict, name: str, output: object) -> None:
    seen[name] = getattr(output, "dtype", None)


@pytest.mark.parametrize("kind", ["cql", "bc"])
@pytest.mark.parametrize("encoder", CASES)
def test_only_the_trunk_computes_in_bfloat16(kind, encoder):
    learner = make(kind, encoder, torch.bfloat16)
    seen = {}
    for name, module in learner.actor.named_modules():
        module.register_forward_hook(lambda _module, _inputs, output, name=name: note(seen, name, output))
    info = learner.update(make_batch(make_spec()), 0)
    trunk = {name: dtype for name, dtype in seen.items() if name.startswith("encoder.trunk")}
    others = {name: dtype for name, dtype in seen.items() if name not in trunk and dtype is not None}
    assert set(trunk.values()) == {torch.bfloat16}
    assert others
    assert set(others.values()) == {torch.float32}
    assert {value.dtype for value in info.values()} == {torch.float32}
    for network in learner.networks().values():
        assert {parameter.dtype for parameter in network.parameters()} == {torch.float32}
    for optimizer in learner.optimizers().values():
        for state in optimizer.state.values():
            assert {value.dtype for value in state.values()} == {torch.float32}


def test_other_dtypes_are_refused():
    with pytest.raises(ValueError, match=r"encoder_dtype: .*float16"):
        make("cql", "conv3", torch.float16)


def losses(dtype: torch.dtype | None, num_steps: int) -> tuple[CqlLearner, list[dict[str, float]]]:
    learner = make("cql", "conv3", dtype, critic_lr=1e-3, actor_lr=1e-3)
    rows = []
    for step in range(num_steps):
        info = learner.update(make_batch(make_spec(), num_batch=8, seed=step % 4), step)
        rows.append({name: float(value) for name, value in info.items()})
    return learner, rows


def test_losses_stay_close_to_those_of_float32():
    num_steps = 100
    (_, exact), (_, rounded) = losses(None, num_steps), losses(torch.bfloat16, num_steps)
    for name in ("train/critic_loss", "train/bellman_loss", "q/data", "q/policy", "q/random", "actor/loss"):
        curves = [torch.tensor([row[name] for row in rows]) for rows in (exact, rounded)]
        means = [curve.view(10, -1).mean(dim=1) for curve in curves]  # means of ten steps
        moved = (curves[0].max() - curves[0].min()).item()
        assert (means[0] - means[1]).abs().max().item() < 0.05 * moved, name
    assert exact[-1]["train/critic_loss"] < exact[0]["train/critic_loss"]


class RoundedProducts(TorchDispatchMode):
    """Products see the 11 leading bits of their inputs, as TF32 units of a GPU that cut the others off."""

    INPUTS = {"mm": (0, 1), "bmm": (0, 1), "addmm": (1, 2), "baddbmm": (1, 2)}  # noqa: RUF012

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        args = list(args)
        for i in self.INPUTS.get(function.overloadpacket.__name__, ()):
            args[i] = (args[i].contiguous().view(torch.int32) & ~0x1FFF).view(torch.float32)
        return function(*args, **(kwargs or {}))


def heads_and_gradients(head, embedding, rest, mode=None) -> dict[str, torch.Tensor]:
    """Q, log-sum-exp and the gradients of a loss of both with respect to the embedding and every weight."""
    state, task_id, actions, log_weight = rest
    embedding = embedding.detach().requires_grad_()
    with dispatch.use_backend("cql_head=reference"), mode or contextlib.nullcontext():
        q, lse = head.q_and_log_sum_exp(head.hoist(embedding, state, task_id), actions, log_weight)
        loss = (q[..., 0] - 1.0).square().mean() + 10.0 * (lse - q[..., 0]).mean()
        gradients = torch.autograd.grad(loss, [embedding, *head.parameters()])
    names = ["embedding", *(name for name, _ in head.named_parameters())]
    return {"q": q.detach(), "lse": lse.detach()} | dict(zip(names, gradients, strict=True))


@pytest.mark.parametrize("gain", [1.0, 3.0], ids=["fresh weights", "large weights"])
def test_tf32_in_the_heads_costs_less_than_the_last_rounding_of_a_bfloat16_trunk(gain):
    """Of the published heads, against float64: Q within 1e-3, gradients within 8 % (a few ReLUs flip)."""
    generator = torch.Generator().manual_seed(0)
    sizes = {"embedding_dim": 256, "state_dim": 7, "num_task_slots": 16, "action_dim": 7}
    head = EnsembleHead("reinject_all", 2, **sizes, hidden_dims=(256, 256, 256))
    head.initialise(generator)
    with torch.no_grad():
        head.kernels[-1].mul_(100.0)  # Q of order one, as after training
        for kernel in head.kernels:
            kernel.mul_(gain)
    embedding, state = torch.randn(64, 256, generator=generator).tanh(), torch.randn(64, 7, generator=generator)
    actions, log_weight = 2 * torch.rand(64, 9, 7, generator=generator) - 1, torch.randn(64, 9, generator=generator)
    rest = (state, torch.arange(64) % 16, actions, log_weight)
    wide = (state.double(), rest[1], actions.double(), log_weight.double())
    exact = heads_and_gradients(copy.deepcopy(head).double(), embedding.double(), wide)

    def errors(got: dict[str, torch.Tensor]) -> dict[str, float]:
        return {name: float((got[name] - value).norm() / value.norm()) for name, value in exact.items()}

    tf32 = errors(heads_and_gradients(head, embedding, rest, RoundedProducts()))
    rounded = errors(heads_and_gradients(head, embedding.bfloat16().float(), rest))
    assert max(tf32["q"], tf32["lse"]) < 1e-3
    assert max(tf32.values()) < 8e-2
    for name, share in {"q": 0.5, "lse": 0.5, "embedding": 0.75, "kernels.0": 0.75, "kernels.1": 0.75}.items():
        assert tf32[name] < share * rounded[name], name
