"""The decoder on the host gives libjpeg-turbo's bytes, and says in one sentence why it does not take a file."""

from __future__ import annotations

import hashlib
import io
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from jpeg_files import encoded, picture, random_files, shard_frames
from libjpeg_turbo import decode_planes
from PIL import Image

from ptr_fast import native

TESTS = Path(__file__).parents[1]


def planes_of(data: bytes) -> list[np.ndarray]:
    """Ours, like :func:`libjpeg_turbo.decode_planes`."""
    module = native.require()
    (height, width, count, horizontal, vertical, _), _ = module.jpeg_describe(data)
    flat = module.jpeg_planes(data)
    sizes = [(height, width)] + [(-(-height // vertical), -(-width // horizontal))] * (count - 1)
    ends = np.cumsum([rows * columns for rows, columns in sizes])
    assert ends[-1] == flat.size
    return [part.reshape(size) for part, size in zip(np.split(flat, ends[:-1]), sizes, strict=True)]


def assert_same(data: bytes, what: str) -> None:
    for number, (ours, theirs) in enumerate(zip(planes_of(data), decode_planes(data), strict=True)):
        assert np.array_equal(ours, theirs), f"{what}: component {number}"


def test_random_files() -> None:
    for what, data in random_files(250):
        assert_same(data, what)


def test_grey_and_large_and_thin() -> None:
    rng = np.random.default_rng(1)
    assert_same(encoded(picture(rng, 50, 61, 0)[:, :, 0], quality=80), "grey")
    for size in ((480, 640), (1, 1), (1, 300), (300, 1), (16, 16), (17, 15)):
        assert_same(encoded(picture(rng, *size, 2), quality=90, subsampling="4:2:0"), f"{size}")


def test_every_frame_of_the_real_shard(shared_dir: Path) -> None:
    frames = shard_frames(shared_dir)
    if not frames:
        pytest.skip(f"no episodes under {shared_dir}/data/bridge_rlds")
    assert len(frames) == 1000
    for number, frame in enumerate(frames):
        assert_same(frame, f"frame {number}")


def loud(data: bytes, quantum: int) -> bytes:
    """The file with every quantum replaced: coefficients that the picture never had."""
    out, at = bytearray(data), 2
    while out[at + 1] != 0xDA:
        if out[at + 1] == 0xDB:
            out[at + 5 : at + 69] = bytes([quantum]) * 64
        at += 2 + int.from_bytes(out[at + 2 : at + 4], "big")
    return bytes(out)


def test_libjpeg_turbo_with_and_without_simd() -> None:
    """All that an encoder makes of pictures comes out alike; what does not is told in benchmarks/NOTES.md."""
    program = (
        "import sys; sys.path.insert(0, sys.argv[1])\n"
        "import hashlib\n"
        "from jpeg_files import random_files\n"
        "from libjpeg_turbo import decode_planes\n"
        "def digest(files): return hashlib.sha256(b''.join(p.tobytes() for f in files for p in decode_planes(f)))\n"
        "print(digest(data for _, data in random_files(120, seed=7)).hexdigest())\n"
    )
    digests = []
    for environment in ({}, {"JSIMD_FORCENONE": "1"}):
        run = subprocess.run(
            [sys.executable, "-c", program, str(TESTS)],
            env={**os.environ, **environment},
            capture_output=True,
            text=True,
            check=True,
        )
        digests.append(run.stdout.strip())
    ours = hashlib.sha256(b"".join(p.tobytes() for _, f in random_files(120, seed=7) for p in planes_of(f)))
    assert digests == [ours.hexdigest()] * 2


def test_coefficients_such_as_no_picture_has_are_refused() -> None:
    data = loud(encoded(picture(np.random.default_rng(3), 64, 64, 0), quality=100), 255)
    with pytest.raises(ValueError, match="a block has coefficients such as no picture of 8 bits has"):
        native.require().jpeg_planes(data)


def patched(data: bytes, marker: int, at: int, value: int) -> bytes:
    """The file with a byte of a marker segment replaced."""
    out = bytearray(data)
    out[out.index(bytes([0xFF, marker])) + at] = value
    return bytes(out)


IMAGE = picture(np.random.default_rng(5), 40, 56, 2)
FILE = encoded(IMAGE, quality=90, subsampling="4:2:0")
ROWS = encoded(IMAGE, quality=90, subsampling="4:2:0", restart_marker_rows=1)


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", "not a JPEG file"),
        (b"\x89PNG\r\n", "not a JPEG file"),
        (FILE[:100], "the file is cut off in its headers"),
        (FILE[:-40], "the file is cut off in its picture"),
        (FILE[:-2], "the file is cut off in its picture"),
        (encoded(IMAGE, progressive=True), "expected a baseline JPEG, this one is progressive"),
        (patched(FILE, 0xC0, 1, 0xC1), "expected a baseline JPEG, this one is extended sequential"),
        (patched(FILE, 0xC0, 1, 0xC9), "expected a baseline JPEG, this one is arithmetic-coded sequential"),
        (patched(FILE, 0xC0, 1, 0xC3), "expected a baseline JPEG, this one is lossless"),
        (patched(FILE, 0xC0, 4, 12), "expected samples of 8 bits, got 12"),
        (patched(FILE, 0xC0, 11, 0x41), "expected colours sampled as .* got factors 4x1, 1x1, 1x1"),
        (patched(FILE, 0xDB, 4, 0x10), "expected quantisation tables of 8 bits, got one of 16"),
        (patched(FILE, 0xDA, 4, 1), "expected one scan of all 3 components, got one of 1"),
        (patched(ROWS, 0xD1, 1, 0xD2), "restart marker 1 is missing or out of order"),
        (ROWS[: ROWS.index(b"\xff\xd1")] + b"\xff\xd9", "expected 3 restart segments, got 2"),
        (FILE[:-2] + b"\xff\xda", "expected one scan of all components, got several"),
        (FILE[:-2] + bytes(8) + b"\xff\xd9", "a segment goes on behind its last block"),
        (FILE[:-20] + b"\xff\xd9", "a segment ends before its last block"),
    ],
)
def test_what_is_refused(data: bytes, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        native.require().jpeg_planes(data)
    with pytest.raises(ValueError, match=message):
        native.require().jpeg_add_restarts(data)


def test_rgb_and_four_components_are_refused() -> None:
    rgb = encoded(IMAGE, quality=90, keep_rgb=True)
    with pytest.raises(ValueError, match="expected a grey or a YCbCr picture, got one in RGB"):
        native.require().jpeg_planes(rgb)
    out = io.BytesIO()
    Image.fromarray(IMAGE).convert("CMYK").save(out, "JPEG")
    with pytest.raises(ValueError, match="expected a grey or a YCbCr picture, got one of 4 components"):
        native.require().jpeg_planes(out.getvalue())


@pytest.mark.parametrize("data", ["text", 3, np.zeros((2, 2), np.uint8), np.zeros(8, np.uint8)[::2]])
def test_other_objects_are_refused(data: object) -> None:
    with pytest.raises(ValueError, match="JPEG file: expected"):
        native.require().jpeg_planes(data)
