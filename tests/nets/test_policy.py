"""Distributions over actions: densities, and what acting takes."""

import math

import pytest
import torch
from torch.distributions import Independent, Normal, TransformedDistribution
from torch.distributions.transforms import TanhTransform

from ptr_fast.nets.layers import select_task
from ptr_fast.nets.policy import MeanPolicy, PolicyTrunk, TanhGaussian, TanhGaussianPolicy, UnitGaussian


def make_law(dtype=torch.float64) -> TanhGaussian:
    generator = torch.Generator().manual_seed(0)
    mean = torch.randn(5, 3, generator=generator, dtype=dtype)
    return TanhGaussian(mean, 0.5 * torch.randn(5, 3, generator=generator, dtype=dtype) - 0.5)


def test_tanh_gaussian_matches_torch_distributions():
    law = make_law()
    other = TransformedDistribution(Independent(Normal(law.mean_BA, law.std_BA), 1), TanhTransform())
    actions = 0.9 * torch.tanh(torch.randn(5, 3, generator=torch.Generator().manual_seed(1), dtype=torch.float64))
    torch.testing.assert_close(law.log_prob(actions), other.log_prob(actions), rtol=1e-10, atol=1e-10)


def test_a_sample_and_its_density_agree_with_the_density_of_given_actions():
    law = make_law()
    for shape in ((5, 3), (5, 4, 3)):
        eps = torch.randn(shape, generator=torch.Generator().manual_seed(2), dtype=torch.float64)
        actions, log_prob = law.sample_with_log_prob(eps)
        assert actions.shape == shape
        assert log_prob.shape == shape[:-1]
        assert torch.equal(actions, law.sample(eps))
        given = actions if len(shape) == 2 else actions[:, 1]
        expected = log_prob if len(shape) == 2 else log_prob[:, 1]
        torch.testing.assert_close(law.log_prob(given), expected, rtol=1e-9, atol=1e-9)


def test_density_of_saturated_samples_stays_exact_in_float32():
    """1 - tanh(x)^2 is 0 in float32 beyond |x| = 9; the log slope is not."""
    mean = torch.tensor([[15.0, -15.0]])
    law = TanhGaussian(mean, torch.zeros(1, 2))
    actions, log_prob = law.sample_with_log_prob(torch.zeros(1, 2))
    assert float(actions.abs().min()) == 1.0
    slope = 2.0 * (math.log(2.0) - 15.0 - math.log1p(math.exp(-30.0)))
    expected = 2.0 * (-0.5 * math.log(2.0 * math.pi) - slope)
    assert float(log_prob) == pytest.approx(expected, rel=1e-6)


def test_gradients_flow_through_reparameterised_samples():
    law = make_law()
    mean, log_std = law.mean_BA.clone().requires_grad_(), law.log_std_BA.clone().requires_grad_()
    eps = torch.randn(5, 3, generator=torch.Generator().manual_seed(3), dtype=torch.float64)

    def loss(mean, log_std):
        actions, log_prob = TanhGaussian(mean, log_std).sample_with_log_prob(eps)
        return (actions.square().sum(1) + log_prob).sum()

    assert torch.autograd.gradcheck(loss, (mean, log_std))
    assert not TanhGaussian(mean, log_std).detach().mean_BA.requires_grad


def test_log_std_is_clipped_and_state_dependent():
    policy = TanhGaussianPolicy(6, 3, 4, 2, (8, 8))
    with torch.no_grad():
        for parameter in policy.parameters():
            parameter.normal_(generator=torch.Generator().manual_seed(4), std=3.0)
        law = policy(torch.randn(50, 6), torch.randn(50, 3), torch.randint(0, 4, (50,)))
    assert float(law.log_std_BA.min()) == -5.0
    assert float(law.log_std_BA.max()) == 2.0


def test_a_tasks_one_hot_is_a_column_of_the_first_weight():
    trunk = PolicyTrunk(6, 3, 4, (8, 5)).double()
    generator = torch.Generator().manual_seed(5)
    with torch.no_grad():
        for parameter in trunk.parameters():
            parameter.normal_(generator=generator)
    embedding, state = (torch.randn(7, n, generator=generator, dtype=torch.float64) for n in (6, 3))
    task = torch.randint(0, 4, (7,), generator=generator)
    hidden = torch.cat([embedding, state, torch.nn.functional.one_hot(task, 4).double()], dim=1)
    for layer in trunk.layers:
        hidden = layer(hidden).relu()
    torch.testing.assert_close(trunk(embedding, state, task), hidden, rtol=1e-12, atol=1e-12)
    with pytest.raises(ValueError, match="9 values together"):
        trunk(embedding[:, :5], state, task)


def test_unit_gaussian_acts_by_its_clipped_mean():
    law = UnitGaussian(torch.tensor([[0.5, -3.0], [2.0, 0.0]]))
    assert law.mode().tolist() == [[0.5, -1.0], [1.0, 0.0]]
    actions = torch.tensor([[0.0, -1.0], [1.0, 0.0]])
    expected = -0.5 * torch.tensor([0.25 + 4.0, 1.0]) - math.log(2.0 * math.pi)
    torch.testing.assert_close(law.log_prob(actions), expected)
    assert law.sample(torch.zeros(2, 3, 2)).shape == (2, 3, 2)
    assert MeanPolicy(6, 3, 4, 2, (8,))(torch.zeros(1, 6), torch.zeros(1, 3), torch.tensor([0])).mean_BA.shape == (1, 2)


@pytest.mark.parametrize(("shape", "dim"), [((6, 5), 1), ((2, 5, 4), 1), ((5, 3), 0)])
def test_the_gradient_of_a_task_is_that_of_index_select(shape, dim):
    task_id = torch.tensor([0, 3, 3, 1, 0, 0, 4])
    weights = [torch.randn(shape, generator=torch.Generator().manual_seed(0)).requires_grad_() for _ in range(2)]
    outs = [weights[0].index_select(dim, task_id), select_task(weights[1], dim, task_id)]
    assert torch.equal(*outs)
    upstream = torch.randn(outs[0].shape, generator=torch.Generator().manual_seed(1))
    for out in outs:
        out.backward(upstream)
    torch.testing.assert_close(weights[1].grad, weights[0].grad)
    with pytest.raises((IndexError, RuntimeError)):
        select_task(weights[1], dim, torch.tensor([5]))
