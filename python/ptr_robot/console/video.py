"""Frames to a video file, as they come."""

from __future__ import annotations

import contextlib
import io
import os
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np

from ptr_fast.files import write_atomically

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
        self._gif = io.BytesIO() if path.suffix == ".gif" else None  # its writer keeps every frame in memory
        self._writer: Any = None
        self._last: np.ndarray | None = None

    def add(self, frame: np.ndarray) -> None:
        """Adds a frame uint8 ``[H, W, 3]``.

        Raises:
            OSError: the file system refuses; names the file.
        """
        if self._writer is None:
            import imageio.v2 as imageio

            if self._gif is not None:
                self._writer = imageio.get_writer(self._gif, "gif", duration=1000.0 / self._rate_hz, loop=0)
            else:
                self._writer = imageio.get_writer(
                    self._temporary, fps=self._rate_hz, macro_block_size=2, ffmpeg_log_level="error"
                )
        try:
            self._writer.append_data(frame)
        except OSError as error:  # ffmpeg has ended; it said why on standard error
            raise OSError(f"cannot write {self.path}: {str(error).splitlines()[0]}") from error
        self._last = frame

    def __enter__(self) -> VideoWriter:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        try:
            if self._writer is None or self._last is None:
                return
            if kind is not None:
                with contextlib.suppress(OSError):  # told already
                    self._writer.close()
                return
            for _ in range(round(self._rate_hz)):  # the last frame stays for a second
                self.add(self._last)
            self._writer.close()
            self._put_in_place()
        finally:
            self._temporary.unlink(missing_ok=True)

    def _put_in_place(self) -> None:
        if self._gif is not None:
            write_atomically(self.path, self._gif.getvalue())
        elif _is_whole_mp4(self._temporary):
            os.replace(self._temporary, self.path)
        else:
            raise OSError(f"cannot write {self.path}: the video was cut short, as on a full disk")


def _is_whole_mp4(file: Path) -> bool:
    """Whether a file is a row of whole boxes with an index among them, which ffmpeg writes last.

    That ffmpeg failed is not told otherwise. Source: ISO/IEC 14496-12, section 4.2.
    """
    names, place = set(), 0
    if not file.exists():
        return False
    with open(file, "rb") as stream:
        end = stream.seek(0, os.SEEK_END)
        while place < end:
            stream.seek(place)
            head = stream.read(16)
            size, name = int.from_bytes(head[:4], "big"), head[4:8]
            size = int.from_bytes(head[8:16], "big") if size == 1 else size
            if size < 8:
                return False
            names.add(name)
            place += size
    return place == end and b"moov" in names


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
