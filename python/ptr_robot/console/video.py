"""Frames to a video file, as they come."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np

__all__ = ["VideoWriter", "side_by_side", "write_video"]


class VideoWriter:
    """Writes frames as they come; the file appears whole at the end, or not at all. A context manager.

    Args:
        path: ``.gif`` or ``.mp4``.
        rate_hz: frames per second.
    """

    def __init__(self, path: Path, rate_hz: float) -> None:
        self.path, self._rate_hz = path, rate_hz
        self._temporary = path.with_name(f".{os.getpid()}.{path.name}")
        self._writer: Any = None
        self._last: np.ndarray | None = None

    def add(self, frame: np.ndarray) -> None:
        """Adds a frame uint8 ``[H, W, 3]``."""
        if self._writer is None:
            import imageio.v2 as imageio

            if self.path.suffix == ".gif":
                self._writer = imageio.get_writer(self._temporary, duration=1000.0 / self._rate_hz, loop=0)
            else:
                self._writer = imageio.get_writer(
                    self._temporary, fps=self._rate_hz, macro_block_size=2, ffmpeg_log_level="error"
                )
        self._writer.append_data(frame)
        self._last = frame

    def __enter__(self) -> VideoWriter:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        try:
            if self._writer is None or self._last is None:
                return
            for _ in range(round(self._rate_hz) if kind is None else 0):  # the last frame stays for a second
                self._writer.append_data(self._last)
            self._writer.close()
            if kind is None:
                os.replace(self._temporary, self.path)
        finally:
            self._temporary.unlink(missing_ok=True)


def side_by_side(frames: Sequence[np.ndarray]) -> np.ndarray:
    """Frames uint8 ``[H, W, 3]`` of several cameras as one picture; lower ones have black below them."""
    if len(frames) == 1:
        return frames[0]
    height = max(len(frame) for frame in frames)
    return np.concatenate([np.pad(frame, ((0, height - len(frame)), (0, 0), (0, 0))) for frame in frames], axis=1)


def write_video(path: Path, frames: Sequence[np.ndarray], rate_hz: float) -> None:
    """Writes frames uint8 ``[H, W, 3]`` at ``rate_hz``, as ``.gif`` or ``.mp4``; the last one stays for a second."""
    with VideoWriter(path, rate_hz) as video:
        for frame in frames:
            video.add(frame)
