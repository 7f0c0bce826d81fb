"""JPEG files to pixels, whole batches at a time: simplejpeg on the CPU, DALI on a GPU (or where it is asked for)."""

from __future__ import annotations

import importlib.util
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor, wait
from itertools import pairwise
from typing import Any, Protocol

import numpy as np
import simplejpeg
import torch

from ptr_fast.errors import DataError

__all__ = ["DaliDecoder", "Decoder", "SimpleJpegDecoder", "jpeg_pipeline", "make_decoder"]

Encoded = bytes | bytearray | memoryview | np.ndarray

# The rows are made by benchmarks/bench_decode.py, which also checks that both give the same pixels.
_CPU_REASON = "on the CPU simplejpeg is the faster one at 64 to 256 pixels (benchmarks/results/decode.jsonl)"


class Decoder(Protocol):
    """Decodes JPEG files of one size."""

    backend: str
    height: int
    width: int

    def decode(self, frames: Sequence[Encoded]) -> np.ndarray | torch.Tensor:
        """uint8 ``[n, H, W, 3]`` RGB: a numpy array, or a tensor on the decoder's GPU.

        Raises:
            DataError: a frame is not a JPEG file of the decoder's size; the message names its index.
        """
        ...

    def explain(self) -> str:
        """Which backend this is, and why it was chosen."""
        ...


def make_decoder(
    height: int, width: int, backend: str = "auto", device: str | torch.device = "cpu", num_threads: int = 1
) -> Decoder:
    """A decoder for frames of one size.

    Args:
        height, width: of every frame, pixels.
        backend: ``auto``, ``dali`` or ``simplejpeg``. ``auto`` takes DALI on a GPU, where it decodes on the GPU, and
            simplejpeg on the CPU.
        device: where the pixels shall be.
        num_threads: CPU threads that decode.

    Raises:
        ValueError: an unknown backend, or simplejpeg asked for pixels on a GPU.
        RuntimeError: DALI was asked for and is not installed.
    """
    device = torch.device(device)
    if backend not in ("auto", "dali", "simplejpeg"):
        raise ValueError(f"backend: expected auto, dali or simplejpeg, got {backend!r}")
    has_dali = importlib.util.find_spec("nvidia") is not None and importlib.util.find_spec("nvidia.dali") is not None
    if backend == "dali" and not has_dali:
        raise RuntimeError("the decoder 'dali' was asked for, but DALI is not installed: pip install 'ptr-fast[dali]'")
    if backend == "dali":
        return DaliDecoder(height, width, device, num_threads, "asked for")
    if device.type == "cpu":
        why = "asked for" if backend == "simplejpeg" else _CPU_REASON
        return SimpleJpegDecoder(height, width, num_threads, why)
    if backend == "simplejpeg":
        raise ValueError(f"the decoder 'simplejpeg' has no pixels for {device}; use backend 'dali' or device 'cpu'")
    if not has_dali:
        raise RuntimeError(f"decoding on {device} needs DALI: pip install 'ptr-fast[dali]'")
    return DaliDecoder(height, width, device, num_threads, f"{device} is there, and DALI decodes on it")


def jpeg_pipeline(
    inputs: Sequence[str], device: torch.device, batch_size: int, num_threads: int, **options: Any
) -> Any:
    """A DALI pipeline that is not built yet: per input the bytes of JPEG files in, pixels uint8 RGB ``[H, W, 3]`` out.

    Args:
        inputs: names to feed them by.
        device: where it decodes: the CPU, or the host and the GPU together (``mixed``).
        options: of ``nvidia.dali.Pipeline``.
    """
    from nvidia.dali import Pipeline, fn, types

    on_gpu = device.type == "cuda"
    device_id = (device.index or 0) if on_gpu else None
    pipeline = Pipeline(batch_size=batch_size, num_threads=num_threads, device_id=device_id, **options)
    with pipeline:
        pixels = [
            fn.decoders.image(
                fn.external_source(name=name, dtype=types.UINT8, ndim=1),  # type: ignore[attr-defined]
                device="mixed" if on_gpu else "cpu",
                output_type=types.RGB,  # type: ignore[attr-defined]
                jpeg_fancy_upsampling=True,  # as libjpeg-turbo does, which encoded and checked the frames
                adjust_orientation=False,
            )
            for name in inputs
        ]
        pipeline.set_outputs(*pixels)
    return pipeline


class SimpleJpegDecoder:
    """libjpeg-turbo through simplejpeg, on CPU threads; the GIL is free while it decodes."""

    backend = "simplejpeg"

    def __init__(self, height: int, width: int, num_threads: int = 1, why: str = "asked for") -> None:
        self.height, self.width, self._why = height, width, why
        self._threads = num_threads
        self._pool = ThreadPoolExecutor(num_threads, "ptr-fast-decode") if num_threads > 1 else None

    def explain(self) -> str:
        return f"simplejpeg {simplejpeg.__version__}: {self._why}"

    def decode(self, frames: Sequence[Encoded]) -> np.ndarray:
        out = np.empty((len(frames), self.height, self.width, 3), np.uint8)
        self.decode_into(frames, out)
        return out

    def decode_into(self, frames: Sequence[Encoded], out: np.ndarray, rows: np.ndarray | None = None) -> None:
        """Decodes frame i into ``out[rows[i]]`` (``out[i]`` where ``rows`` is None)."""

        def some(first: int, end: int) -> None:
            for index in range(first, end):
                self._decode_one(index, frames[index], out[index if rows is None else rows[index]])

        if self._pool is None:
            some(0, len(frames))
            return
        # One task per thread: a task per frame costs as much as a small frame does.
        ends = [len(frames) * number // self._threads for number in range(self._threads + 1)]
        tasks = [self._pool.submit(some, *share) for share in pairwise(ends)]
        wait(tasks)  # nobody writes into `out` any more when an error is raised
        for task in tasks:
            task.result()

    def close(self) -> None:
        """Ends the decoder's threads."""
        if self._pool is not None:
            self._pool.shutdown()

    def _decode_one(self, index: int, data: Encoded, out: np.ndarray) -> None:
        # The header first: given a buffer of another size, the decoder would only complain about the buffer.
        try:
            height, width, _, _ = simplejpeg.decode_jpeg_header(data)
        except ValueError as error:
            raise DataError(f"frame {index}: not a JPEG file ({error})") from error
        if (height, width) != (self.height, self.width):
            raise _wrong_size(index, (height, width), (self.height, self.width))
        try:
            simplejpeg.decode_jpeg(data, colorspace="RGB", buffer=out)
        except ValueError as error:
            raise DataError(f"frame {index}: a damaged JPEG file ({error})") from error


class DaliDecoder:
    """One persistent DALI pipeline, fed with whole batches; ``mixed`` decoding on a GPU."""

    backend = "dali"
    _MAX_BATCH = 256

    def __init__(
        self, height: int, width: int, device: torch.device, num_threads: int = 1, why: str = "asked for"
    ) -> None:
        self.height, self.width, self._device, self._threads, self._why = height, width, device, num_threads, why
        self._pipeline = self._build()

    def explain(self) -> str:
        from nvidia import dali

        return f"DALI {dali.__version__} ({'mixed' if self._device.type == 'cuda' else 'cpu'}): {self._why}"

    def decode(self, frames: Sequence[Encoded]) -> np.ndarray | torch.Tensor:
        pieces = [
            self._decode_batch(frames[first : first + self._MAX_BATCH], first)
            for first in range(0, len(frames), self._MAX_BATCH)
        ]
        if self._device.type == "cuda":
            return torch.cat(pieces) if pieces else self._empty_on_device()
        return np.concatenate(pieces) if pieces else np.empty((0, self.height, self.width, 3), np.uint8)

    def close(self) -> None:
        """Lets go of the pipeline."""
        self._pipeline = None

    def _empty_on_device(self) -> torch.Tensor:
        return torch.empty((0, self.height, self.width, 3), dtype=torch.uint8, device=self._device)

    def _build(self) -> Any:
        pipeline = jpeg_pipeline(
            ["encoded"], self._device, self._MAX_BATCH, self._threads,
            exec_async=False, exec_pipelined=False, prefetch_queue_depth=1,
        )  # fmt: skip
        pipeline.build()
        return pipeline

    def _decode_batch(self, frames: Sequence[Encoded], first: int) -> Any:
        try:
            self._pipeline.feed_input("encoded", [np.frombuffer(frame, np.uint8) for frame in frames])
            (decoded,) = self._pipeline.run()
        except RuntimeError as error:
            self._pipeline = self._build()  # a pipeline that has failed stays failed
            raise self._find_damage(frames, first, error) from error
        wanted = (self.height, self.width, 3)
        for index, shape in enumerate(decoded.shape()):
            if tuple(shape) != wanted:
                raise _wrong_size(first + index, tuple(shape[:2]), (self.height, self.width))
        if self._device.type == "cuda":
            # The next run writes into this buffer, on a stream of DALI's that does not wait for ours.
            copy = torch.from_dlpack(decoded.as_tensor()).clone()
            torch.cuda.current_stream(self._device).synchronize()
            return copy
        return np.array(decoded.as_tensor())

    def _find_damage(self, frames: Sequence[Encoded], first: int, error: RuntimeError) -> DataError:
        """DALI fails as a batch; the culprit is the first frame that libjpeg-turbo refuses too."""
        for index, frame in enumerate(frames):
            try:
                simplejpeg.decode_jpeg(frame, colorspace="RGB")
            except ValueError as cause:
                return DataError(f"frame {first + index}: not a JPEG file ({cause})")
        return DataError(f"frames {first}..{first + len(frames) - 1}: DALI cannot decode one of them ({error})")


def _wrong_size(index: int, got: tuple[int, ...], expected: tuple[int, int]) -> DataError:
    return DataError(f"frame {index}: expected {expected[0]}x{expected[1]} pixels, got {got[0]}x{got[1]}")
