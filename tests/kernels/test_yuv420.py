"""YUV 4:2:0 planes: decoded as libjpeg decodes, encoded so that JPEG frames come back, augmented as RGB frames are."""

from importlib.util import find_spec

import numpy as np
import pytest
import simplejpeg
import torch

from ptr_fast import native
from ptr_fast.config import AugmentConfig
from ptr_fast.kernels import dispatch
from ptr_fast.kernels.augment import NUM_WORDS, AugmentParams, augment, draw_augment, yuv420
from ptr_fast.kernels.counter_random import Stream, uniform_bits

ISAS = native.build_info()["isas"].split() if native.module() is not None else []
BACKENDS = [*(f"native-{isa}" for isa in ISAS), pytest.param("triton", marks=pytest.mark.triton), "planar", "reference"]
NO_GPU = not torch.cuda.is_available()


def psnr(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Decibels of each frame."""
    error = ((a.astype(np.float64) - b.astype(np.float64)) ** 2).mean(axis=(1, 2, 3))
    return 10.0 * np.log10(255.0**2 / np.maximum(error, 1e-6))


def round_trip(frames: np.ndarray) -> np.ndarray:
    return yuv420.decode(yuv420.encode(torch.from_numpy(frames))).numpy()


def smooth_frames(num_images: int, height: int, width: int) -> np.ndarray:
    """Colourful, with edges, nowhere black or white."""
    y, x = np.mgrid[:height, :width]
    out = []
    for number in range(num_images):
        waves = [np.sin(x / (5 + c) + number) + np.cos(y / (7 + c) - number) for c in range(3)]
        image = 127.5 + 40 * np.stack(waves, -1)
        image[height // 3 : height // 2, width // 4 : width // 2] = (200, 60, 40 + 10 * number)
        out.append(image)
    return np.stack(out).astype(np.uint8)


def noise_planes(num_images: int, height: int, width: int, seed: int = 0) -> torch.Tensor:
    """Every luma beside every colour, most of them outside RGB: the clipping is tried too."""
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(0, 256, (num_images, height // 2 * 3, width), dtype=torch.uint8, generator=generator)


@pytest.mark.parametrize(("height", "width"), [(16, 16), (48, 64), (34, 22)])
def test_decoding_is_libjpegs(height, width):
    """libjpeg decodes what was written at quality 100: its cosine transforms move a sample by one."""
    planes = yuv420.encode(torch.from_numpy(smooth_frames(4, height, width)))
    ours = yuv420.decode(planes).numpy()
    for frame, decoded in zip(planes.numpy(), ours, strict=True):
        chroma = frame[height:].reshape(2, height // 2, width // 2)
        data = simplejpeg.encode_jpeg_yuv_planes(frame[:height], *chroma, quality=100)
        assert simplejpeg.decode_jpeg_header(data)[3] == "420"
        theirs = simplejpeg.decode_jpeg(data, colorspace="RGB")
        assert np.abs(theirs.astype(int) - decoded).max() <= 4
        assert psnr(theirs[None], decoded[None]) > 48.0


@pytest.mark.parametrize("quality", [75, 90, 95])
def test_frames_of_a_jpeg_come_back(quality):
    encoded = [simplejpeg.encode_jpeg(f, quality=quality, colorsubsampling="420") for f in smooth_frames(8, 64, 64)]
    frames = np.stack([simplejpeg.decode_jpeg(data, colorspace="RGB") for data in encoded])
    assert psnr(frames, round_trip(frames)).min() > 50.0


def test_bridges_frames_come_back(shared_dir):
    from ptr_robot.datasets.tfrecord import index_records, parse_example, read_record

    file = shared_dir / "data" / "bridge_rlds" / "bridge_dataset-train.tfrecord-00000-of-00001"
    frames = []
    for offset in index_records(file).offsets[::5]:
        example = parse_example(read_record(file, int(offset)))
        for camera in range(3):
            (name,) = [name for name in example if name.endswith(f"image_{camera}") and "has" not in name]
            frames += [simplejpeg.decode_jpeg(data, colorspace="RGB") for data in example[name]]
    assert len(frames) == 150
    decibels = psnr(np.stack(frames), round_trip(np.stack(frames)))
    assert decibels.mean() > 54.0
    assert decibels.min() > 52.5


def test_colours():
    colours = torch.tensor(np.stack(np.meshgrid(*[np.arange(0, 256, 15)] * 3), -1).reshape(-1, 1, 1, 3))
    frames = colours.to(torch.uint8).expand(-1, 4, 6, 3)
    planes = yuv420.encode(frames)
    assert planes.shape == (len(colours), 6, 6)
    assert int((yuv420.decode(planes).int() - frames.int()).abs().max()) <= 2  # three numbers of 8 bits each
    grey = torch.arange(256, dtype=torch.uint8).view(-1, 1, 1, 1).expand(-1, 2, 2, 3)
    assert torch.equal(yuv420.decode(yuv420.encode(grey)), grey)
    assert bool((yuv420.encode(grey)[:, 2:] == 128).all())


def test_planes_lie_as_in_i420():
    frames = torch.zeros(1, 4, 4, 3, dtype=torch.uint8)
    frames[:, :2, :, 0] = 255  # red above black
    planes = yuv420.encode(frames)[0].flatten().tolist()
    assert planes[:16] == [76] * 8 + [0] * 8
    assert planes[16] < 128 < planes[20]  # Cb below, Cr above the middle
    assert planes[18] == planes[19]


@pytest.mark.parametrize("shape", [(2, 7, 8, 3), (2, 8, 7, 3), (2, 8, 8), (2, 8, 8, 4)])
def test_odd_sizes_are_refused(shape):
    with pytest.raises(ValueError, match="even height and width"):
        yuv420.encode(torch.zeros(shape, dtype=torch.uint8))


@pytest.mark.parametrize("shape", [(2, 8, 8), (2, 6, 7), (2, 8, 8, 4)])
def test_what_is_neither_rgb_nor_planes_is_refused(shape):
    with pytest.raises(ValueError, match=r"planes \[N, 3 \* H / 2, W\]"):
        augment(torch.zeros(shape, dtype=torch.uint8), None)


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


def draw(num_images: int, seed: int) -> AugmentParams:
    return draw_augment(AugmentConfig(), uniform_bits(seed, Stream.AUGMENT, 0, range(num_images), NUM_WORDS))


SHAPES = {"smallest": (2, 2, 2), "oblong": (3, 4, 22), "upright": (3, 14, 6), "wider than vectors": (2, 6, 70)}


@pytest.mark.parametrize("shape", SHAPES.values(), ids=SHAPES.keys())
def test_planes_are_augmented_as_their_rgb_frames(shape, backend):
    planes = noise_planes(*shape)
    frames, params = yuv420.decode(planes), draw(len(planes), 3)
    crop = AugmentParams(crop_offsets=params.crop_offsets, crop_padding=params.crop_padding)
    for given in (params, crop, None):
        for dtype in (torch.float32, torch.bfloat16):
            ours = augment(planes, given, dtype)
            assert torch.equal(ours, augment(frames, given, dtype))
            assert torch.equal(ours, augment(planes, given, dtype))
            assert ours.is_contiguous(memory_format=torch.channels_last)


def test_planes_of_a_pool(backend):
    pool, index = noise_planes(5, 8, 10), torch.tensor([4, 0, 4, 2])
    params = draw(4, 7)
    for given in (params, None):
        wanted = augment(yuv420.decode(pool[index]), given)
        assert torch.equal(augment(pool, given, torch.float32, index), wanted)
    assert augment(pool, None, torch.float32, index[:0]).shape == (0, 3, 8, 10)


def test_planes_in_other_memory_are_right_too():
    planes, params = noise_planes(4, 8, 10), draw(4, 2)
    assert torch.equal(augment(planes.repeat_interleave(2, 0)[::2], params), augment(planes, params))


@pytest.mark.skipif(native.module() is None, reason=str(native.why_missing()))
def test_another_number_of_threads_gives_the_same():
    planes, params = noise_planes(9, 64, 64), draw(9, 1)
    one = augment(planes, params)
    torch.set_num_threads(3)
    try:
        assert torch.equal(augment(planes, params), one)
    finally:
        torch.set_num_threads(1)


@pytest.mark.cuda
@pytest.mark.skipif(NO_GPU, reason="no GPU")
@pytest.mark.parametrize("name", ["triton", "planar"])
@pytest.mark.parametrize("size", [14, 64, 128])
def test_a_gpu_gives_the_same(size, name):
    pool, index, params = noise_planes(30, size, size), torch.randint(0, 30, (48,)), draw(48, 3)
    frames = yuv420.decode(pool)
    smooth = torch.from_numpy(smooth_frames(4, size, size))
    assert torch.equal(yuv420.encode(smooth.cuda()).cpu(), yuv420.encode(smooth))
    with dispatch.use_backend(f"augment={name}"):
        for given in (params.to("cuda"), None):
            for dtype in (torch.float32, torch.bfloat16):
                ours = augment(pool.cuda(), given, dtype, index.cuda())
                assert torch.equal(ours, augment(frames.cuda(), given, dtype, index.cuda()))
                assert torch.equal(ours, augment(pool.cuda(), given, dtype, index.cuda()))
