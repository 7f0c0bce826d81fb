"""Behaviour transformer: clusters, its loss against the formula in float64, samples, past observations."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from learner_cases import make_batch, make_spec

from ptr_fast.config import ActConfig, EncoderConfig
from ptr_fast.learners import make_learner
from ptr_fast.learners.bet import BetConfig
from ptr_fast.learners.bet.clusters import k_means
from ptr_fast.learners.preparation import TrainingData
from ptr_fast.learners.registry import acts_of, traits_of

SMALL = BetConfig(
    encoder=EncoderConfig(name="none"), num_bins=3, num_layers=1, num_heads=2, width=8, num_observations=2, lr=1e-3
)


def data_of(actions: np.ndarray) -> TrainingData:
    zeros = np.zeros(len(actions), np.int64)
    state = np.zeros((len(actions), 3), np.float32)
    return TrainingData(actions=actions, state=state, task_id=zeros, rewards=zeros, masks=zeros, episode=zeros)


def case(config=SMALL):
    spec = make_spec()
    batch = replace(make_batch(spec, window=traits_of(config).window), images=None)
    learner = make_learner(config, spec, seed=1)
    learner.prepare(data_of(batch.actions[:, 0].numpy()))
    return spec, batch, learner


def layer_norm(x, w, name):
    centred = x - x.mean(axis=-1, keepdims=True)
    normal = centred / np.sqrt((centred**2).mean(axis=-1, keepdims=True) + 1e-6)
    return normal * w[f"{name}.weight"] + w[f"{name}.bias"]


def plain_answer(learner, batch, kept) -> tuple[np.ndarray, np.ndarray]:
    """Logits ``[B, K]`` and offsets ``[B, K, A]`` of one block with two heads, in float64."""
    w = {name: value.detach().double().numpy() for name, value in learner.actor.policy.state_dict().items()}

    def dense(x, name):
        return x @ w[f"{name}.weight"].T + w[f"{name}.bias"]

    one_hot = np.eye(learner.spec.tasks.num_slots)[batch.task_id.numpy()][:, None].repeat(2, axis=1)
    tokens = dense(np.concatenate([batch.state.double().numpy(), one_hot], axis=2), "token") + w["position"]
    kept = kept.reshape(len(batch), 3, 2, 8)
    tokens = tokens * kept[:, 0]
    query, key, value = np.split(dense(layer_norm(tokens, w, "blocks.0.norm1"), "blocks.0.attn.qkv"), 3, axis=2)
    seen = []
    for head in (slice(0, 4), slice(4, 8)):
        scores = np.exp(query[..., head] @ key[..., head].transpose(0, 2, 1) / np.sqrt(4.0))
        seen.append(scores / scores.sum(axis=2, keepdims=True) @ value[..., head])
    tokens = tokens + dense(np.concatenate(seen, axis=2), "blocks.0.attn.proj") * kept[:, 1]
    inside = dense(layer_norm(tokens, w, "blocks.0.norm2"), "blocks.0.mlp.fc1")
    inside = torch.nn.functional.gelu(torch.from_numpy(inside)).numpy()
    tokens = tokens + dense(inside, "blocks.0.mlp.fc2") * kept[:, 2]
    answer = layer_norm(tokens[:, -1], w, "norm") @ w["head.weight"].T
    return answer[:, :3], answer[:, 3:].reshape(len(batch), 3, 4)


def test_the_loss_is_focal_of_the_nearest_cluster_and_squared_of_its_offset():
    _, batch, learner = case()
    for step in range(20):
        learner.update(batch, step)
    kept = (learner.draw(range(len(batch)), 20).dropout.double().numpy() >= 0.1) / 0.9
    logits, offsets = plain_answer(learner, batch, kept)
    actions, centres = batch.actions[:, 0].double().numpy(), learner.actor.policy.centres.double().numpy()
    nearest = ((actions[:, None] - centres) ** 2).sum(axis=2).argmin(axis=1)
    assert len(set(nearest.tolist())) > 1
    share = (np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True))[range(6), nearest]
    focal = -((1 - share) ** 2 * np.log(share)).mean()
    offset = ((offsets[range(6), nearest] - (actions - centres[nearest])) ** 2).mean()
    info = learner.update(batch, 20)
    assert float(info["train/focal_loss"]) == pytest.approx(focal, rel=1e-4)
    assert float(info["actor/offset_mse"]) == pytest.approx(offset, rel=1e-4)
    assert float(info["train/loss"]) == pytest.approx(focal + 100.0 * offset, rel=1e-4)


def test_k_means_finds_what_lies_together_and_depends_on_the_seed_alone():
    rng = np.random.default_rng(0)
    middles = np.array([[0.9, 0.9], [-0.9, 0.5], [0.0, -0.8]])
    actions = (middles[rng.integers(3, size=900)] + rng.normal(scale=0.02, size=(900, 2))).astype(np.float32)
    centres = k_means(actions, 3, seed=4)
    assert np.abs(centres[:, None] - middles).sum(axis=2).min(axis=0).max() < 0.02
    assert (centres == k_means(actions, 3, seed=4)).all()
    assert np.isfinite(k_means(actions[:2], 5, seed=0)).all()


def test_the_centres_lie_in_both_actors_and_are_saved_with_them():
    _, _, learner = case()
    centres = [net.state_dict()["policy.centres"] for net in learner.networks().values()]
    assert torch.equal(*centres)
    assert centres[0].abs().sum() > 0


def test_it_answers_with_a_centre_and_its_offset():
    spec, batch, learner = case()
    acts, act = acts_of(SMALL), ActConfig(mode="sample")
    assert acts.noise_shape(act, spec) == (1,)
    logits, offsets = plain_answer(learner, batch, np.ones(3 * 2 * 8 * len(batch)))
    answers = np.clip(learner.actor.policy.centres.double().numpy() + offsets, -1, 1)
    with torch.no_grad():
        for mode, noise, chosen in (("sample", -9.0, 0), ("sample", 9.0, 2), ("mean", None, None)):
            acting = acts.acting_module(learner.networks(), ActConfig(mode=mode), spec)
            given = () if noise is None else (torch.full((len(batch), 1), noise),)
            acted = acting({}, batch.state, batch.task_id, *given)[:, 0].numpy()
            which = logits.argmax(axis=1) if chosen is None else np.full(6, chosen)
            np.testing.assert_allclose(acted, answers[range(6), which], atol=1e-5)


def test_earlier_observations_are_looked_at():
    spec, batch, learner = case()
    acting = acts_of(SMALL).acting_module(learner.networks(), ActConfig(mode="mean"), spec)
    changed = batch.state.clone()
    changed[:, 0] += 1.0
    assert not torch.equal(acting({}, batch.state, batch.task_id), acting({}, changed, batch.task_id))
    with pytest.raises(ValueError, match=r"width \(9\) must be a multiple of num_heads \(4\)"):
        BetConfig(width=9)
