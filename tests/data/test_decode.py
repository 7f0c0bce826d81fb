"""Decoders: both backends give the same pixels, and both name the frame that is damaged."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable

import numpy as np
import pytest
import simplejpeg
import torch

from ptr_fast.data import decode
from ptr_fast.data.decode import SimpleJpegDecoder, jpeg_pipeline, make_decoder
from ptr_fast.errors import DataError

HAS_DALI = importlib.util.find_spec("nvidia") is not None and importlib.util.find_spec("nvidia.dali") is not None
BACKENDS = [
    "simplejpeg",
    pytest.param("dali", marks=pytest.mark.skipif(not HAS_DALI, reason="DALI is not installed")),
]
HEIGHT, WIDTH = 48, 64


def smooth_image(number: int, height: int = HEIGHT, width: int = WIDTH) -> np.ndarray:
    y, x = np.mgrid[:height, :width]
    waves = [np.sin(x / (5 + c) + number) + np.cos(y / (7 + c) - number) for c in range(3)]
    return (127.5 + 60 * np.stack(waves, -1)).astype(np.uint8)


@pytest.fixture(scope="module")
def encoded() -> list[bytes]:
    subsampling = ["444", "422", "420"]
    return [simplejpeg.encode_jpeg(smooth_image(i), quality=95, colorsubsampling=subsampling[i % 3]) for i in range(12)]


@pytest.mark.parametrize("backend", BACKENDS)
def test_pixels(backend: str, encoded: list[bytes]) -> None:
    decoder = make_decoder(HEIGHT, WIDTH, backend)
    decoded = decoder.decode(encoded)
    assert decoded.shape == (12, HEIGHT, WIDTH, 3)
    assert decoded.dtype == np.uint8
    for i, image in enumerate(decoded):
        mse = np.mean((image.astype(float) - smooth_image(i)) ** 2)
        assert 10 * np.log10(255**2 / mse) > 34, f"frame {i}"
    views = [memoryview(encoded[0]), bytearray(encoded[1]), np.frombuffer(encoded[2], np.uint8)]
    assert np.array_equal(decoder.decode(views), decoded[:3])
    assert decoder.decode([]).shape == (0, HEIGHT, WIDTH, 3)
    assert backend in decoder.explain().lower()
    decoder.close()


@pytest.mark.skipif(not HAS_DALI, reason="DALI is not installed")
def test_both_backends_give_the_same_pixels(encoded: list[bytes]) -> None:
    dali = make_decoder(HEIGHT, WIDTH, "dali")
    many = encoded * 30  # more than one batch of the pipeline
    ours, theirs = make_decoder(HEIGHT, WIDTH, "simplejpeg").decode(many), dali.decode(many)
    # Both are libjpeg-turbo with its default settings; another build of it may round differently by one.
    assert np.abs(ours.astype(int) - theirs).max() <= 1
    dali.close()


@pytest.mark.skipif(not HAS_DALI, reason="DALI is not installed")
@pytest.mark.parametrize("inputs", [["encoded"], ["encoded 0", "encoded 1"]], ids=["one", "two"])
def test_the_pipeline_of_a_gpu_is_what_dali_accepts(inputs: list[str]) -> None:
    """The installed version checks every operator and argument when it writes the graph down, without a GPU."""
    pipeline = jpeg_pipeline(inputs, torch.device("cuda", 1), 8, 2, prefetch_queue_depth=3)
    assert pipeline.device_id == 1
    # The device is no part of the graph, and DALI would ask the driver for it.
    pipeline._device_id = None
    graph = pipeline.serialize()
    assert graph.count(b"decoders__Image") == graph.count(b"\x06string*\x05mixed") == len(inputs)
    for name in inputs:
        assert name.encode() in graph
    assert b"\x15jpeg_fancy_upsampling\x12\x04bool0\x01" in graph
    assert b"\x12adjust_orientation\x12\x04bool0\x00" in graph


@pytest.mark.parametrize("backend", BACKENDS)
def test_damage_is_named_and_survived(backend: str, encoded: list[bytes]) -> None:
    decoder = make_decoder(HEIGHT, WIDTH, backend)
    good = decoder.decode(encoded)
    for damaged in (b"", b"no JPEG", encoded[3][:40], encoded[3][: len(encoded[3]) // 2]):
        with pytest.raises(DataError, match="frame 3: "):
            decoder.decode([*encoded[:3], damaged, *encoded[4:]])
    other = simplejpeg.encode_jpeg(smooth_image(0, 32, 32))
    with pytest.raises(DataError, match="frame 1: expected 48x64 pixels, got 32x32"):
        decoder.decode([encoded[0], other])
    assert np.array_equal(decoder.decode(encoded), good)


def test_threads_change_nothing(encoded: list[bytes]) -> None:
    one, three = SimpleJpegDecoder(HEIGHT, WIDTH), SimpleJpegDecoder(HEIGHT, WIDTH, num_threads=3)
    assert np.array_equal(one.decode(encoded), three.decode(encoded))
    with pytest.raises(DataError, match="frame 2: "):
        three.decode([encoded[0], encoded[1], b"no JPEG", encoded[3], b"no JPEG", encoded[5]])
    three.close()


def test_choice(monkeypatch: pytest.MonkeyPatch) -> None:
    auto = make_decoder(8, 8)
    assert auto.backend == "simplejpeg"
    assert "faster" in auto.explain()
    with pytest.raises(ValueError, match="expected auto, dali or simplejpeg"):
        make_decoder(8, 8, "opencv")
    with pytest.raises(ValueError, match="has no pixels for cuda"):
        make_decoder(8, 8, "simplejpeg", "cuda")
    find_spec: Callable = importlib.util.find_spec
    monkeypatch.setattr(
        decode.importlib.util, "find_spec", lambda name: None if name.startswith("nvidia") else find_spec(name)
    )
    with pytest.raises(RuntimeError, match="DALI is not installed"):
        make_decoder(8, 8, "dali")
    with pytest.raises(RuntimeError, match="needs DALI"):
        make_decoder(8, 8, "auto", "cuda")


def test_real_frames_are_the_same_in_both_backends(shared_dir) -> None:
    if not HAS_DALI:
        pytest.skip("DALI is not installed")
    files = sorted((shared_dir / "data" / "bridge_rlds").rglob("*.tfrecord*"))
    if not files:
        pytest.skip(f"no episodes under {shared_dir}/data/bridge_rlds")
    data = files[0].read_bytes()
    frames, at = [], 0
    while len(frames) < 40 and (at := data.find(b"\xff\xd8\xff", at)) >= 0:
        end = data.find(b"\xff\xd9", at) + 2
        frames.append(data[at:end])
        at = end
    assert len(frames) == 40
    ours, theirs = (make_decoder(64, 64, backend).decode(frames) for backend in ("simplejpeg", "dali"))
    assert np.abs(ours.astype(int) - theirs).max() <= 1
