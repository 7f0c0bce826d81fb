"""augment: the native kernel against the best plain PyTorch that we know of, as in a training program.

Frames that are kept as YUV 4:2:0 planes stand beside both: plain PyTorch decodes them by the definition first.
"""

from __future__ import annotations

import pytest
import torch

from benchmarks.harness import compare, memory_bandwidth, one_thread_clock
from benchmarks.peers import augment_by_permutation
from ptr_fast import native
from ptr_fast.config import AugmentConfig
from ptr_fast.kernels import dispatch
from ptr_fast.kernels.augment import NUM_WORDS, augment, draw_augment, yuv420
from ptr_fast.kernels.counter_random import Stream, uniform_bits

# (images, height = width, dtype): the frames at s and s' of a batch of 64 and of 256
CASES = {
    "64px float32": (128, 64, torch.float32),
    "64px bfloat16": (128, 64, torch.bfloat16),
    "128px float32": (512, 128, torch.float32),
}


def make(num_images: int, size: int) -> tuple[torch.Tensor, object]:
    """Smooth frames, as of a camera, and the paper's random numbers."""
    generator = torch.Generator().manual_seed(0)
    small = torch.rand(num_images, 3, 8, 8, generator=generator)
    frames = torch.nn.functional.interpolate(small, size, mode="bicubic").clamp(0.0, 1.0)
    images = (frames.permute(0, 2, 3, 1) * 255.0).to(torch.uint8).contiguous()
    words = uniform_bits(0, Stream.AUGMENT, 0, range(num_images), NUM_WORDS)
    return images, draw_augment(AugmentConfig(), words)


@pytest.mark.skipif(native.module() is None, reason="there is no native module to measure")
@pytest.mark.parametrize("case", CASES.values(), ids=CASES.keys())
def test_augment(case: tuple[int, int, torch.dtype], request: pytest.FixtureRequest) -> None:
    num_images, size, dtype = case
    images, params = make(num_images, size)
    native.keep_freed_memory()  # as a training program does: else page faults are half of both

    def run(backend: str, given=params) -> torch.Tensor:
        with dispatch.use_backend(f"augment={backend}"):
            return augment(images, given, dtype)

    def gate() -> None:
        for other in (run("planar"), augment_by_permutation.augment(images, params, dtype)):
            steps = (run("native").double() - other.double()).abs() * 255.0
            assert float(steps.max()) < 2.1  # one step of the truncation, and bfloat16's rounding
            assert float((steps > 0.4).double().mean()) < 1e-3
        assert torch.equal(run("native", None), run("planar", None))

    read, written = images.numel(), images.numel() * dtype.itemsize
    bandwidth = memory_bandwidth(read + written)
    for what, given in (("crop and jitter", params), ("scale only", None)):
        row = compare(
            "augment",
            f"{request.node.callspec.id} {num_images}x{size}x{size}x3 {what}",
            {
                "native": lambda given=given: run("native", given),
                "plain torch": lambda given=given: augment_by_permutation.augment(images, given, dtype),
            },
            gate,
            clock=one_thread_clock(),
            num_rounds=15,
            floor_ms=round((read + written) / bandwidth / 1e6, 4),
        )
        assert row["variants"]["native"]["median_ms"] > 0


@pytest.mark.skipif(native.module() is None, reason="there is no native module to measure")
@pytest.mark.parametrize("case", CASES.values(), ids=CASES.keys())
def test_augment_planes(case: tuple[int, int, torch.dtype], request: pytest.FixtureRequest) -> None:
    num_images, size, dtype = case
    images, params = make(num_images, size)
    planes = yuv420.encode(images)
    native.keep_freed_memory()

    def run(frames: torch.Tensor) -> torch.Tensor:
        with dispatch.use_backend("augment=native"):
            return augment(frames, params, dtype)

    def gate() -> None:
        assert torch.equal(run(planes), run(yuv420.decode(planes)))

    read, written = planes.numel(), images.numel() * dtype.itemsize
    row = compare(
        "augment",
        f"{request.node.callspec.id} {num_images}x{size}x{size}x3 crop and jitter, from YUV 4:2:0",
        {
            "native": lambda: run(planes),
            "native_from_rgb": lambda: run(images),
            "plain torch": lambda: augment_by_permutation.augment(yuv420.decode(planes), params, dtype),
        },
        gate,
        clock=one_thread_clock(),
        num_rounds=15,
        floor_ms=round((read + written) / memory_bandwidth(read + written) / 1e6, 4),
    )
    assert row["variants"]["native"]["median_ms"] > 0
