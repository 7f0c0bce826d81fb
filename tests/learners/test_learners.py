"""Both learners: reproducible, resumable, learning, and strict about what they are given."""

import dataclasses
import math

import pytest
import torch
from learner_cases import make_batch, make_spec

from ptr_fast.config import AugmentConfig, BcConfig, CqlConfig, EncoderConfig, RewardConfig
from ptr_fast.learners import BcDraws, BcLearner, CqlLearner, base
from ptr_fast.learners.base import scheduled_lr
from ptr_fast.learners.draws import draw_bc, draw_cql
from ptr_fast.learners.registry import traits_of
from ptr_fast.types import PooledFrames

ENCODER = EncoderConfig(name="conv3", num_filters=8, embedding_dim=16)
SMALL = {"encoder": ENCODER, "hidden_dims": (16, 16)}


def make_learner(kind: str, seed: int = 0, **config) -> CqlLearner | BcLearner:
    if kind == "cql":
        return CqlLearner(CqlConfig(**{**SMALL, **config}), make_spec(), seed)
    return BcLearner(BcConfig(**{**SMALL, **config}), make_spec(), seed)


def parameters(learner) -> dict[str, torch.Tensor]:
    named = {name: network.named_parameters() for name, network in learner.networks().items()}
    return {f"{net}.{name}": p.detach().clone() for net, pairs in named.items() for name, p in pairs}


def equal(a: dict[str, torch.Tensor], b: dict[str, torch.Tensor]) -> bool:
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


def test_cql_raises_q_of_the_data_above_other_actions():
    learner = make_learner("cql", critic_lr=3e-3, augment=AugmentConfig(crop_padding=0, jitter_probability=0.0))
    batch = make_batch(learner.spec, num_batch=8)
    first = learner.update(batch, 0)
    for step in range(1, 50):
        last = learner.update(batch, step)
    assert float(last["q/random_minus_data"]) < float(first["q/random_minus_data"]) - 0.3
    assert float(last["train/cql_loss"]) < float(first["train/cql_loss"]) - 0.3


def test_cloning_learns_the_actions():
    learner = make_learner("bc", lr=3e-3, augment=AugmentConfig(crop_padding=0, jitter_probability=0.0))
    batch = make_batch(learner.spec, num_batch=8)
    errors = [float(learner.update(batch, step)["actor/mse"]) for step in range(120)]
    assert errors[-1] < 0.05 * errors[0]


@pytest.mark.parametrize("form", ["reinject_all", "reinject_action", "plain"])
def test_every_head_form_and_ensemble_size_trains(form):
    learner = make_learner("cql", critic_head=form, num_critics=3, num_action_samples=2)
    before = parameters(learner)
    terms = learner.update_with_terms(make_batch(learner.spec), 0)
    after = parameters(learner)
    assert terms.q_policy_EBK.shape == (3, 6, 2)
    unmoved = {name for name in before if torch.equal(before[name], after[name])}
    assert not unmoved


def test_a_shared_encoder_is_trained_by_the_critic_alone():
    learner, batch = make_learner("cql", actor_encoder="critic"), make_batch(make_spec())
    assert learner.actor.encoder is learner.critic.encoder
    assert learner.ema_actor.encoder is learner.target_critic.encoder
    before = parameters(learner)
    learner.update(batch, 0)
    after = parameters(learner)
    alone = make_learner("cql", actor_encoder="critic", actor_lr=1e-30)
    alone.update(batch, 0)
    for name, value in parameters(alone).items():
        if name.startswith(("actor.policy", "ema_actor.policy")):
            torch.testing.assert_close(value, before[name], rtol=0, atol=1e-20, msg=name)
        elif not name.startswith("temperature"):
            assert torch.equal(value, after[name]), name
    assert not torch.equal(before["actor.policy.mean.weight"], after["actor.policy.mean.weight"])
    assert not torch.equal(before["critic.encoder.dense.weight"], after["critic.encoder.dense.weight"])


def test_a_terminal_transition_does_not_bootstrap():
    learner = make_learner("cql")
    batch = make_batch(learner.spec)
    terms = learner.update_with_terms(batch, 0)
    terminal = batch.masks == 0.0
    assert torch.equal(terms.target_B[terminal], batch.rewards[terminal])
    expected = batch.rewards + 0.96 * terms.next_q_EBK.amin(dim=0).amax(dim=1)
    torch.testing.assert_close(terms.target_B[~terminal], expected[~terminal])


def test_a_target_is_no_less_than_the_observed_return():
    learner = make_learner("cql")
    batch = make_batch(learner.spec)
    plain = learner.update_with_terms(batch, 0).target_B
    bounds = torch.where(torch.arange(len(batch)) % 2 == 0, plain + 1.5, -torch.inf)
    bounded = make_learner("cql").update_with_terms(dataclasses.replace(batch, returns=bounds), 0).target_B
    assert torch.equal(bounded, torch.maximum(plain, bounds))
    assert (bounded > plain).sum() == 3
    unknown = dataclasses.replace(batch, returns=torch.full_like(bounds, -torch.inf))
    assert torch.equal(make_learner("cql").update_with_terms(unknown, 0).target_B, plain)


def test_rewards_that_a_learner_cannot_use_are_refused():
    cloning, q_learning = (traits_of(config) for config in (BcConfig(), CqlConfig()))
    with pytest.raises(ValueError, match=r"rewards\.num_steps 5: .* has no discount.* leave it at 1"):
        cloning.check_rewards(RewardConfig(num_steps=5))
    with pytest.raises(ValueError, match=r"rewards\.lower_bound_returns: .* leave it off"):
        cloning.check_rewards(RewardConfig(lower_bound_returns=True))
    cloning.check_rewards(RewardConfig())
    q_learning.check_rewards(RewardConfig(num_steps=5, lower_bound_returns=True))


def test_learning_rates_follow_the_schedule():
    assert scheduled_lr(2.0, "constant", 0, 10**6) == 2.0
    rates = [scheduled_lr(2.0, "cosine", 100, step) for step in (0, 50, 100, 200)]
    assert rates == pytest.approx([2.0, 1.0, 0.0, 0.0])
    for step in (-1, 0, 37, 100, 200):  # of a captured step
        rate = scheduled_lr(2.0, "cosine", 100, torch.tensor(step))
        assert float(rate) == pytest.approx(scheduled_lr(2.0, "cosine", 100, step), rel=1e-12, abs=1e-15)
    learner = make_learner("bc", lr_schedule="cosine", lr_schedule_steps=4)
    batch = make_batch(learner.spec)
    learner.update(batch, 0)
    before = parameters(learner)
    learner.update(batch, 4)
    moved = {name for name, value in parameters(learner).items() if not torch.equal(value, before[name])}
    assert all(name.startswith("ema_actor") for name in moved)


def test_draws_are_the_same_on_every_call_and_differ_between_steps():
    config = CqlConfig(**SMALL)
    one, same, other = (draw_cql(config, ["camera"], range(4), 3, 0, step) for step in (7, 7, 8))
    assert torch.equal(one.next_eps, same.next_eps)
    assert torch.equal(one.augment["camera"].crop_offsets, same.augment["camera"].crop_offsets)
    assert not torch.equal(one.next_eps, other.next_eps)
    assert not torch.equal(one.augment["camera"].crop_offsets, one.next_augment["camera"].crop_offsets)
    assert one.random_actions.shape == (4, 4, 3)
    assert float(one.random_actions.abs().max()) <= 1.0


@pytest.mark.parametrize("world_size", [1, 2, 3])
def test_a_samples_draws_depend_on_its_number_alone(world_size):
    config, step = CqlConfig(**SMALL), 2**31 + 5
    whole = draw_cql(config, ["camera"], range(6), 3, 1, step)
    for rank in range(world_size):
        share = draw_cql(config, ["camera"], torch.arange(rank, 6, world_size), 3, 1, torch.tensor(step))
        mine = slice(rank, None, world_size)
        for name in ("next_eps", "policy_eps", "random_actions", "actor_eps"):
            assert torch.equal(getattr(share, name), getattr(whole, name)[mine])
        for params, expected in ((share.augment, whole.augment), (share.next_augment, whole.next_augment)):
            params, expected = params["camera"], expected["camera"]
            assert torch.equal(params.crop_offsets, expected.crop_offsets[mine])
            for name, values in vars(params.jitter).items():
                assert torch.equal(values, getattr(expected.jitter, name)[mine])
    cloning = draw_bc(BcConfig(), ["camera"], range(6), 1, step)
    assert torch.equal(cloning.augment["camera"].crop_offsets, whole.augment["camera"].crop_offsets)


def test_every_camera_has_its_own_draws_and_the_first_those_that_it_has_alone():
    config = CqlConfig(**SMALL)
    alone, two = (draw_cql(config, cameras, range(6), 3, 1, 7) for cameras in (["front"], ["front", "wrist"]))
    for name in ("augment", "next_augment"):
        front, wrist = getattr(two, name)["front"], getattr(two, name)["wrist"]
        assert torch.equal(front.crop_offsets, getattr(alone, name)["front"].crop_offsets)
        for key, values in vars(front.jitter).items():
            assert torch.equal(values, getattr(getattr(alone, name)["front"].jitter, key))
        assert not torch.equal(front.crop_offsets, wrist.crop_offsets)
        assert not torch.equal(front.jitter.hue, wrist.jitter.hue)
    assert not torch.equal(two.augment["wrist"].crop_offsets, two.next_augment["wrist"].crop_offsets)


def test_the_frames_of_a_sample_are_augmented_alike():
    frames = torch.randint(0, 256, (3, 1, 16, 16, 3), dtype=torch.uint8).repeat(1, 4, 1, 1, 1)
    params = draw_bc(BcConfig(**SMALL), ["camera"], range(3), 0, 1).augment
    seen = base.augmented({"camera": frames}, params, torch.float32)["camera"].unflatten(0, (3, 4))
    assert torch.equal(seen, seen[:, :1].expand_as(seen))
    assert torch.equal(seen[:, 0], base.augmented({"camera": frames[:, :1]}, params, torch.float32)["camera"])
    pooled = {"camera": PooledFrames(frames[:, 0], torch.arange(3)[:, None].expand(3, 4))}
    assert torch.equal(base.augmented(pooled, params, torch.float32)["camera"].unflatten(0, (3, 4)), seen)


def test_injected_draws_say_that_images_are_already_augmented():
    spec = make_spec()
    batch = make_batch(spec)
    plain = make_learner("bc", augment=AugmentConfig(crop_padding=0, jitter_probability=0.0)).update(batch, 0)
    injected = make_learner("bc").update(batch, 0, BcDraws())
    assert torch.equal(plain["train/bc_loss"], injected["train/bc_loss"])


@pytest.mark.parametrize("kind", ["cql", "bc"])
@pytest.mark.parametrize(
    ("field", "value", "message"),
    [
        (
            "images",
            {"camera": torch.zeros(6, 1, 16, 16, 4, dtype=torch.uint8)},
            r"camera'\]: expected shape \[6, 1, 16, 16, 3\]",
        ),
        ("images", {"camera": torch.zeros(6, 1, 16, 16, 3)}, r"batch.images\['camera'\]: expected torch.uint8"),
        ("images", {}, r"batch.images: expected camera 'camera', got \[\]"),
        ("state", None, "batch.state: expected this column"),
        ("state", torch.zeros(6, 1, 2), r"batch.state: expected shape \[6, 1, 3\], got \[6, 1, 2\]"),
        ("actions", torch.zeros(6, 1, 3), r"batch.actions: expected shape \[6, 1, 4\], got \[6, 1, 3\]"),
        ("task_id", torch.zeros(6), "batch.task_id: expected torch.int64"),
        ("task_id", torch.full((6,), 5), "batch.task_id: expected 0 to 4, got 5 to 5"),
    ],
)
def test_a_batch_that_does_not_fit_is_named(kind, field, value, message):
    learner = make_learner(kind)
    batch = dataclasses.replace(make_batch(learner.spec), **{field: value})
    before = parameters(learner)
    with pytest.raises(ValueError, match=message):
        learner.update(batch, 0)
    assert equal(before, parameters(learner))


@pytest.mark.parametrize(
    ("field", "value", "message"),
    [
        (
            "next_images",
            {"camera": torch.zeros(6, 1, 16, 16, 3)},
            r"batch.next_images\['camera'\]: expected torch.uint8",
        ),
        ("rewards", torch.zeros(6, 1), r"batch.rewards: expected shape \[6\]"),
        ("masks", torch.zeros(6, dtype=torch.long), "batch.masks: expected floating point"),
    ],
)
def test_what_cloning_does_not_read_is_not_looked_at(field, value, message):
    spec = make_spec()
    batch = dataclasses.replace(make_batch(spec), **{field: value})
    with pytest.raises(ValueError, match=message):
        make_learner("cql").update(batch, 0)
    cloning = make_learner("bc")
    info = cloning.update(batch, 0)
    assert info == make_learner("bc").update(dataclasses.replace(batch, **{field: None}), 0)


@pytest.mark.parametrize("kind", ["cql", "bc"])
def test_without_an_encoder_the_state_alone_is_learned_from(kind):
    form = {"critic_head": "plain"} if kind == "cql" else {}
    batch, runs = make_batch(make_spec()), []
    for images in (batch.images, None):
        learner = make_learner(kind, encoder=EncoderConfig(name="none"), **form)
        assert "encoder" not in {name.split(".")[1] for name in parameters(learner)}
        for step in range(3):
            info = learner.update(dataclasses.replace(batch, images=images, next_images=images), step)
            assert all(math.isfinite(float(value)) for value in info.values())
        runs.append(parameters(learner))
    assert equal(runs[0], runs[1])
    learner.update(dataclasses.replace(batch, state=batch.state + 1.0, images=images, next_images=images), 3)


def test_the_papers_critic_needs_an_encoder():
    with pytest.raises(ValueError, match="no Q head sees the state"):
        CqlConfig(encoder=EncoderConfig(name="none"))
