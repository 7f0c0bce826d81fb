"""The resize kernel."""

import numpy as np
import pytest
from PIL import Image

from ptr_fast.resize import resize


@pytest.fixture
def image():
    return np.random.default_rng(0).integers(0, 256, (48, 64, 3), dtype=np.uint8)


def test_equals_the_reference_kernel(image):
    expected = np.asarray(Image.fromarray(image).resize((12, 16), Image.Resampling.LANCZOS))
    out = resize(image, 16, 12)
    assert out.dtype == np.uint8
    np.testing.assert_array_equal(out, expected)
    np.testing.assert_array_equal(resize(image, 16, 12), out)


def test_batch_is_one_by_one(image):
    batch = np.stack([image, image[::-1]])
    np.testing.assert_array_equal(resize(batch, 16, 16), np.stack([resize(one, 16, 16) for one in batch]))


def test_same_size_is_the_same_image(image):
    assert resize(image, 48, 64) is image


def test_antialiases():
    """A one-pixel checkerboard becomes grey; without antialiasing it would stay black and white."""
    board = np.indices((64, 64)).sum(axis=0)[..., None] % 2 * np.full(3, 255)
    small = resize(board.astype(np.uint8), 16, 16)
    assert np.abs(small.astype(int) - 127).max() < 12


@pytest.mark.parametrize(
    "bad", [np.zeros((4, 4, 3), np.float32), np.zeros((4, 4), np.uint8), np.zeros((4, 4, 4), np.uint8)]
)
def test_refuses_other_arrays(bad):
    with pytest.raises(ValueError, match=r"expected uint8 \[H, W, 3\]"):
        resize(bad, 2, 2)


def test_refuses_empty_sizes(image):
    with pytest.raises(ValueError, match="must be positive"):
        resize(image, 0, 2)
