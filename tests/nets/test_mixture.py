"""The mixture of Gaussians: densities against torch.distributions, samples against its own probabilities."""

import math

import pytest
import torch
from torch.distributions import Categorical, Independent, MixtureSameFamily, Normal

from ptr_fast.config import EncoderConfig
from ptr_fast.learners.acting import SampleActing
from ptr_fast.nets import Actor, Mixture, MixturePolicy
from ptr_fast.nets.encoders import make_encoder
from ptr_fast.nets.init import draw_weights, keyed_generator
from ptr_fast.types import CameraSpec


def make_law(num_states=5, num_components=3, action_dim=2, dtype=torch.float64) -> Mixture:
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(num_states, num_components, generator=generator, dtype=dtype)
    mean = 0.3 * torch.randn(num_states, num_components, action_dim, generator=generator, dtype=dtype)
    std = 0.05 + 0.1 * torch.rand(num_states, num_components, action_dim, generator=generator, dtype=dtype)
    return Mixture(logits.log_softmax(dim=1), mean, std)


def normal(*shape, seed=1, dtype=torch.float64) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=dtype)


def test_its_density_is_that_of_torch_distributions():
    law = make_law()
    other = MixtureSameFamily(Categorical(logits=law.log_weight_BC), Independent(Normal(law.mean_BCA, law.std_BCA), 1))
    actions = 0.5 * normal(5, 2)
    torch.testing.assert_close(law.log_prob(actions), other.log_prob(actions), rtol=1e-12, atol=1e-12)
    many = 0.5 * normal(5, 4, 2)
    expected = torch.stack([other.log_prob(many[:, k]) for k in range(4)], dim=1)
    torch.testing.assert_close(law.log_prob(many), expected, rtol=1e-12, atol=1e-12)


def test_a_component_is_chosen_as_often_as_it_weighs():
    """Component i is chosen where the first number's distribution function lies between its bounds."""
    weights = torch.tensor([[0.2, 0.5, 0.3]], dtype=torch.float64)
    means = torch.tensor([[[-0.5], [0.0], [0.5]]], dtype=torch.float64)
    law = Mixture(weights.log(), means, torch.full_like(means, 0.01))
    uniform = torch.tensor([0.001, 0.199, 0.201, 0.699, 0.701, 0.999], dtype=torch.float64)
    choice = math.sqrt(2.0) * torch.erfinv(2.0 * uniform - 1.0)
    noise = torch.stack([choice, torch.ones_like(choice)], dim=1)[None]
    assert law.noise_dim == 2
    expected = torch.tensor([-0.5, -0.5, 0.0, 0.0, 0.5, 0.5], dtype=torch.float64) + 0.01
    torch.testing.assert_close(law.sample(noise)[0, :, 0], expected)
    drawn = law.sample(normal(1, 20_000, 2))[0, :, 0]
    shares = torch.stack([(drawn - mean).abs() < 0.1 for mean in (-0.5, 0.0, 0.5)]).double().mean(dim=1)
    assert (shares - weights[0]).abs().max() < 0.02


def test_samples_stay_in_the_range_and_know_their_density():
    law = make_law()
    law = Mixture(law.log_weight_BC, 3.0 * law.mean_BCA, law.std_BCA)
    for shape in ((5, 3), (5, 7, 3)):
        actions, log_prob = law.sample_with_log_prob(normal(*shape))
        assert actions.shape == (*shape[:-1], 2)
        assert log_prob.shape == shape[:-1]
        assert actions.abs().max() <= 1.0
        torch.testing.assert_close(log_prob, law.log_prob(actions))
    most = torch.full((5, 3), 9.0, dtype=torch.float64)  # beyond every bound: the last component
    torch.testing.assert_close(law.sample(most), (law.mean_BCA[:, -1] + 9 * law.std_BCA[:, -1]).clamp(-1, 1))


def test_its_mode_is_a_component_not_their_mean():
    law = Mixture(torch.tensor([[0.4, 0.6]]).log(), torch.tensor([[[-0.5], [0.5]]]), torch.full((1, 2, 1), 0.1))
    assert float(law.mode()) == 0.5


def test_gradients_of_the_density_are_exact():
    law = make_law()
    inputs = [each.clone().requires_grad_() for each in (law.log_weight_BC, law.mean_BCA, law.std_BCA)]
    actions = 0.5 * normal(5, 2)
    assert torch.autograd.gradcheck(lambda *parts: Mixture(*parts).log_prob(actions), inputs)


def test_the_density_is_summed_in_float32_under_bfloat16():
    law = make_law(dtype=torch.float32)
    low = Mixture(*(each.to(torch.bfloat16) for each in (law.log_weight_BC, law.mean_BCA, law.std_BCA)))
    assert low.log_prob(torch.zeros(5, 2, dtype=torch.bfloat16)).dtype == torch.float32


def test_the_policy_learns_two_modes_and_its_means_begin_apart():
    policy = draw_weights(MixturePolicy(0, 2, 1, 1, (16,), num_components=4, min_std=0.02), 0, "actor")
    states, tasks = torch.zeros(64, 2), torch.zeros(64, dtype=torch.int64)
    embedding = torch.zeros(64, 0)
    assert policy(embedding, states, tasks).mean_BCA.std(dim=1).min() > 0.05
    actions = torch.where(torch.arange(64) % 2 == 0, 0.6, -0.6)[:, None]
    adam = torch.optim.Adam(policy.parameters(), 1e-2)
    for _ in range(200):
        loss = -policy(embedding, states, tasks).log_prob(actions).mean()
        adam.zero_grad()
        loss.backward()
        adam.step()
    law = policy(embedding[:1], states[:1], tasks[:1])
    drawn = law.sample(normal(1, 500, 2, dtype=torch.float32))[0, :, 0]
    near = (drawn.abs() - 0.6).abs() < 0.1
    assert near.float().mean() > 0.98
    assert 0.4 < (drawn > 0).float().mean() < 0.6
    assert law.std_BCA.min() >= 0.02


def test_bad_sizes_are_refused():
    for bad in ({"num_components": 0}, {"min_std": 0.0}):
        with pytest.raises(ValueError, match="mixture: expected at least one component and min_std above 0"):
            MixturePolicy(4, 2, 1, 3, (8,), **bad)


def test_an_actor_of_it_acts_by_a_sample():
    camera = CameraSpec(name="camera", height=16, width=16)
    encoder = make_encoder(EncoderConfig(name="none"), (camera,))
    actor = Actor(encoder, MixturePolicy(encoder.num_outputs, 3, 5, 4, (8,)))
    actor.initialise(keyed_generator(0, "actor"))
    acted = SampleActing(actor)({}, torch.zeros(2, 1, 3), torch.zeros(2, dtype=torch.int64), normal(2, 5).float())
    assert acted.shape == (2, 1, 4)
