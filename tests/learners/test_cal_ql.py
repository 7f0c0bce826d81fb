"""Calibrated Q-learning against its equation in float64, and against CQL where its bound does not bind."""

import copy
import math
from dataclasses import replace

import pytest
import torch
from learner_cases import make_batch, make_spec

from ptr_fast import losses
from ptr_fast.config import CqlConfig, EncoderConfig, RewardConfig
from ptr_fast.learners import CqlLearner
from ptr_fast.learners.cal_ql import CalQlConfig, CalQlLearner
from ptr_fast.learners.registry import traits_of

SMALL = {"encoder": EncoderConfig(name="none"), "critic_head": "reinject_action", "hidden_dims": (16, 16)}


def with_returns(batch, *returns):
    return replace(batch, returns=torch.tensor(returns, dtype=torch.float32).repeat(len(batch) // len(returns)))


@pytest.fixture
def learner():
    """One whose Q values are some way apart from each other."""
    made = CalQlLearner(CalQlConfig(**SMALL, cql_alpha=2.0, critic_lr=3e-3), make_spec(), seed=1)
    for step in range(30):
        made.update(with_returns(make_batch(made.spec, seed=step), -torch.inf), step)
    return made


def test_the_critics_loss_and_gradients_are_those_of_the_paper(learner):
    batch = with_returns(make_batch(learner.spec), 3.0, -30.0, -torch.inf)
    critic = copy.deepcopy(learner.critic).double()
    draws = learner.draw(range(len(batch)), 30)
    terms = learner.update_with_terms(batch, 30)
    state, task = batch.state[:, -1].double(), batch.task_id
    num_samples, num_axes = terms.policy_actions_BKA.shape[1:]
    total, num_bounded = 0.0, 0
    for b in range(len(batch)):

        def q(action, b=b):
            return critic({}, state[b : b + 1], task[b : b + 1], action.double()[None, None])[:, 0, 0]

        q_data = q(batch.actions[b, 0])
        for e in range(learner.config.num_critics):
            summands = []
            for k in range(num_samples):
                value = q(terms.policy_actions_BKA[b, k])[e]
                num_bounded += int(value < batch.returns[b])
                held_up = value if value >= batch.returns[b] else batch.returns[b].double()
                summands.append(held_up - terms.policy_log_prob_BK[b, k].double())
                summands.append(q(draws.random_actions[b, k])[e] + num_axes * math.log(2.0))
            penalty = torch.log(sum(torch.exp(summand) for summand in summands)) - q_data[e]
            total = total + (q_data[e] - terms.target_B[b].double()) ** 2 + learner.config.cql_alpha * penalty
    loss = total / (len(batch) * learner.config.num_critics)
    assert 0 < num_bounded < len(batch) * learner.config.num_critics * num_samples
    torch.testing.assert_close(terms.critic_loss.double(), loss.detach(), rtol=2e-5, atol=1e-6)
    wanted = torch.autograd.grad(loss, list(critic.parameters()))
    for parameter, expected in zip(learner.critic.parameters(), wanted, strict=True):
        torch.testing.assert_close(parameter.grad.double(), expected, rtol=2e-3, atol=2e-5)


def test_no_gradient_reaches_a_q_below_its_bound():
    q = torch.tensor([[[-4.0, 1.0, 0.5]]], requires_grad=True)
    log_weight = torch.zeros(1, 3)
    found = losses.bounded_log_sum_exp(q, log_weight, 2, torch.tensor([-1.0]))
    torch.testing.assert_close(found, torch.tensor([[math.log(math.exp(-1) + math.exp(1) + math.exp(0.5))]]))
    found.sum().backward()
    assert q.grad[0, 0, 0] == 0.0
    assert (q.grad[0, 0, 1:] > 0.1).all()


def test_a_bound_that_does_not_bind_is_cql(learner):
    cql = CqlLearner(CqlConfig(**SMALL, cql_alpha=2.0), make_spec(), seed=5)
    cal_ql = CalQlLearner(CalQlConfig(**SMALL, cql_alpha=2.0), make_spec(), seed=5)
    for step in range(5):
        batch = make_batch(cql.spec, seed=step)
        cql.update(batch, step)
        info = cal_ql.update(with_returns(batch, -torch.inf), step)
    assert float(info["q/policy_bounded"]) == 0.0
    for mine, theirs in zip(cal_ql.critic.parameters(), cql.critic.parameters(), strict=True):
        torch.testing.assert_close(mine, theirs, rtol=0, atol=2e-6)


def test_targets_have_no_bound_and_the_reward_option_for_one_is_refused(learner):
    batch = with_returns(make_batch(learner.spec), 1000.0)
    terms = learner.update_with_terms(batch, 30)
    assert float(terms.target_B.max()) < 100.0
    with pytest.raises(ValueError, match=r"rewards\.lower_bound_returns: Cal-QL has no target for it to bound"):
        traits_of(learner.config).check_rewards(RewardConfig(lower_bound_returns=True))
    with pytest.raises(ValueError, match=r"batch\.returns: expected this column"):
        learner.update(make_batch(learner.spec), 31)
