"""Advantage-weighted cloning against its formula in float64; its controls; and critics that do not fit."""

import copy
import math
from dataclasses import replace

import pytest
import torch
from learner_cases import make_batch, make_spec
from learner_kinds import ENCODER, other_run, small

from ptr_fast.checkpoint import load_networks, open_reference, save_checkpoint
from ptr_fast.config import ActConfig, AugmentConfig, BcConfig, EncoderConfig, RunReference, TaskTable
from ptr_fast.learners import BcLearner, base, make_learner
from ptr_fast.learners.awbc import AwbcConfig, AwbcLearner
from ptr_fast.learners.registry import make_networks

PLAIN = {"encoder": ENCODER, "hidden_dims": (16, 16), "augment": AugmentConfig(crop_padding=0, jitter_probability=0.0)}


def make_awbc(spec=None, **config) -> AwbcLearner:
    spec = spec or make_spec()
    return AwbcLearner(AwbcConfig(critic=other_run(make_spec()), **{**PLAIN, **config}), spec, seed=2)


def samples(spec, **options):
    """Random transitions of the tasks that have a name."""
    batch = make_batch(spec, **options)
    return replace(batch, task_id=batch.task_id % len(spec.tasks.names))


def weights(learner: AwbcLearner, batch, step: int = 0) -> list[float]:
    """The weights of a batch, sample by sample in float64: those of its own advantages, whatever the control."""
    info = open_reference(learner.config.critic)
    nets = make_networks(info.config, info.spec, ["target_critic", "ema_actor"])
    load_networks(info, nets)
    critic, actor = (copy.deepcopy(nets[name]).double() for name in ("target_critic", "ema_actor"))
    images = base.augmented(batch.images, None, torch.float64)
    state, task = batch.state[:, -1].double(), batch.task_id
    eps = learner.draw(range(len(batch)), step).value_eps.double()
    law, config, out = actor(images, state, task), learner.config, []
    for b in range(len(batch)):
        seen = {camera: frames[b : b + 1] for camera, frames in images.items()}

        def q(action, seen=seen, b=b):
            return critic(seen, state[b : b + 1], task[b : b + 1], action[None, None]).amin().item()

        others = [torch.tanh(law.mean_BA[b] + law.log_std_BA[b].exp() * eps[b, k]) for k in range(eps.shape[1])]
        advantage = q(batch.actions[b, 0].double()) - sum(map(q, others)) / len(others)
        out.append(min(math.exp(advantage / config.advantage_temperature), config.max_weight))
    return [weight * len(out) / sum(out) for weight in out]


def cloned(learner: AwbcLearner, batch, weight) -> tuple[torch.Tensor, list[torch.Tensor]]:
    """Weighted cloning loss in float64 and its gradients."""
    actor = copy.deepcopy(learner.actor).double()
    law = actor(base.augmented(batch.images, None, torch.float64), batch.state[:, -1].double(), batch.task_id)
    error = (batch.actions[:, 0].double() - law.mean_BA).square().sum(dim=1)
    nats = 0.5 * error + 0.5 * batch.actions.shape[2] * math.log(2 * math.pi)
    loss = (torch.tensor(weight, dtype=torch.float64) * nats).mean()
    return loss.detach(), list(torch.autograd.grad(loss, list(actor.parameters())))


# The critic of the tests is untrained: its advantages are tiny, and so is the temperature that makes them count.
@pytest.mark.parametrize(("temperature", "max_weight"), [(1e-2, 148.0), (2e-3, 2.0)])
def test_weights_losses_and_gradients_are_those_of_the_formula(temperature, max_weight):
    learner = make_awbc(advantage_temperature=temperature, max_weight=max_weight)
    batch = samples(learner.spec, num_batch=12)
    weight = weights(learner, batch)
    assert max(weight) > 1.2 * min(weight)
    before = copy.deepcopy(learner)
    info = learner.update(batch, 0)
    loss, gradients = cloned(before, batch, weight)
    torch.testing.assert_close(info["train/bc_loss"].double(), loss, rtol=1e-4, atol=1e-6)
    for parameter, expected in zip(learner.actor.parameters(), gradients, strict=True):
        torch.testing.assert_close(parameter.grad.double(), expected, rtol=2e-3, atol=1e-5)
    assert float(info["weights/median"]) == pytest.approx(torch.tensor(weight).quantile(0.5).item(), rel=1e-3)
    assert float(info["weights/quantile_90"]) == pytest.approx(torch.tensor(weight).quantile(0.9).item(), rel=1e-3)


def test_uniform_weights_are_behaviour_cloning_bit_for_bit():
    learner = make_awbc(weights="uniform")
    cloning = BcLearner(BcConfig(**PLAIN), make_spec(), seed=2)
    for step in range(3):
        batch = samples(learner.spec, seed=step)
        for each in (learner, cloning):
            each.update(batch, step)
    for mine, theirs in zip(learner.actor.parameters(), cloning.actor.parameters(), strict=True):
        assert torch.equal(mine, theirs)


def test_shuffled_weights_are_the_same_weights_on_other_samples():
    learner = make_awbc(weights="shuffled", advantage_temperature=1e-2)
    batch = samples(learner.spec, num_batch=12)
    orders = [learner.draw(range(12), step).order for step in (0, 1)]
    assert sorted(orders[0].tolist()) == list(range(12))
    assert orders[0].tolist() != orders[1].tolist()
    weight = weights(learner, batch)
    before = copy.deepcopy(learner)
    info = learner.update(batch, 0)
    loss, _ = cloned(before, batch, [weight[i] for i in orders[0].tolist()])
    torch.testing.assert_close(info["train/bc_loss"].double(), loss, rtol=1e-4, atol=1e-6)


def test_the_critic_is_frozen_and_no_part_of_the_checkpoint(tmp_path):
    learner = make_awbc()
    before = [p.clone() for network in learner.critic._networks.values() for p in network.parameters()]
    learner.update(samples(learner.spec), 0)
    after = [p for network in learner.critic._networks.values() for p in network.parameters()]
    assert all(torch.equal(one, other) and other.grad is None for one, other in zip(before, after, strict=True))
    assert set(learner.networks()) == {"actor", "ema_actor"}


@pytest.mark.parametrize("tag", ["IqlConfig", "CqlProposalsConfig"])
def test_the_critic_may_be_of_any_learner_that_values_actions(tag, tmp_path):
    spec = make_spec()
    theirs = make_learner(small(tag), spec)
    path = save_checkpoint(tmp_path, 1, theirs, spec, ActConfig(), {})
    learner = AwbcLearner(AwbcConfig(critic=RunReference(path=path), **PLAIN), spec)
    info = learner.update(make_batch(spec), 0)
    assert all(value.isfinite() for value in info.values())


def test_the_critics_task_slots_are_found_by_their_names():
    spec = make_spec()
    turned = replace(spec, tasks=TaskTable(names=("close door", "open door"), num_slots=3))
    batch, other = make_batch(spec), make_batch(turned)
    batch = replace(batch, task_id=torch.tensor([0, 1, 0, 1, 1, 0]))
    other = replace(batch, task_id=1 - batch.task_id)
    told = [make_awbc(each).update(one, 0) for each, one in ((spec, batch), (turned, other))]
    assert torch.equal(told[0]["weights/advantage"], told[1]["weights/advantage"])


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"tasks": TaskTable(names=("fold towel",), num_slots=5)}, "does not know the task 'fold towel'"),
        ({"cameras": make_spec(size=24).cameras}, "cameras differ: expected .*24, 24.* got .*16, 16"),
        ({"state": make_spec(state_dim=2).state}, "state differ"),
        ({"action": replace(make_spec().action, high=(2.0,) * 4)}, "action high bounds differ"),
    ],
)
def test_a_critic_of_other_surroundings_is_refused(changes, message):
    with pytest.raises(ValueError, match=message):
        make_awbc(replace(make_spec(), **changes))


def test_a_critic_that_sees_more_than_the_learner_is_refused():
    with pytest.raises(ValueError, match="its critic looks at images, and this learner's encoder is none"):
        make_awbc(encoder=EncoderConfig(name="none"))
    with pytest.raises(ValueError, match="num_observations must be 1, as many as the critic sees, got 2"):
        make_awbc(num_observations=2)


def test_a_run_without_a_critic_is_refused(tmp_path):
    spec = make_spec()
    path = save_checkpoint(tmp_path, 1, BcLearner(BcConfig(**PLAIN), spec), spec, ActConfig(), {})
    with pytest.raises(ValueError, match="behaviour cloning has no critic: its checkpoints know no values"):
        AwbcLearner(AwbcConfig(critic=RunReference(path=path), **PLAIN), spec)
