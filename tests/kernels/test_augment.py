"""augment: every backend against the definition in float64, before and at the edges of the truncation to 8 bits."""

import itertools
from importlib.util import find_spec

import pytest
import torch

from ptr_fast import native
from ptr_fast.config import AugmentConfig
from ptr_fast.kernels import dispatch
from ptr_fast.kernels.augment import NUM_WORDS, AugmentParams, JitterParams, augment, draw_augment, planar, reference
from ptr_fast.kernels.counter_random import Stream, uniform_bits

ISAS = native.build_info()["isas"].split() if native.module() is not None else []
BACKENDS = [*(f"native-{isa}" for isa in ISAS), pytest.param("triton", marks=pytest.mark.triton), "planar"]
NO_GPU = not torch.cuda.is_available()
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


@pytest.fixture(params=BACKENDS)
def backend(request: pytest.FixtureRequest):
    """Forces a backend; Triton's by the interpreter, so on tiny images."""
    name, _, isa = request.param.partition("-")
    if name == "triton" and (find_spec("triton") is None or not NO_GPU):
        pytest.skip("the interpreter needs triton, and no GPU")
    before = native.isa() if isa else None
    if isa:
        try:
            native.set_isa(isa)
        except ValueError as error:
            pytest.skip(str(error))
    with dispatch.use_backend(f"augment={name}"):
        yield name
    if before:
        native.set_isa(before)


def exact_bytes(images: torch.Tensor, params: AugmentParams) -> torch.Tensor:
    """``[B, H, W, 3]`` in units of 1/255 in float64, before the truncation."""
    if params.crop_offsets is not None:
        images = reference.crop(images, params.crop_offsets, params.crop_padding)
    return reference.jitter(images.double() / 255.0, params.jitter) * 255.0


def check_truncated(ours_BCHW: torch.Tensor, exact: torch.Tensor, edge: float = 5e-4) -> None:
    """Whole numbers, the truncated ones, or one beside them where the exact value is close to a whole number."""
    ours = ours_BCHW.permute(0, 2, 3, 1).double() * 255.0
    assert float((ours - ours.round()).abs().max()) < 1e-4
    # A colour that no operation moves is exactly whole, up to float64's rounding.
    differs = ours.round() != (exact + 1e-9).floor()
    assert float((exact - exact.round()).abs()[differs].max() if bool(differs.any()) else 0.0) < edge
    assert float((ours.round() - exact.floor()).abs().max()) <= 1.0
    assert float(differs.double().mean()) < 1e-3


@pytest.mark.parametrize("strength", [1.0, 4.0], ids=["the paper's", "four times as strong"])
def test_every_order_of_operations_matches_the_definition(backend, strength):
    if backend == "triton" and strength == 1.0:
        return  # a second of the interpreter for what the stronger one shows
    images = make_images(len(PERMUTATIONS))
    params = AugmentParams(jitter=make_jitter(PERMUTATIONS, strength=strength))
    ours = augment(images, params)
    check_truncated(ours, exact_bytes(images, params))
    assert float((ours - augment(images, None)).abs().max()) > 0.1
    assert ours.is_contiguous(memory_format=torch.channels_last)
    assert torch.equal(ours[:3], augment(images[:3], params[:3]))


@pytest.mark.parametrize("strength", [1.0, 4.0], ids=["the paper's", "four times as strong"])
def test_before_the_truncation_planes_match_the_definition(strength):
    images = make_images(len(PERMUTATIONS))
    jitter = make_jitter(PERMUTATIONS, strength=strength)
    expected = reference.jitter(images.double() / 255.0, jitter)
    planes = planar._jitter_by_selection(planar._to_planes(images, torch.float32), jitter)
    assert float((planes.permute(1, 2, 0).reshape(images.shape).double() - expected).abs().max()) < 3e-6


# (number of images, height, width), with the reason
SHAPES = {
    "one pixel": (2, 1, 1),
    "narrow": (2, 9, 1),
    "odd": (3, 7, 5),
    "a chunk and a tail": (1, 13, 21),
    "one image": (1, 12, 12),
    "oblong": (2, 4, 33),
}


@pytest.mark.parametrize("shape", SHAPES.values(), ids=SHAPES.keys())
def test_sizes(shape, backend):
    num_images, height, width = shape
    generator = torch.Generator().manual_seed(1)
    images = torch.randint(0, 256, (num_images, height, width, 3), dtype=torch.uint8, generator=generator)
    params = draw(AugmentConfig(jitter_probability=1.0), num_images, 5)
    check_truncated(augment(images, params), exact_bytes(images, params))
    cropped = reference.augment(images, AugmentParams(crop_offsets=params.crop_offsets, crop_padding=4))
    assert torch.equal(augment(images, AugmentParams(crop_offsets=params.crop_offsets, crop_padding=4)), cropped)
    assert torch.equal(augment(images, None), reference.augment(images, None))


def test_frames_of_a_pool(backend):
    pool, index = make_images(5), torch.tensor([4, 0, 4, 2])
    params = draw(AugmentConfig(), 4, 7)
    assert torch.equal(augment(pool, params, torch.float32, index), augment(pool[index], params))
    assert torch.equal(augment(pool, None, torch.float32, index), augment(pool[index], None))
    strided = torch.tensor([4, 9, 0, 9, 4, 9, 2, 9])[::2]
    assert torch.equal(augment(pool, params, torch.float32, strided), augment(pool[index], params))
    assert augment(pool, None, torch.float32, index[:0]).shape == (0, 3, 12, 12)


def test_bfloat16_is_the_rounded_float32(backend):
    images, params = make_images(4), draw(AugmentConfig(), 4, 3)
    for given in (params, None):
        ours = augment(images, given, torch.bfloat16)
        assert ours.dtype == torch.bfloat16
        wanted = augment(images, given).to(torch.bfloat16)
        if backend == "triton":  # the interpreter truncates
            assert int((ours.view(torch.int16) - wanted.view(torch.int16)).abs().max()) <= 1
        else:
            assert torch.equal(ours, wanted)


def test_every_byte_is_scaled_exactly(backend):
    images = torch.arange(256, dtype=torch.uint8).repeat(3).view(1, 16, 16, 3)
    assert torch.equal(augment(images, None), (images / 255.0).permute(0, 3, 1, 2))


def test_two_contrasts_and_images_of_one_colour(backend):
    order = torch.tensor([[1, 1, 0, 3], [0, 1, 2, 1], [2, 3, 2, 3]])
    images = make_images(3)
    images[2] = torch.tensor([200, 30, 90], dtype=torch.uint8)
    params = AugmentParams(jitter=make_jitter(order))
    if backend == "triton":  # one mean per image: orders are permutations
        return
    check_truncated(augment(images, params), exact_bytes(images, params))


def test_bytes_match_the_definition_but_for_truncation_edges():
    images, config = make_images(64), AugmentConfig()
    params = draw(config, 64, 3)
    ours, expected = augment(images, params), reference.augment(images, params, torch.float64)
    steps = (ours.double() - expected).abs() * 255.0
    assert float(steps.max()) < 1.001
    assert float((steps > 0.5).double().mean()) < 1e-3
    assert ours.is_contiguous(memory_format=torch.channels_last)
    assert ours.dtype == torch.float32


def test_images_that_are_not_jittered_come_through_exactly(backend):
    images = make_images(6)
    jitter = make_jitter(PERMUTATIONS[:6])
    off = JitterParams(**{**vars(jitter), "apply": torch.tensor([True, False, True, False, False, True])})
    ours = augment(images, AugmentParams(jitter=off))
    plain = augment(images, None)
    assert torch.equal(plain, (images / 255.0).permute(0, 3, 1, 2))
    assert torch.equal(ours[~off.apply], plain[~off.apply])
    assert not torch.equal(ours[off.apply], plain[off.apply])


@pytest.mark.parametrize("padding", [1, 4])
def test_crops_are_windows_of_the_edge_padded_image(backend, padding):
    images = make_images(2 * padding + 1, size=12)
    steps = torch.arange(2 * padding + 1)
    for offsets in (torch.stack([steps, steps.flip(0)], 1), torch.stack([steps, steps], 1)):
        params = AugmentParams(crop_offsets=offsets, crop_padding=padding)
        expected = reference.augment(images, params)
        assert torch.equal(augment(images, params), expected)
    centre = torch.full((2 * padding + 1, 2), padding)
    kept = augment(images, AugmentParams(crop_offsets=centre, crop_padding=padding))
    assert torch.equal(kept, augment(images, None))


def test_crop_with_int32_offsets_and_oblong_images(backend):
    images = make_images(3, size=12)[:, :8].contiguous()
    offsets = torch.tensor([[0, 8], [3, 1], [8, 0]], dtype=torch.int32)
    params = AugmentParams(crop_offsets=offsets, crop_padding=4)
    assert torch.equal(augment(images, params), reference.augment(images, params))


def test_images_in_other_memory_are_right_too():
    images = make_images(4, size=12)
    params = draw(AugmentConfig(), 4, 9)
    for other in (images.transpose(1, 2), images[:, 2:10, 1:11], images[::2].repeat_interleave(2, 0)[1::2]):
        check_truncated(augment(other, params[: len(other)]), exact_bytes(other, params[: len(other)]))


def test_another_number_of_threads_gives_the_same():
    generator = torch.Generator().manual_seed(2)
    images = torch.randint(0, 256, (9, 64, 64, 3), dtype=torch.uint8, generator=generator)
    params = draw(AugmentConfig(), 9, 1)
    one = augment(images, params)
    torch.set_num_threads(3)
    try:
        assert torch.equal(augment(images, params), one)
    finally:
        torch.set_num_threads(1)


def test_every_element_is_written():
    from torch.utils.dlpack import to_dlpack

    if native.module() is None:
        pytest.skip(str(native.why_missing()))
    images, params = make_images(3), draw(AugmentConfig(), 3, 2)
    out = torch.full(images.shape, float("nan"))
    jitter = tuple(to_dlpack(tensor) for tensor in params.jitter.dense())
    native.require().augment(to_dlpack(images), None, to_dlpack(params.crop_offsets), 4, jitter, to_dlpack(out), 1)
    assert torch.equal(out.permute(0, 3, 1, 2), augment(images, params))


@pytest.mark.skipif(native.module() is None, reason=str(native.why_missing()))
def test_the_native_kernel_names_what_does_not_exist():
    images = make_images(3)
    with pytest.raises(ValueError, match="index: expected 0 to 2, got 3"):
        augment(images, None, torch.float32, torch.tensor([0, 3]))
    with pytest.raises(ValueError, match="order: expected operations 0 to 3, got 4"):
        augment(images, AugmentParams(jitter=make_jitter(PERMUTATIONS[:3] + 1)))


@pytest.mark.cuda
@pytest.mark.skipif(NO_GPU, reason="no GPU")
@pytest.mark.parametrize("name", ["triton", "planar"])
@pytest.mark.parametrize("size", [13, 64, 128, 200])
def test_a_gpu_gives_the_same(size, name):
    generator = torch.Generator().manual_seed(size)
    pool = torch.randint(0, 256, (30, size, size, 3), dtype=torch.uint8, generator=generator)
    index = torch.randint(0, 30, (48,), generator=generator)
    params = draw(AugmentConfig(), 48, 3)
    with dispatch.use_backend(f"augment={name}"):
        ours = augment(pool.cuda(), params.to("cuda"), torch.float32, index.cuda())
        again = augment(pool.cuda(), params.to("cuda"), torch.float32, index.cuda())
        bf16 = augment(pool.cuda(), params.to("cuda"), torch.bfloat16, index.cuda())
        plain = augment(pool.cuda(), None, torch.float32, index.cuda())
    assert torch.equal(ours, again)
    assert torch.equal(bf16, ours.to(torch.bfloat16))
    # PyTorch divides by a number on a GPU as it multiplies by the reciprocal: its own planes are one rounding away.
    allowed = 0.0 if name == "triton" else torch.finfo(torch.float32).eps
    assert float((plain.cpu() - (pool[index] / 255.0).permute(0, 3, 1, 2)).abs().max()) <= allowed
    check_truncated(ours.cpu(), exact_bytes(pool[index], params))


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


def test_a_slice_of_parameters_is_that_of_its_images():
    images, params = make_images(6), draw(AugmentConfig(), 6, 1)
    assert torch.equal(augment(images, params)[2:5], augment(images[2:5], params[2:5]))


def test_a_result_of_another_kind_is_refused():
    with pytest.raises(ValueError, match=r"expected a result of one of .*, got torch.int64"):
        augment(make_images(2), None, torch.int64)


def test_an_index_of_another_kind_is_named():
    with pytest.raises(ValueError, match="expected index int64"):
        augment(make_images(2), None, torch.float32, torch.tensor([0], dtype=torch.int32))


@pytest.mark.parametrize(
    ("images", "params", "message"),
    [
        (torch.zeros(2, 8, 8, 3), None, "uint8"),
        (torch.zeros(2, 3, 8, 8, dtype=torch.uint8), None, r"\[N, H, W, 3\]"),
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
