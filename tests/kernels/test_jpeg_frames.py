"""Frames of a pool: the host decodes what the files hold, and the kernel, emulated, the same bytes."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from emulated_kernels import emulator
from jpeg_files import encoded, picture

from ptr_fast import native
from ptr_fast.data.jpeg_restart import add_restarts
from ptr_fast.data.packed_frames import PoolWriter
from ptr_fast.kernels.augment import yuv420
from ptr_fast.kernels.jpeg_frames import JpegPool, decode, decode_frames, describe


def files(height: int, width: int, subsampling: str, num_files: int = 3) -> list[bytes]:
    """Pictures of several kinds and qualities: several sets of tables."""
    rng = np.random.default_rng([height, width])
    images = [picture(rng, height, width, number % 3) for number in range(num_files)]
    return [
        add_restarts(encoded(image, quality=(95, 30, 75)[number % 3], subsampling=subsampling))
        for number, image in enumerate(images)
    ]


def pool_of(frames: list[bytes]) -> JpegPool:
    layout, _ = describe(frames[0])
    writer = PoolWriter(layout, len(frames), PoolWriter.max_bytes(layout, frames), torch.device("cpu"))
    writer.add(frames[:2])
    writer.add(frames[2:], num_threads=2)
    return writer.finish()


def emulate(pool: JpegPool, index: np.ndarray, seed: int) -> tuple[np.ndarray, np.ndarray]:
    planes = np.full((len(index), pool.layout.frame_bytes), 77, np.uint8)
    status = np.full((len(index), pool.layout.num_segments), 77, np.int32)
    arrays = [t.numpy() for t in (pool.words, pool.segment_begin, pool.tables_of, pool.tables)]
    emulator().jpeg_frames(tuple(pool.layout), *arrays, index, planes, status, seed)
    return planes, status


@pytest.mark.parametrize("subsampling", ["4:2:0", "4:4:4", "4:2:2"])
@pytest.mark.parametrize("size", [(32, 48), (33, 19), (8, 5)])
def test_host_and_kernel_decode_what_the_files_hold(size: tuple[int, int], subsampling: str) -> None:
    frames = files(*size, subsampling)
    pool = pool_of(frames)
    assert len(pool) == 3
    index = torch.tensor([2, 0, 1, 1])
    planes, status = decode(pool, index)
    assert not status.any()
    for got, number in zip(planes.numpy(), index, strict=True):
        assert np.array_equal(got, native.require().jpeg_planes(frames[number]))
    for seed in (0, 1):
        got, status_of_kernel = emulate(pool, index.numpy(), seed)
        assert np.array_equal(got, planes.numpy())
        assert not status_of_kernel.any()


def test_frames_have_the_pixels_of_libjpeg_turbo() -> None:
    import simplejpeg

    for size, subsampling in (((32, 48), "4:2:0"), ((24, 40), "4:2:0"), ((33, 19), "4:4:4")):
        frames = files(*size, subsampling)
        decoded = yuv420.rgb_frames(decode_frames(pool_of(frames), torch.arange(3)))
        for number, frame in enumerate(frames):
            assert np.array_equal(decoded[number].numpy(), simplejpeg.decode_jpeg(frame)), (size, number)


def test_an_index_out_of_range_is_the_nearest_frames() -> None:
    pool = pool_of(files(16, 16, "4:2:0"))
    wanted, _ = decode(pool, torch.tensor([0, 2]))
    outside = torch.tensor([-5, 1 << 40])
    assert torch.equal(decode(pool, outside)[0], wanted)
    assert np.array_equal(emulate(pool, outside.numpy(), 0)[0], wanted.numpy())


def test_damage_stays_inside_its_segment() -> None:
    """What the host would never pack: the kernel reads and writes nothing out of bounds, and says which segment."""
    frames = files(48, 64, "4:2:0")
    pool = pool_of(frames)
    whole, _ = decode(pool, torch.arange(3))
    rng = np.random.default_rng(0)
    for _ in range(20):
        words = pool.words.clone()
        begin, end = pool.segment_begin[4:6].tolist()  # of frame 1, the middle row of its blocks
        at = int(rng.integers(begin, end))
        words[at:end] = torch.from_numpy(rng.integers(-(2**31), 2**31, end - at).astype(np.int32))
        damaged = JpegPool(pool.layout, words, pool.segment_begin, pool.tables_of, pool.tables)
        planes, status = decode(damaged, torch.arange(3))
        emulated, status_of_kernel = emulate(damaged, np.arange(3), 0)
        assert np.array_equal(status.numpy(), status_of_kernel)
        assert torch.equal(planes[[0, 2]], whole[[0, 2]])
        assert np.array_equal(emulated[[0, 2]], whole.numpy()[[0, 2]])
        assert not status[1, [0, 2]].any()
        if not status.any():
            assert np.array_equal(emulated, planes.numpy())


def test_files_that_do_not_fit_the_pool() -> None:
    frames = files(16, 16, "4:2:0")
    layout, is_restart = describe(frames[0])
    assert is_restart
    device = torch.device("cpu")
    writer = PoolWriter(layout, 3, 1 << 16, device)
    with pytest.raises(ValueError, match=r"frame 1: expected 16x16 of 3 components, .*; got 16x32 of 3"):
        writer.add([frames[0], files(16, 32, "4:2:0")[0]])
    with pytest.raises(ValueError, match=r"frame 0: a segment (ends before|goes on behind) its last block"):
        writer.add([frames[0][:-30] + b"\xff\xd9"])
    with pytest.raises(RuntimeError, match="expected 3 frames in the pool, got 0"):
        writer.finish()
    with pytest.raises(ValueError, match="expected index int64"):
        decode(pool_of(frames), torch.zeros(1))
    with pytest.raises(ValueError, match="sampled as neither 4:4:4 nor 4:2:0"):
        decode_frames(pool_of(files(16, 16, "4:2:2")), torch.arange(1))
