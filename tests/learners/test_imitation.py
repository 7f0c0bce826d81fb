"""What all learners that imitate share, and behaviour cloning's options: dropout, the L1 loss."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from learner_cases import make_batch, make_spec

from ptr_fast.config import ActConfig, BcConfig, EncoderConfig
from ptr_fast.learners import make_learner
from ptr_fast.learners.registry import acts_of, make_networks, traits_of
from ptr_fast.nets.dropout import Dropout
from ptr_fast.nets.policy import UnitLaplace

NONE = EncoderConfig(name="none")
DROPPED = BcConfig(encoder=NONE, hidden_dims=(16, 8), dropout=0.25)


def plain_bc(learner, batch, keep=(1.0, 1.0)) -> tuple[np.ndarray, np.ndarray]:
    """Means ``[B, H * A]`` of two hidden layers and the actions, in float64; ``keep`` multiplies the hidden units."""
    weights = {name: value.detach().double().numpy() for name, value in learner.actor.policy.state_dict().items()}
    one_hot = np.eye(learner.spec.tasks.num_slots)[batch.task_id.numpy()]
    hidden = np.concatenate([batch.state.double().numpy().reshape(len(batch), -1), one_hot], axis=1)
    for layer, kept in enumerate(keep):
        name = f"trunk.layers.{layer}"
        hidden = np.maximum(hidden @ weights[f"{name}.weight"].T + weights[f"{name}.bias"], 0.0) * kept
    mean = hidden @ weights["mean.weight"].T + weights["mean.bias"]
    return mean, batch.actions.double().numpy().reshape(len(batch), -1)


def test_the_l1_loss_is_the_mean_absolute_error_over_the_steps_of_the_episode():
    spec, config = make_spec(), BcConfig(encoder=NONE, hidden_dims=(16, 8), num_actions=3, loss="l1")
    batch = replace(make_batch(spec, window=traits_of(config).window), images=None)
    learner = make_learner(config, spec, seed=1)
    mean, actions = plain_bc(learner, batch)
    mask = batch.action_mask.numpy()
    error = np.abs(mean - actions).reshape(*mask.shape, -1).sum(axis=-1)
    expected = (mask * (error + spec.action.dim * np.log(2.0))).mean()
    assert float(learner.update(batch, 0)["train/bc_loss"]) == pytest.approx(expected, rel=1e-6)


def test_a_laplace_law_samples_what_it_says():
    law = UnitLaplace(torch.zeros(1, 1))
    eps = torch.randn(1, 200_000, 1, generator=torch.Generator().manual_seed(0)).double()
    assert law.sample(-eps).allclose(-law.sample(eps))
    inside = law.sample(eps).abs() < 1.0
    assert float(inside.double().mean()) == pytest.approx(1.0 - np.exp(-1.0), abs=0.005)
    assert float(law.log_prob(torch.tensor([[0.5]]))) == pytest.approx(-0.5 - np.log(2.0))


def test_dropout_multiplies_the_units_of_every_layer_and_scales_up_what_is_kept():
    spec, learner = make_spec(), make_learner(DROPPED, make_spec(), seed=1)
    batch = replace(make_batch(spec), images=None)
    uniform = learner.draw(range(len(batch)), 0).dropout.double().numpy()
    assert uniform.shape == (len(batch), 24)
    kept = (uniform >= 0.25) / 0.75
    mean, actions = plain_bc(learner, batch, (kept[:, :16], kept[:, 16:]))
    expected = (0.5 * (mean - actions) ** 2 + 0.5 * np.log(2 * np.pi)).sum(axis=1).mean()
    assert float(learner.update(batch, 0)["train/bc_loss"]) == pytest.approx(expected, rel=1e-6)


def test_dropout_is_off_where_it_is_0_and_when_the_policy_acts():
    spec, batch = make_spec(), replace(make_batch(make_spec()), images=None)
    assert make_learner(replace(DROPPED, dropout=0.0), spec).draw(range(6), 0).dropout is None
    learner = make_learner(DROPPED, spec, seed=1)
    networks = make_networks(DROPPED, spec, ["actor"])
    networks["actor"].load_state_dict(learner.actor.state_dict())
    acting = acts_of(DROPPED).acting_module(networks, ActConfig(), spec)
    mean, _ = plain_bc(learner, batch)
    acted = acting({}, batch.state, batch.task_id)[:, 0].detach().numpy()
    np.testing.assert_allclose(acted, mean.clip(-1, 1), atol=1e-6)


def test_dropout_of_a_sample_does_not_depend_on_who_draws_it():
    learner = make_learner(DROPPED, make_spec())
    whole = learner.draw(range(6), 3).dropout
    assert torch.equal(learner.draw(range(1, 6, 2), 3).dropout, whole[1::2])
    assert not torch.equal(learner.draw(range(6), 4).dropout, whole)
    with pytest.raises(ValueError, match=r"dropout must lie in \[0, 1\), got 1.0"):
        BcConfig(dropout=1.0)
    with pytest.raises(ValueError, match="3 numbers were drawn, at least 4 are used"):
        Dropout(torch.zeros(2, 3), 0.5)(torch.zeros(2, 4))
