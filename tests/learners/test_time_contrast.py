"""Time contrast against its definition in float64, sample by sample."""

import dataclasses
import math

import pytest
import torch
from learner_cases import make_batch, make_spec

from ptr_fast.config import AugmentConfig, EncoderConfig
from ptr_fast.learners import make_learner
from ptr_fast.learners.time_contrast import TimeContrastConfig
from ptr_fast.learners.time_contrast.terms import distance, three_frames, time_loss
from ptr_fast.types import PooledFrames, Window

CONFIG = TimeContrastConfig(
    encoder=EncoderConfig(name="conv3", num_filters=8, pooling="spatial_softmax", embedding_dim=8),
    augment=AugmentConfig(crop_padding=0, jitter_probability=0.0),
    num_observations=6,
    lr=3e-3,
)
WINDOW = Window(num_observations=6)


def defined_loss(z: list[list[list[float]]], num_negatives: int) -> list[float]:
    """R3M's formula, with the negatives that the docstring names, in plain Python."""

    def similar(one: list[float], other: list[float]) -> float:
        return math.exp(-math.dist(one, other))

    losses = []
    for i, (z0, z1, z2) in enumerate(z):
        others = [z[(i + step) % len(z)] for step in range(1, num_negatives + 1)]
        late = similar(z0, z2) + similar(z1, z2) + sum(similar(z2, other[2]) for other in others)
        early = similar(z0, z2) + similar(z0, z1) + sum(similar(z0, other[0]) for other in others)
        losses.append(-0.5 * (math.log(similar(z1, z2) / late) + math.log(similar(z0, z1) / early)))
    return losses


@pytest.mark.parametrize("num_negatives", [0, 3])
def test_its_loss_is_that_of_the_definition(num_negatives):
    z = torch.randn(5, 3, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    wanted = defined_loss(z.tolist(), num_negatives)
    assert time_loss(z, z, slice(None), num_negatives).tolist() == pytest.approx(wanted, rel=1e-12)
    mine = slice(1, None, 2)  # of the second of two ranks
    assert time_loss(z[mine], z, mine, num_negatives).tolist() == pytest.approx(wanted[mine], rel=1e-12)
    assert len(time_loss(z[:2], z[:2], slice(None), 3)) == 2  # no sample is told from itself


def test_a_distance_of_zero_has_a_gradient_of_zero():
    one = torch.randn(4, 3, dtype=torch.float64, requires_grad=True)
    other = one.detach().clone()
    other[0] += 2.0
    distance(one, other).sum().backward()
    assert one.grad[0].norm().item() == pytest.approx(1.0)
    assert not one.grad[1:].any()


def test_three_frames_are_in_order_real_and_as_often_as_said():
    mask = torch.zeros(30_000, 6, dtype=torch.bool)
    num_real = torch.arange(30_000) % 6 + 1
    mask |= torch.arange(6) >= 6 - num_real[:, None]
    uniform = torch.rand(30_000, 3, generator=torch.Generator().manual_seed(0))
    uniform[:100] = 1.0 - 2.0**-24
    place, enough = three_frames(mask, uniform)
    assert torch.equal(enough, num_real >= 3)
    assert place.min() >= 0
    assert place.max() <= 5
    assert (place[:, 0] < place[:, 1]).all()
    assert (place[:, 1] < place[:, 2]).all()
    assert mask.gather(1, place)[enough].all()
    middle = torch.bincount(place[100:][num_real[100:] == 6, 1], minlength=6) / (num_real[100:] == 6).sum()
    assert torch.allclose(middle, torch.tensor([0.0, 0.25, 0.25, 0.25, 0.25, 0.0]), atol=0.03)


def test_an_update_is_the_mean_over_samples_that_have_three_frames():
    spec = make_spec()
    learner, batch = make_learner(CONFIG, spec, seed=1), make_batch(make_spec(), 5, window=WINDOW)
    draws = learner.draw(range(5), 3)
    loss, info = learner.loss(batch, draws)
    place, enough = three_frames(batch.observation_mask, draws.frames)
    assert enough.tolist() == [False, True, True, True, False]
    frames = torch.stack([batch.images["camera"][i, place[i]] for i in range(5)])
    with torch.no_grad():
        images = frames.flatten(0, 1).permute(0, 3, 1, 2) / 255.0
        z = learner.network({"camera": images}, 15).double().view(5, 3, -1)
    wanted = sum(one for one, counts in zip(defined_loss(z.tolist(), 3), enough, strict=True) if counts) / 5
    norms = 1e-5 * z.norm(dim=2).mean() + 1e-5 * z.abs().sum(dim=2).mean()
    assert loss.item() == pytest.approx(wanted + norms.item(), rel=1e-5)
    assert float(info["contrast/three_frames"]) == pytest.approx(0.6)


def test_frames_in_a_pool_give_what_the_frames_give():
    spec = make_spec()
    plain = make_batch(spec, 5, window=WINDOW)
    frames = plain.images["camera"]
    pooled = PooledFrames(frames.flatten(0, 1), torch.arange(30).view(5, 6))
    learner = make_learner(CONFIG, spec, seed=1)
    draws = learner.draw(range(5), 0)
    losses = [learner.loss(batch, draws)[0] for batch in (plain, dataclasses.replace(plain, images={"camera": pooled}))]
    assert torch.equal(*losses)


def test_it_learns_the_order_of_time():
    """A spot that moves evenly, in episodes of other colours."""
    spec, generator = make_spec(), torch.Generator().manual_seed(0)
    frames = torch.zeros(16, 6, 16, 16, 3, dtype=torch.uint8)
    colours = torch.randint(0, 200, (16, 1, 1, 1, 3), dtype=torch.uint8, generator=generator)
    frames += colours
    for t in range(6):
        frames[:, t, 6:10, 2 * t : 2 * t + 4] = 255
    batch = dataclasses.replace(
        make_batch(spec, 16, window=WINDOW),
        images={"camera": frames},
        observation_mask=torch.ones(16, 6, dtype=torch.bool),
    )
    learner = make_learner(CONFIG, spec, seed=1)
    infos = [learner.update(batch, step) for step in range(120)]
    assert infos[-1]["train/contrast_loss"] < 0.7 * infos[0]["train/contrast_loss"]
    assert infos[-1]["contrast/in_order"] > 0.9


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"num_observations": 2}, "num_observations must be at least 3, got 2"),
        ({"l1_weight": -1.0}, "l1_weight must not be negative"),
        ({"encoder": EncoderConfig(name="none")}, "this learner learns an image encoder"),
    ],
)
def test_what_cannot_be_is_refused(changes, message):
    with pytest.raises(ValueError, match=message):
        dataclasses.replace(CONFIG, **changes)
