"""bfloat16 activations: what stays float32, and that learning is the same."""

import pytest
import torch
from learner_cases import make_batch, make_spec

from ptr_fast.config import BcConfig, CqlConfig, EncoderConfig
from ptr_fast.learners import CqlLearner, make_learner

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
