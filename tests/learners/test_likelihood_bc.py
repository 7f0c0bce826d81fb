"""Cloning by laws of several modes (mixture, autoregressive bins): losses against the formulas in float64, samples."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from learner_cases import make_batch, make_spec

from ptr_fast.config import ActConfig, EncoderConfig
from ptr_fast.learners import make_learner
from ptr_fast.learners.autoregressive_bc import AutoregressiveBcConfig
from ptr_fast.learners.capabilities import Inputs
from ptr_fast.learners.mixture_bc import MixtureBcConfig
from ptr_fast.learners.registry import acts_of
from ptr_fast.nets.autoregressive import bin_centres, bin_of
from ptr_fast.nets.categorical import choose

NONE = EncoderConfig(name="none")
MIXTURE = MixtureBcConfig(encoder=NONE, hidden_dims=(16, 8), num_components=3, dropout=0.25)
BINS = AutoregressiveBcConfig(encoder=NONE, hidden_dims=(16, 8), num_bins=7, dropout=0.25)


def case(config):
    spec = make_spec()
    batch, learner = replace(make_batch(spec), images=None), make_learner(config, spec, seed=1)
    for step in range(20):  # away from the first weights, whose law hardly depends on what is seen
        learner.update(batch, step)
    return spec, batch, learner


def seen_of(batch, spec) -> np.ndarray:
    one_hot = np.eye(spec.tasks.num_slots)[batch.task_id.numpy()]
    return np.concatenate([batch.state.double().numpy().reshape(len(batch), -1), one_hot], axis=1)


def kept_of(learner, batch, step, probability=0.25) -> np.ndarray:
    return (learner.draw(range(len(batch)), step).dropout.double().numpy() >= probability) / (1 - probability)


def weights_of(learner) -> dict[str, np.ndarray]:
    return {name: value.detach().double().numpy() for name, value in learner.actor.policy.state_dict().items()}


def log_sum_exp(x, axis):
    return np.log(np.exp(x).sum(axis=axis))


def test_the_mixtures_loss_is_the_log_density_of_all_components_together():
    spec, batch, learner = case(MIXTURE)
    w, kept, actions = weights_of(learner), kept_of(learner, batch, 20), batch.actions[:, 0].double().numpy()
    hidden = np.maximum(seen_of(batch, spec) @ w["trunk.layers.0.weight"].T + w["trunk.layers.0.bias"], 0)
    hidden = (hidden * kept[:, :16]) @ w["trunk.layers.1.weight"].T + w["trunk.layers.1.bias"]
    hidden = np.maximum(hidden, 0) * kept[:, 16:]
    logits, mean, raw = (hidden @ w[f"{n}.weight"].T + w[f"{n}.bias"] for n in ("weight_logits", "mean", "raw_std"))
    mean, std = mean.reshape(6, 3, 4), 0.03 + np.log1p(np.exp(raw.reshape(6, 3, 4)))
    z = (actions[:, None] - mean) / std
    density = (-0.5 * z**2 - np.log(std) - 0.5 * np.log(2 * np.pi)).sum(axis=2)
    log_weight = logits - log_sum_exp(logits, 1)[:, None]
    expected = -log_sum_exp(log_weight + density, 1).mean()
    assert float(learner.update(batch, 20)["train/bc_loss"]) == pytest.approx(expected, rel=1e-5)


def test_the_autoregressive_loss_is_the_cross_entropy_of_every_axis_given_those_before_it():
    spec, batch, learner = case(BINS)
    w, kept, seen = weights_of(learner), kept_of(learner, batch, 20), seen_of(batch, spec)
    actions = batch.actions[:, 0].double().numpy()
    bins = np.clip(np.floor((actions + 1) / 2 * 7), 0, 6).astype(int)
    known = (bins + 0.5) / 7 * 2 - 1
    expected = 0.0
    for axis in range(4):
        inputs = known * (np.arange(4) < axis)
        hidden = seen @ w["seen"][axis].T + inputs @ w["before"][axis].T + w["biases.0"][axis]
        hidden = np.maximum(hidden, 0) * kept[:, :64].reshape(6, 4, 16)[:, axis]
        hidden = hidden @ w["weights.0"][axis].T + w["biases.1"][axis]
        hidden = np.maximum(hidden, 0) * kept[:, 64:].reshape(6, 4, 8)[:, axis]
        logits = hidden @ w["weights.1"][axis].T + w["biases.2"][axis]
        log_mass = logits - log_sum_exp(logits, 1)[:, None]
        expected -= (log_mass[np.arange(6), bins[:, axis]] + np.log(7 / 2)).mean()
    assert float(learner.update(batch, 20)["train/bc_loss"]) == pytest.approx(expected, rel=1e-5)


def test_an_axis_sees_the_axes_before_it_and_no_other():
    spec, batch, learner = case(BINS)
    with torch.no_grad():
        law = acts_of(BINS).distribution(learner.networks(), Inputs({}, batch.state, batch.task_id))
        known = bin_centres(bin_of(batch.actions[:, 0], 7), 7, torch.float32)
        logits = law.policy.logits(law.seen_BAC, known)
        for axis in range(spec.action.dim):
            alone = law.policy.logits_of(axis, law.seen_BAC, known[:, :axis])
            assert torch.allclose(logits[:, axis], alone, atol=1e-6)
            changed = known.clone()
            changed[:, axis:] = 9.0
            assert torch.equal(law.policy.logits(law.seen_BAC, changed)[:, axis], logits[:, axis])
            if axis > 0:
                changed[:, axis - 1] = 9.0
                assert not torch.equal(law.policy.logits(law.seen_BAC, changed)[:, axis], logits[:, axis])
        greedy = law.mode()
        assert torch.equal(bin_of(greedy[:, 0], 7), logits[:, 0].argmax(dim=1))
        assert law.sample(torch.zeros(6, 5, 4)).shape == (6, 5, 4)


def test_bins_are_equal_parts_of_the_action_range():
    edges = torch.tensor([-1.0, -0.51, -0.5, -0.01, 0.0, 0.49, 0.99, 1.0])
    assert bin_of(edges, 4).tolist() == [0, 0, 1, 1, 2, 2, 3, 3]
    assert bin_centres(torch.arange(4), 4, torch.float32).tolist() == [-0.75, -0.25, 0.25, 0.75]


def test_choices_have_their_probabilities():
    share = torch.tensor([[0.1, 0.0, 0.6, 0.3], [0.25, 0.25, 0.25, 0.25]])
    noise = torch.randn(2, 100_000, generator=torch.Generator().manual_seed(0))
    chosen = choose(share.log(), noise)
    counted = torch.stack([torch.bincount(row, minlength=4) for row in chosen]) / noise.shape[1]
    assert torch.allclose(counted, share, atol=0.01)
    assert choose(share.log(), torch.tensor([[-9.0, 9.0]] * 2)).tolist() == [[0, 3], [0, 3]]


@pytest.mark.parametrize("config", [MIXTURE, replace(BINS, num_bins=20)], ids=["mixture", "bins"])
def test_it_learns_two_ways_where_a_mean_would_lie_between_them(config):
    config = replace(config, hidden_dims=(32, 32), lr=3e-3, ema_tau=0.05, dropout=0.0)
    spec, way = make_spec(action_dim=2), torch.tensor([0.6, -0.4])
    sign = torch.where(torch.arange(32) % 2 == 0, 1.0, -1.0)
    batch = replace(make_batch(spec, 32), images=None)
    same = {"state": torch.zeros_like(batch.state), "task_id": torch.zeros_like(batch.task_id)}
    batch = replace(batch, **same, actions=(sign[:, None] * way)[:, None])
    learner = make_learner(config, spec, seed=0)
    for step in range(300):
        learner.update(batch, step)
    acts, act = acts_of(config), ActConfig(mode="sample")
    acting = acts.acting_module({"ema_actor": learner.ema_actor}, act, spec)
    noise = torch.randn(256, *acts.noise_shape(act, spec), generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        acted = acting({}, torch.zeros(256, 1, spec.state.dim), torch.zeros(256, dtype=torch.int64), noise)[:, 0]
    distance = torch.stack([(acted - s * way).abs().amax(dim=1) for s in (1.0, -1.0)])
    assert (distance.amin(dim=0) < 0.2).float().mean() > 0.9
    assert 0.4 < (distance[0] < distance[1]).float().mean() < 0.6
