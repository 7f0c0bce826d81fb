"""The masked autoencoder against its definition in float64, patch by patch."""

import copy
import dataclasses

import pytest
import torch
from learner_cases import make_batch, make_spec

from ptr_fast.config import AugmentConfig, EncoderConfig
from ptr_fast.learners import make_learner
from ptr_fast.learners.masked_autoencoder import MaskedAutoencoderConfig
from ptr_fast.learners.masked_autoencoder.networks import seen_and_hidden

CONFIG = MaskedAutoencoderConfig(
    encoder=EncoderConfig(
        name="vit", pooling="mean", embedding_dim=8, options={"patch": 4, "width": 16, "depth": 2, "heads": 2}
    ),
    augment=AugmentConfig(crop_padding=0, jitter_probability=0.0),
    decoder_width=12,
    decoder_depth=1,
    decoder_heads=3,
    lr=3e-3,
)


@torch.no_grad()
def defined_loss(learner, frames_BHWC: torch.Tensor, noise_BL: torch.Tensor, normalise: bool) -> float:
    """Of one frame after the other, one patch after the other, in float64."""
    network = copy.deepcopy(learner.network).double()
    (trunk,), (decoder,) = network.trunks(), network.decoders
    losses = []
    for frame, noise in zip(frames_BHWC.double() / 255.0, noise_BL, strict=True):
        patches = [
            frame[4 * row : 4 * row + 4, 4 * column : 4 * column + 4].permute(2, 0, 1).flatten()
            for row in range(4)
            for column in range(4)
        ]
        seen = sorted(range(16), key=lambda i: float(noise[i]))[:4]
        tokens = torch.stack([trunk.patch_embed(patches[i]) + trunk.positions[i] for i in seen])
        for block in trunk.blocks:
            tokens = block(tokens[None])[0]
        given = dict(zip(seen, decoder.embed(trunk.norm(tokens)), strict=True))
        whole = torch.stack([given.get(i, decoder.hidden_token) + decoder.positions[i] for i in range(16)])
        for block in decoder.blocks:
            whole = block(whole[None])[0]
        painted = decoder.paint(decoder.norm(whole))
        errors = []
        for i in set(range(16)) - set(seen):
            target = patches[i]
            if normalise:
                variance = (target - target.mean()).square().sum() / (len(target) - 1)
                target = (target - target.mean()) / (variance + 1e-6).sqrt()
            errors.append(float((painted[i] - target).square().mean()))
        losses.append(sum(errors) / len(errors))
    return sum(losses) / len(losses)


@pytest.mark.parametrize("normalise", [True, False])
def test_its_loss_is_that_of_the_paper(normalise):
    spec = make_spec()
    learner = make_learner(dataclasses.replace(CONFIG, normalise_patches=normalise), spec, seed=1)
    batch = make_batch(spec, 3)
    draws = learner.draw(range(3), 5)
    loss, info = learner.loss(batch, draws)
    wanted = defined_loss(learner, batch.images["camera"][:, 0], draws.noise["camera"], normalise)
    assert loss.item() == pytest.approx(wanted, rel=1e-5)
    assert info["train/mae_loss"] is loss


def test_three_quarters_are_hidden_and_every_patch_as_often():
    noise = torch.rand(4000, 16, generator=torch.Generator().manual_seed(0))
    seen, hidden = seen_and_hidden(noise, 0.75)
    assert seen.shape == (4000, 4)
    assert torch.equal(torch.cat([seen, hidden], dim=1).sort(dim=1).values, torch.arange(16).expand(4000, 16))
    assert torch.allclose(torch.bincount(seen.flatten()) / 4000, torch.tensor(0.25), atol=0.03)
    assert [part.shape[1] for part in seen_and_hidden(noise[:, :2], 0.01)] == [1, 1]
    assert [part.shape[1] for part in seen_and_hidden(noise[:, :2], 0.99)] == [1, 1]


def test_hidden_pixels_are_not_seen_and_the_bottleneck_is_not_trained():
    spec = make_spec()
    learner = make_learner(CONFIG, spec, seed=1)
    images = torch.rand(2, 3, 16, 16, generator=torch.Generator().manual_seed(1))
    seen, hidden = seen_and_hidden(torch.rand(2, 16, generator=torch.Generator().manual_seed(0)), 0.75)
    changed = images.clone()
    for image, patches in zip(changed, hidden, strict=True):
        for row, column in (divmod(int(i), 4) for i in patches):
            image[:, 4 * row : 4 * row + 4, 4 * column : 4 * column + 4] += 1.0
    with torch.no_grad():
        painted = learner.network.painted(0, images, seen, hidden)
        assert torch.equal(painted, learner.network.painted(0, changed, seen, hidden))
    before = {name: value.clone() for name, value in learner.network.state_dict().items()}
    learner.update(make_batch(spec, 3), 0)
    same = {name for name, value in learner.network.state_dict().items() if torch.equal(value, before[name])}
    assert same == {name for name in before if name.startswith("encoder.") and ".trunk." not in f".{name}"}


def test_it_learns_to_paint():
    """Frames of one colour each: what is hidden follows from what is seen."""
    spec = make_spec()
    learner = make_learner(dataclasses.replace(CONFIG, normalise_patches=False), spec, seed=1)
    batch = make_batch(spec, 16)
    colours = torch.randint(0, 256, (16, 1, 1, 1, 3), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    batch = dataclasses.replace(batch, images={"camera": colours.expand(16, 1, 16, 16, 3)})
    losses = [float(learner.update(batch, step)["train/mae_loss"]) for step in range(80)]
    assert losses[-1] < 0.1 * losses[0]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"encoder": EncoderConfig(name="conv3")}, "masked patches need a 'vit', got 'conv3'"),
        ({"encoder": EncoderConfig(name="none")}, "this learner learns an image encoder"),
        ({"encoder": EncoderConfig(name="vit", frozen=True)}, "this learner learns the encoder itself"),
        ({"encoder": EncoderConfig(name="vit", frozen_trunk=True)}, "this learner learns the encoder itself"),
        ({"mask_ratio": 1.0}, r"mask_ratio must lie in \(0, 1\), got 1.0"),
        ({"decoder_width": 18}, r"decoder_width \(18\) must be a multiple of 4 and of decoder_heads \(3\)"),
    ],
)
def test_what_cannot_be_is_refused(changes, message):
    with pytest.raises(ValueError, match=message):
        dataclasses.replace(CONFIG, **changes)
