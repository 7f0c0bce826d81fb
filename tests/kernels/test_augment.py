"""Crop and jitter: the fast implementation against the definition in float64."""

import itertools

import pytest
import torch

from ptr_fast.config import AugmentConfig
from ptr_fast.kernels.augment import (
    NUM_WORDS,
    AugmentParams,
    JitterParams,
    augment,
    concatenate,
    draw_augment,
    planar,
    reference,
)
from ptr_fast.kernels.counter_random import Stream, uniform_bits

PERMUTATIONS = torch.tensor(list(itertools.permutations(range(4))))


def make_images(num_images: int, size: int = 12, seed: int = 0) -> torch.Tensor:
    """Noise, and areas of one colour: black, white, grey, pure and mixed colours, where hue and saturation are edgy."""
    generator = torch.Generator().manual_seed(seed)
    images = torch.randint(0, 256, (num_images, size, size, 3), dtype=torch.uint8, generator=generator)
    colours = [(0, 0, 0), (255, 255, 255), (128, 128, 128), (255, 0, 0), (0, 255, 0), (0, 0, 255), (255, 255, 0)]
    colours += [(0, 255, 255), (255, 0, 255), (1, 0, 0), (254, 255, 255), (10, 10, 200)]
    for i, colour in enumerate(colours):
        images[:, i // 4, 3 * (i % 4) : 3 * (i % 4) + 3] = torch.tensor(colour, dtype=torch.uint8)
    return images


def make_jitter(order: torch.Tensor, seed: int = 0, strength: float = 1.0) -> JitterParams:
    uniform = 2.0 * torch.rand(4, len(order), generator=torch.Generator().manual_seed(seed)) - 1.0
    return JitterParams(
        apply=torch.ones(len(order), dtype=torch.bool),
        order=order,
        brightness=0.2 * strength * uniform[0],
        contrast=1.0 + 0.1 * strength * uniform[1],
        saturation=1.0 + 0.1 * strength * uniform[2],
        hue=0.03 * strength * uniform[3],
    )


def draw(config: AugmentConfig, num_images: int, seed: int) -> AugmentParams:
    return draw_augment(config, uniform_bits(seed, Stream.AUGMENT, 0, range(num_images), NUM_WORDS))


def as_images(planes: torch.Tensor, like: torch.Tensor) -> torch.Tensor:
    return planes.permute(1, 2, 0).reshape(like.shape)


@pytest.mark.parametrize("strength", [1.0, 4.0], ids=["the paper's", "four times as strong"])
@pytest.mark.parametrize("path", ["slices", "selection"])
def test_every_order_of_operations_matches_the_definition(path, strength):
    images = make_images(len(PERMUTATIONS))
    jitter = make_jitter(PERMUTATIONS, strength=strength)
    expected = reference.jitter(images.double() / 255.0, jitter)
    planes = planar._to_planes(images, torch.float32)
    if path == "selection":  # what runs where numbers must not be read back
        ours = as_images(planar._jitter_by_selection(planes, jitter), images)
    else:
        order, slices = planar._group_by_permutation(jitter)
        planes = planes[:, order].contiguous()
        planar._jitter_by_slices(planes, slices, jitter, order)
        ours = as_images(planes[:, order.argsort()], images)
    assert float((ours.double() - expected).abs().max()) < 3e-6
    assert float((ours - images / 255.0).abs().max()) > 0.1


def test_bytes_match_the_definition_but_for_truncation_edges():
    images, config = make_images(64), AugmentConfig()
    params = draw(config, 64, 3)
    ours, expected = augment(images, params), reference.augment(images, params, torch.float64)
    steps = (ours.double() - expected).abs() * 255.0
    assert float(steps.max()) < 1.001
    assert float((steps > 0.5).double().mean()) < 1e-3
    assert ours.is_contiguous(memory_format=torch.channels_last)
    assert ours.dtype == torch.float32


def test_images_that_are_not_jittered_come_through_exactly():
    images = make_images(6)
    jitter = make_jitter(PERMUTATIONS[:6])
    off = JitterParams(**{**vars(jitter), "apply": torch.tensor([True, False, True, False, False, True])})
    ours = augment(images, AugmentParams(jitter=off))
    plain = augment(images, None)
    assert torch.equal(plain, (images / 255.0).permute(0, 3, 1, 2))
    assert torch.equal(ours[~off.apply], plain[~off.apply])
    assert not torch.equal(ours[off.apply], plain[off.apply])


@pytest.mark.parametrize("padding", [1, 4])
def test_crops_are_windows_of_the_edge_padded_image(padding):
    images = make_images(2 * padding + 1, size=12)
    steps = torch.arange(2 * padding + 1)
    for offsets in (torch.stack([steps, steps.flip(0)], 1), torch.stack([steps, steps], 1)):
        params = AugmentParams(crop_offsets=offsets, crop_padding=padding)
        expected = reference.augment(images, params)
        assert torch.equal(augment(images, params), expected)
    centre = torch.full((2 * padding + 1, 2), padding)
    kept = augment(images, AugmentParams(crop_offsets=centre, crop_padding=padding))
    assert torch.equal(kept, augment(images, None))


def test_crop_with_int32_offsets_and_oblong_images():
    images = make_images(3, size=12)[:, :8]
    offsets = torch.tensor([[0, 8], [3, 1], [8, 0]], dtype=torch.int32)
    params = AugmentParams(crop_offsets=offsets, crop_padding=4)
    assert torch.equal(augment(images, params), reference.augment(images, params))


def test_draws_depend_on_the_words_alone_and_fill_their_ranges():
    config = AugmentConfig()
    first, second = (draw(config, 4000, 5) for _ in range(2))
    assert torch.equal(first.crop_offsets, second.crop_offsets)
    assert torch.equal(first.jitter.hue, second.jitter.hue)
    assert first.crop_offsets.unique().tolist() == list(range(9))
    jitter = first.jitter
    assert 0.77 < float(jitter.apply.float().mean()) < 0.83
    for values, middle, half_width in (
        (jitter.brightness, 0.0, 0.2),
        (jitter.contrast, 1.0, 0.1),
        (jitter.saturation, 1.0, 0.1),
        (jitter.hue, 0.0, 0.03),
    ):
        assert float((values - middle).abs().max()) <= half_width * 1.00001
        assert float((values - middle).abs().max()) > 0.99 * half_width
        assert abs(float(values.mean()) - middle) < 0.05 * half_width
    codes = jitter.order @ torch.tensor([64, 16, 4, 1])
    assert len(codes.unique()) == 24


def test_switched_off_parts_are_not_drawn():
    off = draw(AugmentConfig(crop_padding=0, jitter_probability=0.0), 3, 0)
    assert off.crop_offsets is None
    assert off.jitter is None


def test_two_sets_at_once_are_the_two_sets():
    images, config = make_images(6), AugmentConfig()
    first, second = (draw(config, 3, seed) for seed in (1, 2))
    together = augment(images, concatenate(first, second))
    assert torch.equal(together[:3], augment(images[:3], first))
    assert torch.equal(together[3:], augment(images[3:], second))
    with pytest.raises(ValueError, match="one configuration"):
        concatenate(first, AugmentParams())


@pytest.mark.parametrize(
    ("images", "params", "message"),
    [
        (torch.zeros(2, 8, 8, 3), None, "uint8"),
        (torch.zeros(2, 3, 8, 8, dtype=torch.uint8), None, r"\[B, H, W, 3\]"),
        (
            make_images(2),
            AugmentParams(crop_offsets=torch.zeros(3, 2, dtype=torch.long), crop_padding=4),
            "crop_offsets",
        ),
        (make_images(2), AugmentParams(jitter=make_jitter(PERMUTATIONS[:3])), "jitter.order"),
    ],
    ids=["floats", "channels first", "too many offsets", "too many orders"],
)
def test_wrong_arguments_are_named(images, params, message):
    with pytest.raises(ValueError, match=message):
        augment(images, params)
