"""Frames of an episode inside a video, decoded while they are walked through (PyAV, ``ptr-fast[lerobot]``)."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, overload

import numpy as np

from ptr_fast.errors import DataError
from ptr_robot.datasets.contents import needed_file

__all__ = ["VideoFrames", "import_av"]


def import_av() -> Any:
    """The package ``av``; RuntimeError says how to get it."""
    os.environ.setdefault("SVT_LOG", "1")  # errors only: the AV1 encoder tells its settings at every file
    try:
        import av
    except ImportError as error:
        raise RuntimeError("videos need PyAV: pip install 'ptr-fast[lerobot]'") from error
    av.logging.set_level(av.logging.PANIC)  # errors are raised; what FFmpeg says beside them goes to standard error
    return av


class VideoFrames(Sequence[np.ndarray]):
    """uint8 ``[H, W, 3]`` frames of a video at given times.

    Each walk decodes once from the start of the episode, and holds one frame at a time. The frame of a time is the one
    nearest to it, no further away than half a step.

    Args:
        file: the video.
        times: seconds from its beginning, rising.
        tolerance: half the time between two steps, seconds.
        where: names the frames in errors.
    """

    def __init__(self, file: Path, times: Sequence[float], tolerance: float, where: str) -> None:
        self.file, self._times, self._tolerance, self._where = file, list(times), tolerance, where

    def __len__(self) -> int:
        return len(self._times)

    @overload
    def __getitem__(self, step: int) -> np.ndarray: ...
    @overload
    def __getitem__(self, step: slice) -> Sequence[np.ndarray]: ...
    def __getitem__(self, step: int | slice) -> np.ndarray | Sequence[np.ndarray]:
        if isinstance(step, slice):
            return VideoFrames(self.file, self._times[step], self._tolerance, self._where)
        return next(self._decoded([self._times[step]]))

    def __iter__(self) -> Iterator[np.ndarray]:
        return self._decoded(self._times)

    def _decoded(self, times: list[float]) -> Iterator[np.ndarray]:
        av = import_av()
        needed_file(self.file)
        try:
            with av.open(str(self.file)) as container:
                stream = container.streams.video[0]
                stream.thread_type = "NONE"  # convert works on several episodes at once
                start = max(times[0] - self._tolerance, 0.0)
                container.seek(int(start / stream.time_base), stream=stream, backward=True)
                yield from self._nearest(container.decode(stream), times)
        except (av.FFmpegError, IndexError) as error:
            raise DataError(f"{self.file}: {self._where}: not a whole video ({error})") from error

    def _nearest(self, decoded: Iterator[Any], times: list[float]) -> Iterator[np.ndarray]:
        before, now = None, next(decoded, None)
        for step, time in enumerate(times):
            while now is not None and now.time < time:
                before, now = now, next(decoded, None)
            near = [frame for frame in (before, now) if frame is not None]
            best = min(near, key=lambda frame: abs(frame.time - time), default=None)
            if best is None or abs(best.time - time) > self._tolerance:
                got = "none" if best is None else f"one at {best.time:.4f} s"
                raise DataError(
                    f"{self.file}: {self._where}, step {step}: expected a frame at {time:.4f} s, got {got} (cut off?)"
                )
            yield best.to_ndarray(format="rgb24")
