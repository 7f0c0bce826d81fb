"""What the critic chooses, beside plain definitions; and that it looks once."""

from __future__ import annotations

import numpy as np
import pytest
import steering_case as case
import torch

from ptr_fast.checkpoint import read_checkpoint
from ptr_fast.learners.autoregressive_bc.config import AutoregressiveBcConfig
from ptr_fast.learners.bet.config import BetConfig
from ptr_fast.learners.cql_proposals.config import CqlProposalsConfig
from ptr_fast.learners.flow_bc.config import FlowBcConfig
from ptr_fast.learners.mixture_bc.config import MixtureBcConfig
from ptr_fast.runtime.choice import SteeringConfig, choose, proposal_seed
from ptr_fast.runtime.policy import Policy
from ptr_fast.runtime.steering import Proposer, SteeringCritic

RNG = np.random.default_rng(0)
Q, PROPOSALS = RNG.normal(size=9).astype(np.float32), RNG.normal(size=(9, 3, 4)).astype(np.float32)


def test_max_takes_the_proposal_of_the_largest_q_and_the_first_of_equal_ones():
    actions, index = choose(Q, PROPOSALS, SteeringConfig())
    assert index == max(range(9), key=lambda k: Q[k])
    np.testing.assert_array_equal(actions, PROPOSALS[index])
    assert choose(np.ones(9, np.float32), PROPOSALS, SteeringConfig())[1] == 0


def test_average_takes_the_mean_of_the_best():
    for num_best in (1, 4, 9, 20):
        actions, index = choose(Q, PROPOSALS, SteeringConfig(choose="average", num_best=num_best))
        best = sorted(range(9), key=lambda k: -Q[k])[:num_best]
        expected = sum(PROPOSALS[k].astype(np.float64) for k in best) / len(best)
        np.testing.assert_allclose(actions, expected, rtol=0, atol=1e-7)
        assert index == best[0]


def test_softmax_draws_by_the_exponential_of_q_over_the_temperature():
    config = SteeringConfig(choose="softmax", temperature=0.7)
    drawn = [choose(Q + 1000.0, PROPOSALS, config, seed)[1] for seed in range(4000)]
    weight = np.exp(np.float64(Q) / 0.7)
    np.testing.assert_allclose(np.bincount(drawn, minlength=9) / 4000, weight / weight.sum(), atol=0.025)
    assert drawn[:9] == [choose(Q + 1000.0, PROPOSALS, config, seed)[1] for seed in range(9)]
    cold = SteeringConfig(choose="softmax", temperature=1e-6)
    assert {choose(Q, PROPOSALS, cold, seed)[1] for seed in range(20)} == {int(Q.argmax())}


@pytest.mark.parametrize("wrong", [{"choose": "best"}, {"temperature": 0.0}, {"temperature": np.nan}, {"num_best": 0}])
def test_choosing_without_sense_is_refused(wrong):
    with pytest.raises(ValueError, match=next(iter(wrong))):
        SteeringConfig(**wrong)


@pytest.fixture(scope="module", params=[32, 0], ids=["frames", "states"])
def critic(request, tmp_path_factory):
    spec = case.spec_of(request.param)
    folder = case.critic(tmp_path_factory.mktemp("critic"), spec)
    return SteeringCritic(read_checkpoint(folder), SteeringConfig()), spec


def test_q_is_the_least_of_the_averaged_critics_and_the_frame_is_encoded_once(critic):
    critic, spec = critic
    observation = case.seen(spec)
    low, high = np.array(spec.action.low), np.array(spec.action.high)
    proposals = np.random.default_rng(1).uniform(low, high, (16, 2, 4)).astype(np.float32)
    proposals[3] = proposals[3] * 5.0  # outside the bounds, and 5 is not finite
    proposals[5, 1, 2] = np.nan
    critic.values((observation,), proposals[:1, 0])
    calls, heads = [], critic._networks["target_critic"]
    handle = heads.encoder.register_forward_hook(lambda *_: calls.append(1))
    choice = critic.choose((observation,), proposals)
    handle.remove()
    assert len(calls) == 1
    kept = np.clip(np.delete(proposals, 5, axis=0), low, high).astype(np.float32)
    assert (choice.num_dropped, choice.num_clipped, choice.first) == (1, 1, True)
    one_by_one = [critic.values((observation,), each[None, 0])[0] for each in kept]
    np.testing.assert_allclose(choice.q, one_by_one, rtol=0, atol=1e-5)
    with torch.inference_mode():  # the networks themselves
        policy = Policy(critic.info)
        frames = {name: policy.inputs((observation,))["frame"][None] for name in critic.frame_sizes}
        each = policy.predict_value(frames, observation.state[None], case.TASK, kept[:1, 0], averaged=True)
    assert each.shape == (critic.info.config.num_critics, 1)
    np.testing.assert_allclose(choice.q[0], each.min(), atol=1e-5)
    np.testing.assert_array_equal(choice.actions, kept[int(np.argmax(one_by_one))])


def test_the_search_of_a_policy_is_a_critic_that_steers_it(tmp_path):
    """The mode search by another way: its actor's samples, its own critic."""
    folder = case.critic(tmp_path, case.spec_of(0))
    policy = Policy.load(folder, mode="search", num_candidates=8)
    observation = case.seen(policy.spec)
    given = policy.inputs((observation,), seed=7)
    graph = policy.graph()
    with torch.inference_mode():
        prepared = graph.prepared(*(torch.from_numpy(each) for each in given.values()))
        scaled_1KA = graph.acting.main(*prepared[:3], *prepared[3])
        samples = ((scaled_1KA + 1.0) * graph.half_range + graph.low)[0].numpy()
    choice = SteeringCritic(read_checkpoint(folder), SteeringConfig()).choose((observation,), samples[:, None])
    np.testing.assert_allclose(choice.actions[0], policy.act(observation, (), seed=7)[0][0], rtol=0, atol=1e-6)


def test_nothing_finite_and_other_shapes_are_told(critic):
    critic, spec = critic
    with pytest.raises(RuntimeError, match="none of 2 proposals is finite"):
        critic.choose((case.seen(spec),), np.full((2, 1, 4), np.inf))
    with pytest.raises(ValueError, match=r"proposals: expected \[H, 4\] each, got \[1, 3\]"):
        critic.choose((case.seen(spec),), np.zeros((2, 1, 3)))


def test_a_checkpoint_without_a_critic_cannot_choose(tmp_path):
    folder = case.clone(tmp_path, case.spec_of(0))
    with pytest.raises(ValueError, match="has no critic, so it cannot choose among proposals"):
        SteeringCritic(read_checkpoint(folder), SteeringConfig())


SAMPLERS = {
    "mixture": MixtureBcConfig(encoder=case.SMALL, hidden_dims=(16,), num_components=4),
    "flow": FlowBcConfig(encoder=case.SMALL, hidden_dims=(16,), num_actions=3),
    "bins": AutoregressiveBcConfig(encoder=case.SMALL, hidden_dims=(16,)),
    "transformer": BetConfig(encoder=case.SMALL, num_layers=1, num_heads=2, width=16, num_bins=4),
    "proposals": CqlProposalsConfig(encoder=case.SMALL, hidden_dims=(16,), num_components=4),
}


@pytest.mark.parametrize("config", SAMPLERS.values(), ids=SAMPLERS)
def test_many_proposals_at_once_are_those_of_asking_again_and_again(tmp_path, config):
    policy = Policy.load(case.save(tmp_path, config, case.spec_of(32), "sample"))
    proposer, observation = Proposer(policy), case.seen(policy.spec)
    seeds = [proposal_seed(11, k) for k in range(6)]
    assert len(set(seeds)) == 6
    assert seeds[0] == 11
    calls = []
    handle = proposer._graph.acting.actor.encoder.register_forward_hook(lambda *_: calls.append(1))
    together = proposer.propose((observation,), seeds)
    handle.remove()
    assert len(calls) == 1
    assert len(np.unique(together[:, 0], axis=0)) > 1
    assert together.shape == (6, policy.window.num_actions, 4)
    apart = np.stack([policy.act(observation, (), seed)[0] for seed in seeds])
    np.testing.assert_allclose(together, apart, rtol=0, atol=1e-6)
