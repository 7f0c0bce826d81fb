"""A video file as a camera: its frames come at the rate they were recorded at, whoever reads them."""

from __future__ import annotations

import math
import time
from pathlib import Path
from typing import Any

import numpy as np

from ptr_robot.cameras.buffered import BufferedCamera
from ptr_robot.cameras.opencv import import_cv2

__all__ = ["PlaybackCamera"]


class PlaybackCamera(BufferedCamera):
    """A video that OpenCV reads.

    Args:
        path: of the video.
        loop: begin again at its end; else reading fails then.
        hz: frames per second; 0 takes the file's own.
        timeout_s: a file without a new frame for so long has failed.
    """

    def __init__(self, path: Path | str, loop: bool = False, hz: float = 0.0, timeout_s: float = 2.0) -> None:
        super().__init__(f"camera {path}", timeout_s)
        if hz < 0:
            raise ValueError(f"{self.where}: hz must not be negative, got {hz:g}")
        self._path, self._loop, self._hz = Path(path), loop, hz
        self._capture: Any = None
        self._period_s = self._due = 0.0
        self._any = False

    def _open(self) -> None:
        cv2 = import_cv2()
        if not self._path.is_file():
            raise RuntimeError("no such file")
        self._capture = cv2.VideoCapture(str(self._path))
        if not self._capture.isOpened():
            raise RuntimeError("not a video that OpenCV reads")
        hz = self._hz or self._capture.get(cv2.CAP_PROP_FPS)
        if not (math.isfinite(hz) and hz > 0):
            raise RuntimeError("the file tells no frame rate; give hz")
        self._period_s, self._due, self._any = 1.0 / hz, time.monotonic(), False

    def _take(self) -> tuple[np.ndarray, int] | None:
        cv2 = import_cv2()
        good, frame = self._capture.read()
        if not good and self._loop and self._any:
            self._capture.set(cv2.CAP_PROP_POS_FRAMES, 0)
            good, frame = self._capture.read()
        if not good:
            if not self._any:
                raise RuntimeError("a video without frames")
            self._closed.wait(max(0.0, self._due - time.monotonic()))  # the last frame has its time, too
            return None
        self._any = True
        # A frame is shown at its time; where the machine is too slow the video is slow, not hasty.
        self._closed.wait(max(0.0, self._due - time.monotonic()))
        captured = time.monotonic()
        self._due = max(self._due + self._period_s, captured)
        return cv2.cvtColor(frame, cv2.COLOR_BGR2RGB), int(captured * 1e9)

    def _release(self) -> None:
        if self._capture is not None:
            self._capture.release()
