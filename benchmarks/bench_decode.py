"""JPEG decoding on one CPU thread: simplejpeg, DALI, PIL; whole batches of 64 frames."""

from __future__ import annotations

import io

import numpy as np
import pytest
import simplejpeg
from PIL import Image

from benchmarks.harness import compare
from ptr_fast.data.decode import make_decoder

BATCH = 64


def frames(size: int, num_frames: int = BATCH) -> list[bytes]:
    """Smooth pictures with some noise: about as many bytes as camera frames of that size."""
    rng = np.random.default_rng(0)
    y, x = np.mgrid[:size, :size] / size
    out = []
    for number in range(num_frames):
        waves = [np.sin(9 * x + number + c) + np.cos(11 * y * x - number) for c in range(3)]
        image = 127.5 + 55 * np.stack(waves, -1) + rng.normal(0, 6, (size, size, 3))
        out.append(simplejpeg.encode_jpeg(np.clip(image, 0, 255).astype(np.uint8), quality=90))
    return out


@pytest.mark.parametrize("size", [64, 128, 256])
def test_decode(size: int) -> None:
    pytest.importorskip("nvidia.dali", reason="DALI is not installed")
    encoded = frames(size)
    ours, dali = (make_decoder(size, size, backend) for backend in ("simplejpeg", "dali"))

    def pil() -> np.ndarray:
        return np.stack([np.asarray(Image.open(io.BytesIO(data)).convert("RGB")) for data in encoded])

    def gate() -> None:
        wanted = ours.decode(encoded).astype(int)
        assert np.abs(wanted - dali.decode(encoded)).max() <= 1
        assert np.abs(wanted - pil()).max() <= 1

    compare(
        "decode",
        f"{BATCH} frames of {size}x{size}, {len(encoded[0]) / 1000:.1f} kB each, one thread",
        {"simplejpeg": lambda: ours.decode(encoded), "dali_cpu": lambda: dali.decode(encoded), "pil": pil},
        gate,
        num_rounds=15,
    )
