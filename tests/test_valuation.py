"""The curves of an episode against the nets asked one frame at a time."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from valued_run import BC, make_run, make_store

from ptr_fast import valuation
from ptr_fast.checkpoint import read_checkpoint
from ptr_fast.config import CqlConfig
from ptr_fast.nets.init import keyed_generator
from ptr_fast.runtime.policy import Policy
from ptr_fast.valuation import value_episode
from ptr_robot.evaluation.metrics import record_of, rewards_of


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    return make_store(tmp_path_factory.mktemp("valuation") / "store")


@pytest.fixture(scope="module")
def policy(store, tmp_path_factory):
    return Policy.load(make_run(tmp_path_factory.mktemp("valuation") / "run", store))


def asked(policy, store, episode=0, **options):
    record = record_of(policy.info, store, episode, rewards_of(policy.info))
    config = policy.info.config
    if isinstance(config, CqlConfig):
        config = replace(config, discount=0.9)
    return record, value_episode(config, policy.networks, record, policy.spec, **options)


@pytest.mark.parametrize("averaged", [False, True])
def test_curves_are_what_the_policy_says(policy, store, averaged):
    record, got = asked(policy, store, averaged=averaged)
    frames, states = record.frames[policy.spec.camera.name][record.index], record.states[record.index]
    task, raw = store.episodes.task[0], policy.spec.action.unscale(record.actions)
    ask = ({policy.spec.camera.name: frames}, states, task)
    np.testing.assert_allclose(got.q, policy.predict_value(*ask, raw).min(0), atol=1e-5)
    np.testing.assert_allclose(got.q_averaged, policy.predict_value(*ask, raw, averaged=True).min(0), atol=1e-5)
    mean_raw = policy.actions(*ask, averaged=averaged)
    value = policy.predict_value(*ask, mean_raw, averaged=averaged).min(0)
    np.testing.assert_allclose(got.value, value, atol=1e-5)
    np.testing.assert_allclose(got.advantage, (got.q_averaged if averaged else got.q) - value, atol=1e-5)
    error = np.square(policy.spec.action.scale(mean_raw) - record.actions).mean(1)
    np.testing.assert_allclose(got.action_error, error, atol=1e-5)
    q = got.q_averaged if averaged else got.q
    noise = keyed_generator(0, "valuation", record.name, 0)
    torch.randn(len(record.states), 2, 7, generator=noise)  # the policy's come first
    random = torch.rand(len(record.states), 2, 7, generator=noise).mul(2).sub(1).numpy()[record.index]
    lower = [
        policy.predict_value(*ask, policy.spec.action.unscale(random[:, k]), averaged=averaged).min(0) < q
        for k in range(2)
    ]
    # Actions beyond the clip of 0.99 are clipped by predict_value; the difference is far below that of two actions.
    assert np.abs(np.mean(lower, axis=0) - got.preference).mean() < 0.05
    assert 0.0 < got.preference.mean() < 1.0
    if not averaged:
        np.testing.assert_allclose(got.log_prob, policy.log_prob(*ask, raw), atol=1e-4)


def test_bellman_error_follows_the_learners_rule(policy, store):
    """Max over the sampled next actions of the min over the averaged critics; nothing after a terminal step."""
    record, got = asked(policy, store, seed=3)
    nets, num_frames = policy.networks, len(record.states)
    noise = torch.randn(num_frames, 2, 7, generator=keyed_generator(3, "valuation", record.name, 0))
    for t in (0, 5, len(record.rewards) - 2, len(record.rewards) - 1):

        def at(frame):
            seen = {name: torch.from_numpy(frames[frame : frame + 1]) for name, frames in record.frames.items()}
            images = {name: frames.permute(0, 3, 1, 2).float() / 255 for name, frames in seen.items()}
            return images, torch.from_numpy(record.states[frame : frame + 1]), torch.tensor([record.task_id])

        with torch.no_grad():
            actions = nets["actor"](*at(t + 1)).sample(noise[t + 1 : t + 2])
            best = nets["target_critic"](*at(t + 1), actions).amin(0).amax()
            target = record.rewards[t] + 0.9 * record.masks[t] * best
            q = nets["critic"](*at(t), torch.from_numpy(record.actions[t])[None, None])[:, 0, 0]
        assert got.td_target[t] == pytest.approx(float(target), abs=1e-5)
        assert got.bellman_error[t] == pytest.approx(float(((q - target) ** 2).mean()), abs=1e-4)
    np.testing.assert_array_equal(got.td_target[-2:], [10.0, 10.0])  # the run pays the last two steps


def test_returns_use_the_runs_rewards(policy, store):
    _, got = asked(policy, store)
    np.testing.assert_allclose(got.returns[-3:], [-1 + 0.9 * 10, 10, 10])
    _, failed = asked(policy, store, episode=2)
    assert failed.outcome == "failure"
    assert np.isnan(failed.returns).all()
    assert (failed.rewards == -1).all()


def test_long_episodes_are_encoded_in_chunks(policy, store, monkeypatch):
    _, whole = asked(policy, store)
    monkeypatch.setattr(valuation, "CHUNK", 5)
    _, pieces = asked(policy, store)
    # Sampled actions are keyed by chunk; what involves none of them must not change.
    for name in ("q", "q_averaged", "value", "action_error", "log_prob"):
        np.testing.assert_allclose(getattr(pieces, name), getattr(whole, name), atol=1e-5)
    assert len(pieces.td_target) == len(whole.td_target)


def test_sampled_actions_depend_on_the_seed_alone(policy, store):
    same = [asked(policy, store, seed=seed)[1].q_random for seed in (1, 1, 2)]
    np.testing.assert_array_equal(same[0], same[1])
    assert not np.array_equal(same[0], same[2])


def test_a_cloned_policy_has_no_q(store, tmp_path):
    policy = Policy.load(make_run(tmp_path / "run", store, config=BC, steps=(2,)))
    record, got = asked(policy, store)
    assert len(got.q) == len(got.advantage) == len(got.td_target) == 0
    frames = {name: each[:-1] for name, each in record.frames.items()}
    raw = policy.actions(frames, record.states[:-1], store.episodes.task[0])
    error = np.square(policy.spec.action.scale(raw) - record.actions).mean(1)
    # The mean of a cloned policy is clipped to 1 and the recorded action to 0.99.
    np.testing.assert_allclose(got.action_error, error, atol=0.02)


def test_other_camera_sizes_are_resized(policy, store, tmp_path):
    info = read_checkpoint(policy.info.path)
    spec = replace(info.spec, cameras=(replace(info.spec.camera, height=24, width=32),))
    record = record_of(replace(info, spec=spec), store, 0, rewards_of(info))
    assert record.frames[spec.camera.name].shape[1:] == (24, 32, 3)
