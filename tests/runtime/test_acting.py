"""A checkpoint that acts: modes, shapes, and refusals."""

import numpy as np
import pytest
import torch
import toy_robot

from ptr_fast.checkpoint import save_checkpoint
from ptr_fast.config import ActConfig, AugmentConfig, BcConfig, CqlConfig, EncoderConfig, PolicySpec, TaskTable
from ptr_fast.learners import make_learner
from ptr_fast.runtime.policy import Policy

ENCODER = EncoderConfig(name="conv3", num_filters=8, embedding_dim=16)
SMALL = {"encoder": ENCODER, "hidden_dims": (16, 16), "augment": AugmentConfig()}
TASK = "put carrot on plate"


@pytest.fixture(scope="module")
def spec() -> PolicySpec:
    meta = toy_robot.toy_meta(("image_0",))
    tasks = TaskTable(names=(TASK,), num_slots=4)
    return PolicySpec(cameras=meta.cameras[:1], state=meta.state, action=meta.action, tasks=tasks, control_hz=5.0)


def saved(folder, spec, config, act=None):
    learner = make_learner(config, spec, seed=1)
    with torch.no_grad():  # averaged nets that differ from the online ones
        for name in {"ema_actor", "target_critic"} & set(learner.networks()):
            for parameter in learner.networks()[name].parameters():
                parameter.add_(0.05 * torch.randn(parameter.shape, generator=torch.Generator().manual_seed(2)))
    return save_checkpoint(folder, 7, learner, spec, act or ActConfig(), {"split": {"sources": []}})


@pytest.fixture(scope="module")
def cql(tmp_path_factory, spec):
    return saved(tmp_path_factory.mktemp("cql"), spec, CqlConfig(**SMALL))


@pytest.fixture
def seen():
    rng = np.random.default_rng(0)
    frames = rng.integers(0, 256, (3, toy_robot.SIZE, toy_robot.SIZE, 3), dtype=np.uint8)
    return frames, rng.normal(size=(3, 7)).astype(np.float32)


def shown(frames):
    return {"image_0": frames}


def test_modes_act_by_the_networks_they_name(cql, seen):
    frames, states = seen
    mean, ema = (Policy.load(cql, mode=mode) for mode in ("mean", "ema_mean"))
    np.testing.assert_allclose(
        mean.decide(frames[1], states[1], TASK), mean.actions(shown(frames), states, TASK)[1], atol=1e-6
    )
    np.testing.assert_allclose(
        ema.decide(frames[1], states[1], TASK), ema.actions(shown(frames), states, TASK, averaged=True)[1], atol=1e-6
    )
    assert np.abs(mean.decide(frames[1], states[1], TASK) - ema.decide(frames[1], states[1], TASK)).max() > 1e-5


def test_search_takes_the_best_samples_by_the_averaged_critics(cql, seen):
    frames, states = seen
    policy = Policy.load(cql, mode="search", num_candidates=6)
    chosen = policy.decide(frames[0], states[0], TASK, seed=3)
    assert (policy.decide(frames[0], states[0], TASK, seed=3) == chosen).all()
    assert (policy.decide(frames[0], states[0], TASK, seed=4) != chosen).any()
    eps = torch.randn(1, 6, 7, generator=torch.Generator().manual_seed(3))
    with torch.inference_mode():
        inputs = policy._inputs(shown(frames[:1]), states[:1], TASK)
        samples = (
            policy.networks["ema_actor"](inputs.images, inputs.state[:, -1], inputs.task_id).sample(eps)[0].numpy()
        )
    raw = policy.spec.action.unscale(samples)
    repeated = (shown(np.repeat(frames[:1], 6, 0)), np.repeat(states[:1], 6, 0), TASK)
    best = policy.predict_value(*repeated, raw, averaged=True).min(axis=0).argmax()
    np.testing.assert_allclose(chosen, raw[best], atol=1e-6)


def test_elites_are_averaged(tmp_path, spec, seen):
    frames, states = seen
    act = ActConfig(mode="search", num_candidates=4, num_elites=4)
    policy = Policy.load(saved(tmp_path, spec, CqlConfig(**SMALL), act))
    eps = torch.randn(1, 4, 7, generator=torch.Generator().manual_seed(3))
    inputs = policy._inputs(shown(frames[:1]), states[:1], TASK)
    with torch.inference_mode():
        samples = policy.networks["ema_actor"](inputs.images, inputs.state[:, -1], inputs.task_id).sample(eps)
    expected = spec.action.unscale(samples.mean(dim=1)[0].numpy())
    np.testing.assert_allclose(policy.decide(frames[0], states[0], TASK, seed=3), expected, atol=1e-6)
    assert Policy.load(policy.info.path, num_candidates=2).act_config.num_elites == 1  # not all of them
    for wrong in (-1, 65_537):
        with pytest.raises(ValueError, match=rf"num_candidates must lie in 1\.\.65536, got {wrong}"):
            Policy.load(policy.info.path, num_candidates=wrong)


def test_a_camera_of_another_size_is_resized_as_in_training(cql, seen):
    from ptr_fast.resize import resize

    _, states = seen
    large = np.random.default_rng(1).integers(0, 256, (120, 160, 3), dtype=np.uint8)
    policy = Policy.load(cql)
    small = resize(large, toy_robot.SIZE, toy_robot.SIZE)
    assert (policy.decide(large, states[0], TASK) == policy.decide(small, states[0], TASK)).all()


def test_a_clone_has_no_critic(tmp_path, spec, seen):
    path = saved(tmp_path, spec, BcConfig(**SMALL))
    with pytest.raises(ValueError, match="behaviour cloning acts in the modes mean, ema_mean"):
        Policy.load(path, mode="search")
    policy = Policy.load(path)
    assert np.isfinite(policy.decide(seen[0][0], seen[1][0], TASK)).all()
    with pytest.raises(ValueError, match="has no critic"):
        policy.predict_value(shown(seen[0]), seen[1], TASK, np.zeros((3, 7), np.float32))


@pytest.mark.parametrize(
    ("image", "state", "task", "message"),
    [
        (np.zeros((8, 8), np.uint8), np.zeros(7), TASK, "image: expected uint8"),
        (np.zeros((8, 8, 3), np.float32), np.zeros(7), TASK, "image: expected uint8"),
        (np.zeros((8, 8, 3), np.uint8), np.zeros(6), TASK, "state: expected"),
        (np.zeros((8, 8, 3), np.uint8), np.full(7, np.nan), TASK, "state: expected finite"),
        (np.zeros((8, 8, 3), np.uint8), np.zeros(7), "put carrot on plat", "did you mean 'put carrot on plate'"),
    ],
)
def test_wrong_input_is_named(cql, image, state, task, message):
    with pytest.raises(ValueError, match=message):
        Policy.load(cql).decide(image, state, task)
