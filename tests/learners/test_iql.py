"""Implicit Q-learning against the equations of its paper, written out in float64."""

import copy
import math
from dataclasses import replace

import pytest
import torch
from learner_cases import make_batch, make_spec

from ptr_fast import losses
from ptr_fast.config import AugmentConfig, EncoderConfig
from ptr_fast.learners import base
from ptr_fast.learners.iql import IqlConfig, IqlLearner

STATES = EncoderConfig(name="none")
IMAGES = EncoderConfig(name="conv3", num_filters=4, pooling="mean", embedding_dim=8)


def make_learner(**config) -> IqlLearner:
    config = {"encoder": STATES, "hidden_dims": (16, 16), "expectile": 0.8, "advantage_temperature": 0.5, **config}
    return IqlLearner(IqlConfig(**config), make_spec(), seed=3)


def test_an_expectile_is_the_mean_at_a_half_and_near_the_largest_close_to_one():
    targets = torch.tensor([-3.0, 0.0, 1.0, 6.0], dtype=torch.float64)
    for expectile, expected in ((0.5, targets.mean()), (0.9999, targets.max()), (0.0001, targets.min())):
        value = torch.zeros((), dtype=torch.float64, requires_grad=True)
        optimizer = torch.optim.LBFGS([value], max_iter=100, tolerance_grad=1e-12)

        def loss(optimizer=optimizer, value=value, expectile=expectile):
            optimizer.zero_grad()
            found = losses.expectile_loss(targets - value, expectile)
            found.backward()
            return found

        for _ in range(50):
            optimizer.step(loss)
        assert value.item() == pytest.approx(float(expected), abs=2e-3)


def test_weights_are_exponential_cut_and_never_infinite():
    advantage = torch.tensor([-1e30, -1.0, 0.0, 1.0, 50.0, 1e30])
    found = losses.advantage_weights(advantage, 0.5, 100.0)
    expected = torch.tensor([0.0, math.exp(-2.0), 1.0, math.exp(2.0), 100.0, 100.0])
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=0.0)


def written_out(before: IqlLearner, after: IqlLearner, batch) -> dict[str, tuple[torch.Tensor, torch.nn.Module]]:
    """Each loss, sample by sample in float64, and the net that it is of; ``after`` has the updated value."""
    config = before.config
    nets = {name: copy.deepcopy(net).double().requires_grad_(True) for name, net in before.networks().items()}
    new_value = copy.deepcopy(after.value).double()
    images, next_images = {}, {}
    if config.encoder.sees_images:  # nothing is cropped or jittered here: the frames are only scaled
        images, next_images = (base.augmented(each, None, torch.float64) for each in (batch.images, batch.next_images))
    batch = batch.map(lambda value: value.double() if value.is_floating_point() else value)
    # The value looks through the critic's encoder and leaves it alone.
    seen, next_seen = (nets["critic"].encoder(each, len(batch)).detach() for each in (images, next_images))
    state, next_state, task, action = batch.state[:, -1], batch.next_state[:, -1], batch.task_id, batch.actions[:, 0]
    q = nets["critic"](images, state, task, action[:, None])[:, :, 0]
    q_target = nets["target_critic"](images, state, task, action[:, None])[:, :, 0].detach()
    value, law = nets["value"](seen, state, task), nets["actor"](images, state, task)
    now, later = new_value(seen, state, task).detach(), new_value(next_seen, next_state, task).detach()
    sums = {"value": 0.0, "actor": 0.0, "critic": 0.0}
    for b in range(len(batch)):
        least = min(float(q_target[e, b]) for e in range(config.num_critics))
        residual = least - value[b]
        share = config.expectile if residual > 0 else 1.0 - config.expectile
        sums["value"] = sums["value"] + share * residual**2
        weight = min(math.exp((least - float(now[b])) / config.advantage_temperature), config.max_weight)
        before_tanh = torch.atanh(action[b])
        mean, std = law.mean_BA[b], law.log_std_BA[b].exp()
        log_prob = -0.5 * ((before_tanh - mean) / std) ** 2 - std.log() - 0.5 * math.log(2 * math.pi)
        sums["actor"] = sums["actor"] - weight * (log_prob - torch.log(1 - action[b] ** 2)).sum()
        target = float(batch.rewards[b]) + config.discount * float(batch.masks[b]) * float(later[b])
        if batch.returns is not None:
            target = max(target, float(batch.returns[b]))
        for e in range(config.num_critics):
            sums["critic"] = sums["critic"] + (q[e, b] - target) ** 2 / config.num_critics
    return {name: (total / len(batch), nets[name]) for name, total in sums.items()}


@pytest.mark.parametrize(("encoder", "has_returns"), [(STATES, False), (STATES, True), (IMAGES, True)])
def test_losses_and_gradients_are_those_of_the_paper(encoder, has_returns):
    learner = make_learner(encoder=encoder, augment=AugmentConfig(crop_padding=0, jitter_probability=0.0))
    batch = make_batch(learner.spec)
    if has_returns:
        batch = replace(batch, returns=torch.where(torch.arange(len(batch)) % 2 == 0, 0.5, -torch.inf))
    for step in range(20):  # away from weights at which all values are alike
        learner.update(batch, step)
    before = copy.deepcopy(learner)
    info = learner.update(batch, 20)
    names = {"value": "train/value_loss", "actor": "actor/loss", "critic": "train/critic_loss"}
    for name, (loss, net) in written_out(before, learner, batch).items():
        torch.testing.assert_close(info[names[name]].double(), loss.detach(), rtol=2e-5, atol=1e-7)
        wanted = torch.autograd.grad(loss, list(net.parameters()))
        for parameter, expected in zip(getattr(learner, name).parameters(), wanted, strict=True):
            torch.testing.assert_close(parameter.grad.double(), expected, rtol=1e-3, atol=1e-6)


def test_the_value_follows_the_better_actions_and_the_actor_clones_them():
    """Two actions in one state, one with reward 1, the other 0: the weights leave the better one alone."""
    learner = make_learner(
        expectile=0.9, advantage_temperature=0.05, actor_lr=3e-3, critic_lr=3e-3, value_lr=3e-3, tau=0.1
    )
    batch = make_batch(learner.spec, num_batch=8)
    good = torch.arange(8) % 2 == 0
    batch = replace(
        batch,
        state=torch.zeros_like(batch.state),
        task_id=torch.zeros_like(batch.task_id),
        actions=torch.where(good, 0.5, -0.5)[:, None, None].expand(8, 1, 4).contiguous(),
        rewards=good.float(),
        masks=torch.zeros(8),
    )
    for step in range(300):
        info = learner.update(batch, step)
    assert float(info["q/data"]) == pytest.approx(0.5, abs=0.05)
    assert float(info["q/value"]) == pytest.approx(0.9, abs=0.05)  # the expectile 0.9 of 0 and 1
    mean = learner.actor({}, batch.state[:, -1], batch.task_id).mode()
    assert torch.allclose(mean, torch.full_like(mean, 0.5), atol=0.1)
