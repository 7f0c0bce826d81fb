"""Flow behaviour cloning: its loss against the formula in float64, what it samples, its chunks."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from learner_cases import make_batch, make_spec

from ptr_fast.config import ActConfig, EncoderConfig
from ptr_fast.learners import make_learner
from ptr_fast.learners.flow_bc import FlowBcConfig
from ptr_fast.learners.preparation import TrainingData
from ptr_fast.learners.registry import acts_of, make_networks, traits_of

NONE = EncoderConfig(name="none")
SMALL = FlowBcConfig(encoder=NONE, hidden_dims=(16, 8), num_actions=3, num_flow_samples=2, num_flow_steps=4)


def plain_velocity(learner, batch, noised, time) -> np.ndarray:
    """Velocity ``[B, H * A]`` of two hidden layers with exact GELU, in float64."""
    weights = {name: value.detach().double().numpy() for name, value in learner.actor.policy.state_dict().items()}
    one_hot = np.eye(learner.spec.tasks.num_slots)[batch.task_id.numpy()]
    seen = np.concatenate([batch.state.double().numpy().reshape(len(batch), -1), one_hot], axis=1)
    flow = np.concatenate([noised, time[:, None]], axis=1)
    hidden = seen @ weights["seen.weight"].T + weights["seen.bias"] + flow @ weights["noised.weight"].T
    hidden = _gelu(_gelu(hidden) @ weights["layers.0.weight"].T + weights["layers.0.bias"])
    return hidden @ weights["velocity_head.weight"].T + weights["velocity_head.bias"]


def _gelu(x: np.ndarray) -> np.ndarray:
    return x * 0.5 * (1.0 + np.vectorize(math.erf)(x / math.sqrt(2.0)))


def case(config=SMALL):
    spec = make_spec()
    batch = replace(make_batch(spec, window=traits_of(config).window), images=None)
    learner = make_learner(config, spec, seed=1)
    learner.prepare(data_of(0.2 * batch.actions.flatten(0, 1).numpy() + 0.1))
    return spec, batch, learner


def data_of(actions: np.ndarray) -> TrainingData:
    zeros, state = np.zeros(len(actions), np.int64), np.zeros((len(actions), 3), np.float32)
    return TrainingData(actions=actions, state=state, task_id=zeros, rewards=zeros, masks=zeros, episode=zeros)


def fitted(batch) -> tuple[np.ndarray, np.ndarray]:
    """Mean and deviation ``[A]`` of the actions that :func:`case` prepares with, float64."""
    actions = 0.2 * batch.actions.flatten(0, 1).double().numpy() + 0.1
    return actions.mean(axis=0), actions.std(axis=0)


def test_the_loss_is_the_squared_error_of_the_velocity_on_a_straight_path():
    _, batch, learner = case()
    for step in range(20):  # away from the first weights, whose velocity is nearly nothing
        learner.update(batch, step)
    draws, actions = learner.draw(range(len(batch)), 20), batch.actions.double().numpy()
    mean, std = fitted(batch)
    actions, errors = (actions - mean) / std, []
    for k in range(2):
        noise, time = draws.noise[:, k].double().numpy(), draws.time[:, k].double().numpy()
        noised = (1 - time[:, None, None]) * noise + time[:, None, None] * actions
        velocity = plain_velocity(learner, batch, noised.reshape(len(batch), -1), time).reshape(actions.shape)
        errors.append((velocity - (actions - noise)) ** 2 * batch.action_mask.numpy()[..., None])
    info = learner.update(batch, 20)
    assert float(info["train/flow_loss"]) == pytest.approx(np.mean(errors), rel=1e-6)


def test_what_lies_behind_the_end_of_an_episode_is_no_target():
    _, batch, learner = case()
    draws = learner.draw(range(len(batch)), 0)
    behind = replace(draws, noise=torch.where(batch.action_mask[:, None, :, None], draws.noise, 2.0 * draws.noise))
    late = torch.ones_like(draws.time)  # nothing of the noise is left in what the net sees, only in the target
    one, other = (case()[2].update(batch, 0, replace(each, time=late)) for each in (draws, behind))
    assert torch.equal(one["train/flow_loss"], other["train/flow_loss"])


def test_it_acts_by_eulers_method_of_the_averaged_actor():
    spec, batch, learner = case()
    acts = acts_of(SMALL)
    networks = make_networks(SMALL, spec, acts.networks_for("sample"))
    networks["ema_actor"].load_state_dict(learner.ema_actor.state_dict())
    act = ActConfig(mode="sample")
    noise = torch.randn(len(batch), *acts.noise_shape(act, spec), generator=torch.Generator().manual_seed(0))
    acted = acts.acting_module(networks, act, spec)({}, batch.state, batch.task_id, noise)
    moved = noise.double().numpy()
    for i in range(4):
        moved = moved + 0.25 * plain_velocity(learner, batch, moved, np.full(len(batch), 0.25 * i))
    assert acted.shape == batch.actions.shape
    mean, std = fitted(batch)
    expected = (mean + std * moved.reshape(acted.shape)).clip(-1, 1)
    np.testing.assert_allclose(acted.detach().numpy(), expected, atol=1e-5)


def test_it_learns_two_ways_where_a_mean_would_lie_between_them():
    """In one state half the chunks go one way, half the other; every sample takes one, each is taken often."""
    config = replace(SMALL, hidden_dims=(64, 64), num_actions=2, num_flow_samples=4, lr=1e-2, ema_tau=0.05)
    spec = make_spec(action_dim=2)
    way = torch.tensor([[0.6, -0.5], [0.4, 0.5]])
    batch = replace(make_batch(spec, 64, window=traits_of(config).window), images=None)
    sign = torch.where(torch.arange(64) % 2 == 0, 1.0, -1.0)
    same = {"state": torch.zeros_like(batch.state), "task_id": torch.zeros_like(batch.task_id)}
    batch = replace(batch, **same, actions=sign[:, None, None] * way, action_mask=torch.ones(64, 2, dtype=torch.bool))
    learner = make_learner(config, spec, seed=0)
    for step in range(300):
        learner.update(batch, step)
    acts = acts_of(config)
    acting = acts.acting_module({"ema_actor": learner.ema_actor}, ActConfig(mode="sample"), spec)
    noise = torch.randn(256, 4, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        chunks = acting({}, torch.zeros(256, 1, spec.state.dim), torch.zeros(256, dtype=torch.int64), noise)
    distance = torch.stack([(chunks - s * way).abs().amax(dim=(1, 2)) for s in (1.0, -1.0)])
    assert (distance.amin(dim=0) < 0.25).float().mean() > 0.85
    assert 0.3 < (distance[0] < distance[1]).float().mean() < 0.7
