"""A USB camera by OpenCV and V4L2: no queue of frames, timed when the driver hands a frame over."""

from __future__ import annotations

import time
from typing import Any

import numpy as np

from ptr_robot.cameras.buffered import BufferedCamera

__all__ = ["OpenCVCamera", "import_cv2"]


def import_cv2() -> Any:
    """OpenCV, imported where a camera is opened. Raises RuntimeError where it is missing."""
    try:
        import cv2
    except ImportError as error:
        raise RuntimeError(f"needs OpenCV ({error}); pip install 'ptr-fast[robot]'") from error
    return cv2


class OpenCVCamera(BufferedCamera):
    """A V4L2 device.

    The driver keeps one frame; it is timed as soon as it is taken out, before it is decoded. That time is later than
    the exposure by what sensor and USB take, about one period of the camera.

    Args:
        device: number (``0``) or file (``/dev/video0``) of the device.
        width, height: pixels. hz: frames per second. fourcc: pixel format; MJPG lets USB 2 carry 640x480 at 30 Hz.
        timeout_s: a camera without a new frame for so long has failed.
    """

    def __init__(
        self,
        device: str,
        width: int = 640,
        height: int = 480,
        hz: float = 30.0,
        fourcc: str = "MJPG",
        timeout_s: float = 2.0,
    ) -> None:
        super().__init__(f"camera {device}", timeout_s)
        if width <= 0 or height <= 0 or not hz > 0:
            raise ValueError(f"{self.where}: width, height and hz must be positive, got {width}, {height}, {hz:g}")
        if len(fourcc) != 4:
            raise ValueError(f"{self.where}: fourcc: expected four letters, got {fourcc!r}")
        self._device = f"/dev/video{device}" if device.isdigit() else device
        self._wanted = (width, height, hz, fourcc)
        self._capture: Any = None

    def _open(self) -> None:
        cv2 = import_cv2()
        width, height, hz, fourcc = self._wanted
        self._capture = cv2.VideoCapture(self._device, cv2.CAP_V4L2)
        if not self._capture.isOpened():
            raise RuntimeError(f"cannot open {self._device}")
        self._capture.set(cv2.CAP_PROP_FOURCC, cv2.VideoWriter_fourcc(*fourcc))
        self._capture.set(cv2.CAP_PROP_FRAME_WIDTH, width)
        self._capture.set(cv2.CAP_PROP_FRAME_HEIGHT, height)
        self._capture.set(cv2.CAP_PROP_FPS, hz)
        self._capture.set(cv2.CAP_PROP_BUFFERSIZE, 1)

    def _take(self) -> tuple[np.ndarray, int]:
        cv2 = import_cv2()
        if not self._capture.grab():
            raise RuntimeError("the device gives no frame (unplugged?)")
        captured_ns = time.monotonic_ns()
        good, frame = self._capture.retrieve()
        width, height, *_ = self._wanted
        if not good or frame is None:
            raise RuntimeError("the device gives frames that cannot be decoded")
        if frame.shape[:2] != (height, width):
            raise RuntimeError(f"it gives {frame.shape[1]}x{frame.shape[0]} where {width}x{height} was asked for")
        return cv2.cvtColor(frame, cv2.COLOR_BGR2RGB), captured_ns

    def _release(self) -> None:
        self._capture.release()
