"""Videos as LeRobot writes them: AV1 in MP4, every second frame a key frame (PyAV, ``ptr-fast[lerobot]``)."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterable, Iterator
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np

from ptr_robot.datasets.video_frames import import_av

__all__ = ["GROUP", "PIXELS", "PRESET", "QUALITY", "VideoFile"]

CODEC, PIXELS, GROUP, QUALITY = "libsvtav1", "yuv420p", 2, 30
"""LeRobot's own defaults: encoder, pixel format, distance of key frames, constant rate factor."""
PRESET = 8
"""LeRobot's default is 12, where SVT-AV1 4.1 leaves frames between key frames as they were: slow motion is lost."""
SMALLEST = 64
"""Pixels of height and width below which some versions of the encoder end the process."""


class VideoFile:
    """A video that frames are added to; a context manager.

    Args:
        file: the file, which must not exist.
        height, width: pixels, even numbers.
        fps: frames per second.

    Raises:
        ValueError: an odd size; RuntimeError: PyAV is missing, or was built without the encoder.
    """

    def __init__(self, file: Path, height: int, width: int, fps: int) -> None:
        if height % 2 or width % 2 or min(height, width) < SMALLEST:
            told = f"expected an even height and width of at least {SMALLEST}, got {height}x{width}"
            raise ValueError(f"{file.parent.parent.name}: {told}: export images")
        self._av, self.num_frames, self.fps, self._file = import_av(), 0, fps, file
        try:
            self._container: Any = self._av.open(str(file), "w")
            options = {"g": str(GROUP), "crf": str(QUALITY), "preset": str(PRESET), "svtav1-params": "lp=1"}
            self._stream: Any = self._container.add_stream(CODEC, rate=fps, options=options)
        except (self._av.FFmpegError, ValueError) as error:
            raise RuntimeError(f"PyAV cannot write {CODEC} videos here ({error}); export images") from error
        self._stream.width, self._stream.height, self._stream.pix_fmt = width, height, PIXELS
        self._stream.codec_context.time_base = Fraction(1, fps)

    def add(self, frames: Iterable[np.ndarray]) -> None:
        """Adds frames, uint8 ``[H, W, 3]`` RGB each."""
        for pixels in frames:
            frame = self._av.VideoFrame.from_ndarray(np.ascontiguousarray(pixels), format="rgb24")
            frame.pts, frame.time_base = self.num_frames, Fraction(1, self.fps)
            with _priority_kept() if self.num_frames == 0 else contextlib.nullcontext():
                packets = self._stream.encode(frame)
            self._container.mux(packets)
            self.num_frames += 1

    @property
    def num_bytes(self) -> int:
        """Bytes on disk so far; what the encoder still holds is not in them."""
        return self._file.stat().st_size if self._file.exists() else 0

    def close(self) -> None:
        """Writes what the encoder still holds, and the file's end."""
        if self._container is not None:
            self._container.mux(self._stream.encode())
            self._container.close()
            self._container = None

    def __enter__(self) -> VideoFile:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


@contextlib.contextmanager
def _priority_kept() -> Iterator[None]:
    """This thread and those that begin inside are scheduled afterwards as this one was before.

    As root, SVT-AV1 gives its threads and its caller real-time priority 99 with the first frame, for as long as they
    live: more than any control loop on the machine has.
    """
    policy, parameter, threads = os.sched_getscheduler(0), os.sched_getparam(0), set(os.listdir("/proc/self/task"))
    try:
        yield
    finally:
        for thread in (0, *map(int, set(os.listdir("/proc/self/task")) - threads)):
            with contextlib.suppress(ProcessLookupError):
                os.sched_setscheduler(thread, policy, parameter)
