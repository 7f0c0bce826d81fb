"""CQL with cloned proposals: its losses against plain definitions in float64, and against CQL at the same inputs."""

import dataclasses
import math

import numpy as np
import pytest
import torch
from learner_cases import make_batch, make_spec

from ptr_fast.config import ActConfig, CqlConfig, EncoderConfig
from ptr_fast.learners import CqlLearner, Draws
from ptr_fast.learners.cql_proposals import CqlProposalsConfig, CqlProposalsLearner
from ptr_fast.learners.cql_proposals.draws import ProposalDraws
from ptr_fast.learners.registry import acts_of
from ptr_fast.nets.init import draw_weights
from ptr_fast.nets.normalised_head import NormalisedHead
from ptr_fast.nets.policy import TanhGaussianPolicy

STATES = EncoderConfig(name="none")
PIXELS = EncoderConfig(name="conv3", num_filters=4, pooling="spatial_softmax", embedding_dim=8)
NUM_TASKS = 5


def make_learner(encoder=STATES, **options) -> CqlProposalsLearner:
    sizes = {"hidden_dims": (12, 10), "num_action_samples": 3, "num_components": 2, "critic_lr": 1e-2}
    return CqlProposalsLearner(CqlProposalsConfig(encoder=encoder, **{**sizes, **options}), make_spec())


def random_batch(with_returns=True, seed=0):
    batch = make_batch(make_spec(), seed=seed)
    returns = torch.where(torch.arange(len(batch)) % 2 == 0, 3.0, -torch.inf)
    return dataclasses.replace(batch, returns=returns) if with_returns else batch


def wide(tensor) -> np.ndarray:
    return tensor.detach().numpy().astype(np.float64)


def one_hot(task_id) -> np.ndarray:
    return np.eye(NUM_TASKS)[task_id.numpy()]


def mixture(actor, state, task_id):
    """Weights ``[B, C]``, means and standard deviations ``[B, C, A]`` by the weights of the network."""
    policy, hidden = actor.policy, np.concatenate([wide(state), one_hot(task_id)], axis=1)
    for layer in policy.trunk.layers:
        hidden = np.maximum(hidden @ wide(layer.weight).T + wide(layer.bias), 0.0)
    outputs = (policy.weight_logits, policy.mean, policy.raw_std)
    logits, mean, raw = (hidden @ wide(layer.weight).T + wide(layer.bias) for layer in outputs)
    weight = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    shape = (len(state), weight.shape[1], -1)
    return weight, mean.reshape(shape), policy.min_std + np.log1p(np.exp(raw)).reshape(shape)


def sampled(law, noise) -> np.ndarray:
    weight, mean, std = law
    out = np.zeros((*noise.shape[:2], mean.shape[2]))
    for b in range(noise.shape[0]):
        for k in range(noise.shape[1]):
            uniform = 0.5 * (1.0 + math.erf(float(noise[b, k, 0]) / math.sqrt(2.0)))
            c = int(np.searchsorted(np.cumsum(weight[b])[:-1], uniform, side="right"))
            out[b, k] = np.clip(mean[b, c] + std[b, c] * wide(noise[b, k, 1:]), -1.0, 1.0)
    return out


def log_density(law, actions) -> np.ndarray:
    """``[B, K]`` of actions ``[B, K, A]``."""
    weight, mean, std = law
    eps = (actions[:, :, None] - mean[:, None]) / std[:, None]
    density = np.exp(-0.5 * eps**2) / (std[:, None] * math.sqrt(2.0 * math.pi))
    return np.log((weight[:, None] * density.prod(axis=3)).sum(axis=2))


def q_values(critic, state, task_id, actions) -> np.ndarray:
    """``[E, B, K]``: the first layer sees state, task and action, later ones the layer before and the action."""
    head, out = critic.head, []
    for e in range(head.num_critics):
        seen = np.concatenate([wide(state), one_hot(task_id)], axis=1)[:, None].repeat(actions.shape[1], axis=1)
        hidden = seen
        for i, (kernel, bias) in enumerate(zip(head.kernels, head.biases, strict=True)):
            hidden = np.concatenate([hidden, actions], axis=2) @ wide(kernel)[e] + wide(bias)[e]
            if isinstance(head, NormalisedHead) and i + 1 < len(head.kernels):
                centred = hidden - hidden.mean(axis=2, keepdims=True)
                hidden = centred / np.sqrt((centred**2).mean(axis=2, keepdims=True) + 1e-6)
                hidden = hidden * wide(head.scales[i])[e] + wide(head.shifts[i])[e]
            hidden = np.maximum(hidden, 0.0) if i + 1 < len(head.kernels) else hidden
        out.append(hidden[..., 0])
    return np.stack(out)


@pytest.mark.parametrize(("layer_norm", "is_weighted"), [(False, False), (True, False), (True, True)])
def test_losses_are_those_of_the_definition(layer_norm, is_weighted):
    learner, batch = make_learner(cql_alpha=0.7, discount=0.9, critic_layer_norm=layer_norm), random_batch()
    counts = np.where(np.arange(len(batch)) % 3 == 0, 0.2, 1.8) if is_weighted else np.ones(len(batch))
    if is_weighted:
        batch = dataclasses.replace(batch, critic_weight=torch.tensor(counts, dtype=torch.float32))
    for step in range(3):  # averages and trained networks differ from here on
        learner.update(batch, step)
    draws = learner.draw(range(len(batch)), 3)
    before = {name: [p.clone() for p in net.parameters()] for name, net in learner.networks().items()}
    state, next_state, task_id = batch.state[:, 0], batch.next_state[:, 0], batch.task_id
    next_actions = sampled(mixture(learner.ema_actor, next_state, task_id), draws.next_noise)
    next_q = q_values(learner.target_critic, next_state, task_id, next_actions)
    target = wide(batch.rewards) + 0.9 * wide(batch.masks) * next_q.min(axis=0).max(axis=1)
    target = np.maximum(target, wide(batch.returns))
    law = mixture(learner.actor, state, task_id)
    proposals, data = sampled(law, draws.proposal_noise), wide(batch.actions)
    candidates = np.concatenate([proposals, wide(draws.random_actions)], axis=1)
    weights = np.concatenate(
        [-np.clip(log_density(law, proposals), -10, 10), np.full(proposals.shape[:2], 4 * math.log(2.0))], axis=1
    )
    q_data = q_values(learner.critic, state, task_id, data)[..., 0]
    log_sum_exp = np.log(np.exp(q_values(learner.critic, state, task_id, candidates) + weights).sum(axis=2))

    terms = learner.update_with_terms(batch, 3, draws)
    np.testing.assert_allclose(wide(terms.proposals_BKA), proposals, atol=1e-5)
    np.testing.assert_allclose(wide(terms.next_q_EBK), next_q, atol=1e-5)
    np.testing.assert_allclose(wide(terms.target_B), target, atol=1e-5)
    assert (target == wide(batch.returns)).any()
    assert (target > wide(batch.returns)).any()
    np.testing.assert_allclose(wide(terms.q_data_EB), q_data, atol=1e-5)
    np.testing.assert_allclose(wide(terms.log_sum_exp_EB), log_sum_exp, rtol=1e-5)
    bellman, cql = (counts * (q_data - target) ** 2).mean(), (counts * (log_sum_exp - q_data)).mean()
    assert float(terms.bellman_loss) == pytest.approx(bellman, rel=1e-5)
    assert float(terms.cql_loss) == pytest.approx(cql, rel=1e-5)
    assert float(terms.critic_loss) == pytest.approx(bellman + 0.7 * cql, rel=1e-5)
    np.testing.assert_allclose(wide(terms.log_prob_data_B), log_density(law, data)[:, 0], rtol=1e-4)
    changed = {n: [not torch.equal(*pair) for pair in zip(before[n], net.parameters(), strict=True)]
               for n, net in learner.networks().items()}  # fmt: skip
    assert all(all(each) for each in changed.values())


@pytest.mark.parametrize("encoder", [STATES, PIXELS])
def test_the_critic_is_that_of_cql_at_the_same_inputs(encoder):
    """With CQL's actor in the place of the clone, both learners compute the same targets, Q and losses."""
    options = {"encoder": encoder, "hidden_dims": (12, 10), "num_action_samples": 3}
    spec, batch = make_spec(), random_batch()
    shared = {"critic_head": "reinject_action", "discount": 0.9, "cql_alpha": 2.0}
    cql = CqlLearner(CqlConfig(**options, **shared), spec)
    ours = CqlProposalsLearner(CqlProposalsConfig(**options, **shared, critic_layer_norm=False), spec)
    for actor in (ours.actor, ours.ema_actor):
        sizes = (actor.encoder.num_outputs, spec.state.dim, NUM_TASKS, spec.action.dim, (12, 10))
        actor.policy = draw_weights(TanhGaussianPolicy(*sizes), 0, "policy")
        actor.load_state_dict(cql.actor.state_dict())
    for name in ("critic", "target_critic"):
        ours.networks()[name].load_state_dict(cql.networks()[name].state_dict())
    draws = cql.draw(range(len(batch)), 0)
    wanted = cql.update_with_terms(batch, 0, draws)
    given = ProposalDraws(
        next_noise=draws.next_eps,
        proposal_noise=draws.policy_eps,
        random_actions=draws.random_actions,
        augment=draws.augment,
        next_augment=draws.next_augment,
    )
    images, next_images = ours.augmented_pair(batch, given.augment, given.next_augment, torch.float32)
    next_q, target = ours._target(batch, next_images, given.next_noise)
    terms = ours._terms(batch, images, given, next_q, target)
    assert float(wanted.policy_log_prob_BK.abs().max()) < 10.0  # nothing is clipped
    for name in ("next_q_EBK", "target_B", "q_data_EB", "q_policy_EBK", "q_random_EBK", "log_sum_exp_EB"):
        assert torch.equal(getattr(terms, name), getattr(wanted, name)), name
    for name in ("critic_loss", "bellman_loss", "cql_loss"):
        assert torch.equal(getattr(terms, name), getattr(wanted, name)), name
    assert isinstance(draws, Draws)


def test_a_shared_encoder_is_trained_by_both_losses():
    def first_step(**options) -> torch.Tensor:
        learner = make_learner(PIXELS, actor_encoder="critic", **options)
        learner.update(random_batch(), 0)
        return next(learner.critic.encoder.parameters()).grad

    both, clone = first_step(), first_step(cql_alpha=0.0)
    assert both.abs().max() > 0
    assert not torch.equal(both, clone)
    own = make_learner(PIXELS)
    own.update(random_batch(), 0)
    assert not torch.equal(next(own.critic.encoder.parameters()).grad, both)
    shared = make_learner(PIXELS, actor_encoder="critic")
    assert shared.actor.encoder is shared.critic.encoder
    assert shared.ema_actor.encoder is shared.target_critic.encoder


def test_the_clone_does_not_see_the_critic():
    """Its update is the same whatever the rewards are."""
    clones = []
    for rewards in (0.0, 5.0):
        learner, batch = make_learner(PIXELS), random_batch()
        learner.update(dataclasses.replace(batch, rewards=batch.rewards + rewards), 0)
        clones.append(list(learner.actor.parameters()))
    assert all(torch.equal(one, other) for one, other in zip(*clones, strict=True))


def test_it_acts_by_the_best_of_the_averaged_clones_samples():
    learner, batch = make_learner(), random_batch()
    for step in range(3):
        learner.update(batch, step)
    acts, act = acts_of(learner.config), ActConfig(mode="search", num_candidates=7)
    assert acts.noise_shape(act, learner.spec) == (7, 5)
    assert acts.noise_shape(ActConfig(mode="sample"), learner.spec) == (5,)
    noise = torch.randn(len(batch), 7, 5, generator=torch.Generator().manual_seed(0))
    chosen = acts.acting_module(learner.networks(), act, learner.spec)({}, batch.state, batch.task_id, noise)
    candidates = sampled(mixture(learner.ema_actor, batch.state[:, 0], batch.task_id), noise)
    best = q_values(learner.target_critic, batch.state[:, 0], batch.task_id, candidates).min(axis=0).argmax(axis=1)
    np.testing.assert_allclose(wide(chosen[:, 0]), candidates[np.arange(len(batch)), best], atol=1e-5)


def test_the_critic_prefers_the_rewarded_mode_of_the_clone():
    """Two ways to act, one of which pays: the clone keeps both, search takes the one."""
    learner = make_learner(actor_lr=1e-2, critic_lr=1e-2, discount=0.5, hidden_dims=(32,))
    num = 64
    batch = make_batch(learner.spec, num_batch=num)
    pays = torch.arange(num) % 2 == 0
    actions = torch.where(pays, 0.6, -0.6)[:, None, None].expand(num, 1, 4).contiguous()
    batch = dataclasses.replace(batch, actions=actions, rewards=torch.where(pays, 5.0, -5.0))
    batch = dataclasses.replace(batch, masks=torch.zeros(num))
    for step in range(150):
        learner.update(batch, step)
    acts, networks = acts_of(learner.config), learner.networks()
    noise = torch.randn(num, 16, 5, generator=torch.Generator().manual_seed(0))
    search = acts.acting_module(networks, ActConfig(mode="search", num_candidates=16), learner.spec)
    sample = acts.acting_module(networks, ActConfig(mode="sample"), learner.spec)
    assert (search({}, batch.state, batch.task_id, noise).mean(dim=(1, 2)) > 0.3).float().mean() > 0.9
    drawn = sample({}, batch.state, batch.task_id, noise[:, 0]).mean(dim=(1, 2))
    assert 0.2 < (drawn > 0).float().mean() < 0.8


def test_bad_options_are_refused():
    for options, told in (
        ({"min_std": 0.0}, "min_std must be positive"),
        ({"num_components": 0}, "num_components must be at least 1"),
        ({"critic_head": "reinject_all"}, "no Q head sees the state"),
    ):
        with pytest.raises(ValueError, match=told):
            CqlProposalsConfig(encoder=STATES, **options)


def test_the_actors_cloning_term_is_that_of_the_definition_and_leaves_the_temperature():
    config = CqlConfig(encoder=STATES, hidden_dims=(12,), critic_head="reinject_action", cloning_weight=0.5)
    learner, batch = CqlLearner(config, make_spec()), random_batch()
    law = learner.actor({}, batch.state[:, 0], batch.task_id)
    log_prob = law.log_prob(batch.actions[:, 0]).detach()
    terms = learner.update_with_terms(batch, 0)
    q = wide(terms.actor_q_EB).min(axis=0)
    expected = -(q / np.abs(q).mean()).mean() - 0.5 * wide(log_prob).mean()
    assert float(terms.actor_loss) == pytest.approx(expected, rel=1e-5)
    assert torch.equal(terms.temperature, terms.new_temperature)
    weak = CqlLearner(dataclasses.replace(config, cloning_weight=1e-3), make_spec())
    strong = CqlLearner(dataclasses.replace(config, cloning_weight=10.0), make_spec())
    for step in range(60):
        one, other = weak.update(batch, step), strong.update(batch, step)
    assert float(other["actor/log_prob_data"]) > float(one["actor/log_prob_data"])
