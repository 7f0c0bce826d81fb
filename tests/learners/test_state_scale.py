"""States are standardised inside the nets where a configuration asks for it; else nothing changes."""

import dataclasses

import numpy as np
import pytest
import torch
from learner_cases import make_spec
from learner_kinds import KINDS, asked_for, small

from ptr_fast.checkpoint import load_training_state, read_checkpoint, save_checkpoint
from ptr_fast.config import ActConfig
from ptr_fast.learners import Ranks, make_learner
from ptr_fast.learners.preparation import TrainingData, prepare
from ptr_fast.learners.registry import make_networks, traits_of
from ptr_fast.nets.state_scale import StateScale, state_scales


def training_data(state: np.ndarray) -> TrainingData:
    ones = np.ones(len(state), np.float32)
    actions = np.linspace(-0.9, 0.9, 4 * len(state), dtype=np.float32).reshape(-1, 4)
    number = np.arange(len(state))
    return TrainingData(actions=actions, state=state, task_id=0 * number, rewards=ones, masks=ones, episode=number // 8)


def test_a_scale_is_the_mean_and_deviation_of_the_data():
    rng = np.random.default_rng(0)
    state = (rng.normal(size=(200, 3)) * [0.1, 3.0, 0.0] + [5.0, -2.0, 0.7]).astype(np.float32)
    scale = StateScale(3)
    raw = torch.from_numpy(state[:4])
    assert torch.equal(scale(raw), raw)
    scale.fit(torch.from_numpy(state))
    wide = state.astype(np.float64)
    expected = (wide - wide.mean(0)) / np.where([True, True, False], wide.std(0), 1.0)
    np.testing.assert_allclose(scale(raw).numpy(), expected[:4], atol=1e-4)
    two = torch.cat([raw, raw], dim=1)
    assert torch.equal(scale(two), torch.cat([scale(raw), scale(raw)], dim=1))


@pytest.mark.parametrize("tag", [tag for tag in KINDS if hasattr(small(tag), "hidden_dims")])
def test_every_learner_sees_standardised_states_and_its_checkpoints_do(tag, tmp_path):
    """Raw states with the fitted scale give what standardised states give without one, weights and numbers alike."""
    config, spec = small(tag), make_spec()
    if "state" not in traits_of(config).columns:
        pytest.skip("it does not look at the state")
    batch = asked_for(config, spec)
    offset, factor = torch.tensor([1.0, -2.0, 0.5]), torch.tensor([0.25, 4.0, 2.0])
    raw = {
        name: getattr(batch, name) * factor + offset
        for name in ("state", "next_state")
        if getattr(batch, name) is not None
    }
    data = (torch.tensor([[-1.0], [1.0]]).expand(2, 3) * factor + offset).repeat(32, 1).numpy()
    plain = make_learner(config, spec, seed=1)
    config = dataclasses.replace(config, standardise_state=True)
    ours = make_learner(config, spec, seed=1)
    prepare(plain, lambda: training_data(data), Ranks())
    prepare(ours, lambda: training_data(data), Ranks())
    assert state_scales(ours.networks().values())
    assert not state_scales(plain.networks().values())
    for step in range(2):
        wanted = plain.update(batch, step)
        got = ours.update(dataclasses.replace(batch, **raw), step)
    for name, value in wanted.items():
        torch.testing.assert_close(got[name], value, rtol=1e-3, atol=1e-4, msg=name)
    path = save_checkpoint(tmp_path, 1, ours, spec, ActConfig(), {})
    other = make_learner(config, spec, seed=2)
    load_training_state(read_checkpoint(path), other)
    kept = [scale.std.clone() for scale in state_scales(other.networks().values())]
    assert all(torch.allclose(std, factor) for std in kept)
    made = make_networks(config, spec, traits_of(config).networks)
    assert {n: set(m.state_dict()) for n, m in made.items()} == {
        n: set(m.state_dict()) for n, m in ours.networks().items()
    }
