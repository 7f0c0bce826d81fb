"""JPEG files to test with: random pictures in every form, and the frames of the real shard."""

from __future__ import annotations

import io
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

SUBSAMPLINGS = ("4:4:4", "4:2:2", "4:2:0")


def picture(rng: np.random.Generator, height: int, width: int, kind: int) -> np.ndarray:
    """uint8 ``[height, width, 3]``: noise, noise of black and white alone, or something smooth."""
    noise = rng.integers(0, 256, (height, width, 3), dtype=np.uint8)
    if kind == 1:
        return (noise // 128 * 255).astype(np.uint8)
    if kind == 2:
        coarse = Image.fromarray(noise[: max(2, height // 8), : max(2, width // 8)])
        return np.asarray(coarse.resize((width, height)))
    return noise


def encoded(image: np.ndarray, **options: Any) -> bytes:
    """A file by libjpeg-turbo, of Pillow's options."""
    out = io.BytesIO()
    Image.fromarray(image).save(out, "JPEG", **options)
    return out.getvalue()


def random_files(num_files: int, seed: int = 0, largest: int = 90) -> Iterator[tuple[str, bytes]]:
    """Files of any size, sampling, quality and restart interval, each with what it is."""
    rng = np.random.default_rng(seed)
    for number in range(num_files):
        height, width = rng.integers(1, largest, 2)
        options: dict[str, Any] = {
            "quality": int(rng.integers(1, 101)),
            "subsampling": SUBSAMPLINGS[rng.integers(0, 3)],
            "optimize": bool(rng.integers(0, 2)),
        }
        intervals = ({}, {"restart_marker_rows": 1}, {"restart_marker_blocks": int(rng.integers(1, 9))})
        options |= intervals[number % 3]
        image = picture(rng, height, width, int(rng.integers(0, 3)))
        yield f"{height}x{width} {options}", encoded(image, **options)


def shard_frames(shared_dir: Path) -> list[bytes]:
    """The JPEG files of the real shard, which none of its other bytes resemble."""
    frames = []
    for file in sorted((shared_dir / "data" / "bridge_rlds").glob("*.tfrecord*")):
        data, at = file.read_bytes(), 0
        while (at := data.find(b"\xff\xd8\xff", at)) >= 0:
            end = data.find(b"\xff\xd9", at) + 2
            frames.append(data[at:end])
            at = end
    return frames
