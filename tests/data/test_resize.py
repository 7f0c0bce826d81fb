"""The resize kernel: Pillow's, bit for bit, with and without the native module."""

from importlib import metadata

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from ptr_fast import native
from ptr_fast import resize as module
from ptr_fast.resize import resize, rows_come_first

needs_native = pytest.mark.skipif(
    native.module() is None, reason=f"the native module is missing: {native.why_missing()}"
)
PILLOW = int(metadata.version("pillow").partition(".")[0])
ISAS = ("baseline",) if native.module() is None else native.build_info()["isas"].split()


@pytest.fixture
def image():
    return np.random.default_rng(0).integers(0, 256, (48, 64, 3), dtype=np.uint8)


@pytest.fixture(params=ISAS)
def isa(request):
    """The native loops of every instruction set that this processor has."""
    before = native.isa()
    try:
        native.set_isa(request.param)
    except ValueError as error:
        pytest.skip(str(error))
    module._native_resize.cache_clear()
    yield request.param
    native.set_isa(before)
    module._native_resize.cache_clear()


def noise(seed: int, height: int, width: int, black_and_white: bool) -> np.ndarray:
    """Black and white overshoots, so levels are clipped between the passes."""
    rng = np.random.default_rng(seed)
    if black_and_white:
        return rng.integers(0, 2, (height, width, 3), dtype=np.uint8) * np.uint8(255)
    return rng.integers(0, 256, (height, width, 3), dtype=np.uint8)


def pillows(image: np.ndarray, height: int, width: int) -> np.ndarray:
    return np.asarray(Image.fromarray(image).resize((width, height), Image.Resampling.LANCZOS))


@needs_native
@pytest.mark.parametrize(
    ("size", "fitted"),
    [
        pytest.param((480, 640), (128, 128), id="camera to 128"),
        pytest.param((480, 640), (64, 64), id="camera to 64"),
        pytest.param((480, 640), (100, 100), id="camera to a size of no whole vector"),
        pytest.param((481, 643), (127, 61), id="all odd"),
        pytest.param((720, 1280), (256, 256), id="large camera"),
        pytest.param((12, 16), (480, 640), id="enlarged"),
        pytest.param((640, 100), (64, 90), id="rows first"),
        pytest.param((70, 30), (70, 9), id="columns alone"),
        pytest.param((70, 30), (9, 30), id="rows alone"),
        pytest.param((1, 1), (5, 7), id="one pixel enlarged"),
        pytest.param((300, 200), (1, 1), id="to one pixel"),
        pytest.param((1, 200), (3, 50), id="one row"),
        pytest.param((200, 1), (50, 3), id="one column"),
    ],
)
def test_equals_pillow(isa, size, fitted):
    for black_and_white in (False, True):
        frame = noise(1, *size, black_and_white)
        out = resize(frame, *fitted)
        assert out.dtype == np.uint8
        np.testing.assert_array_equal(out, module._by_pillow(frame, *fitted))
        if PILLOW >= 13 or not rows_come_first(*size, *fitted):
            np.testing.assert_array_equal(out, pillows(frame, *fitted))


@needs_native
@settings(max_examples=150, deadline=None)
@given(
    sizes=st.tuples(*[st.integers(1, 150)] * 4),
    seed=st.integers(0, 2**31),
    black_and_white=st.booleans(),
)
def test_equals_pillow_at_any_size(sizes, seed, black_and_white):
    frame = noise(seed, *sizes[:2], black_and_white)
    np.testing.assert_array_equal(resize(frame, *sizes[2:]), module._by_pillow(frame, *sizes[2:]))


def test_without_the_native_module_pillow_does_it(image, monkeypatch):
    expected = resize(image, 16, 12)
    monkeypatch.setattr(native, "module", lambda: None)
    np.testing.assert_array_equal(resize(image, 16, 12), expected)
    np.testing.assert_array_equal(resize(image, 16, 12), pillows(image, 16, 12))


def test_batch_is_one_by_one(image):
    batch = np.stack([image, image[::-1]])
    np.testing.assert_array_equal(resize(batch, 16, 16), np.stack([resize(one, 16, 16) for one in batch]))
    assert resize(batch[:0], 16, 16).shape == (0, 16, 16, 3)


def test_views_of_larger_arrays_are_taken(image):
    part = image[5:40:2, 3:50, ::-1]
    np.testing.assert_array_equal(resize(part, 9, 20), resize(part.copy(), 9, 20))


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
    with pytest.raises(ValueError, match="expected pixels"):
        resize(image[:0], 2, 2)


@needs_native
def test_native_refuses_what_it_was_not_made_for(image):
    made = native.require().Resize(48, 64, 9, 9)
    with pytest.raises(ValueError, match=r"images: expected uint8 \[N, 48, 64, 3\]"):
        made.run(image[None, 1:])
    with pytest.raises(ValueError, match="width: expected 1 to 1048576 pixels, got 0"):
        native.require().Resize(48, 64, 9, 0)
