"""Behaviour cloning of chunks of actions from several past observations."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from learner_cases import make_batch, make_spec

from ptr_fast.config import ActConfig, BcConfig, EncoderConfig
from ptr_fast.learners import make_learner
from ptr_fast.learners.capabilities import Inputs
from ptr_fast.learners.registry import acts_of, make_networks, traits_of

ENCODER = EncoderConfig(name="conv3", num_filters=4, embedding_dim=8, pooling="mean")
CHUNKS = BcConfig(encoder=ENCODER, hidden_dims=(16,), num_actions=4, num_observations=2)


def test_its_traits_ask_for_the_window_and_for_no_next_frames():
    traits = traits_of(CHUNKS)
    assert (traits.window.num_observations, traits.window.num_actions) == (2, 4)
    assert traits.columns == {"images", "state", "task_id", "actions", "action_mask"}
    assert traits_of(BcConfig(encoder=EncoderConfig(name="none"))).columns == {"state", "task_id", "actions"}
    with pytest.raises(ValueError, match="num_actions must be at least 1, got 0"):
        BcConfig(num_actions=0)


@pytest.mark.parametrize("encoder", ["conv3", "none"])
def test_what_lies_behind_the_end_of_an_episode_teaches_nothing(encoder):
    spec, config = make_spec(), replace(CHUNKS, encoder=replace(ENCODER, name=encoder))
    batch = make_batch(spec, window=traits_of(config).window)
    assert not batch.action_mask.all()
    behind = torch.where(batch.action_mask[..., None], batch.actions, -batch.actions)
    infos, weights = [], []
    for actions in (batch.actions, behind):
        learner = make_learner(config, spec, seed=1)
        infos.append(learner.update(replace(batch, actions=actions), 0))
        weights.append([parameter.detach().clone() for parameter in learner.actor.parameters()])
    assert torch.equal(infos[0]["train/bc_loss"], infos[1]["train/bc_loss"])
    assert all(torch.equal(one, other) for one, other in zip(*weights, strict=True))


def test_a_chunk_is_learned_and_acted_out():
    spec = make_spec()
    config = replace(CHUNKS, encoder=EncoderConfig(name="none"), lr=1e-2)
    batch = replace(make_batch(spec, window=traits_of(config).window), images={})
    learner = make_learner(config, spec, seed=0)
    for step in range(400):
        info = learner.update(batch, step)
    assert info["actor/mse"] < 1e-2
    networks = make_networks(config, spec, ["actor"])
    networks["actor"].load_state_dict(learner.actor.state_dict())
    acting = acts_of(config).acting_module(networks, ActConfig(), spec)
    chunk_BHA = acting({}, batch.state, batch.task_id)
    assert chunk_BHA.shape == batch.actions.shape
    error = (chunk_BHA - batch.actions)[batch.action_mask]
    assert error.square().mean() < 1e-2
    law = acts_of(config).distribution(networks, Inputs({}, batch.state, batch.task_id))
    assert torch.equal(law.mode(), chunk_BHA[:, 0])


def test_one_action_and_one_observation_are_what_they_were():
    """The nets have the parameters, names and bits of those that know no window."""
    from ptr_fast.learners.bc import BcNetworks
    from ptr_fast.nets.build import make_actor as make_actor_of
    from ptr_fast.nets.policy import MeanPolicy

    spec, config = make_spec(), BcConfig(encoder=ENCODER, hidden_dims=(16,))
    ours, plain = BcNetworks(config).make_actor(spec, 3), make_actor_of(ENCODER, MeanPolicy, (16,), spec, 3)
    batch = make_batch(spec)
    for name, value in plain.state_dict().items():
        assert torch.equal(ours.state_dict()[name], value), name
    images = {"camera": torch.rand(6, 3, 16, 16)}
    acting = acts_of(config).acting_module({"actor": ours}, ActConfig(), spec)
    expected = plain.mean_action(images, batch.state[:, -1], batch.task_id)
    assert torch.equal(acting(images, batch.state, batch.task_id)[:, 0], expected)
