"""A camera with a buffer of one frame: a thread takes frames as they come, and the newest replaces the one before."""

from __future__ import annotations

import threading
import time
from abc import ABC, abstractmethod

import numpy as np

__all__ = ["BufferedCamera"]

CLOSE_WAIT_S = 5.0


class BufferedCamera(ABC):
    """Frames of one size, RGB, with the time at which each came out of the driver.

    Subclasses open, take and release; these three run in the camera's own thread only.

    Args:
        where: what to call it in errors.
        timeout_s: a camera without a new frame for so long has failed.
    """

    def __init__(self, where: str, timeout_s: float) -> None:
        if not timeout_s > 0:
            raise ValueError(f"{where}: timeout_s: expected a positive number of seconds, got {timeout_s:g}")
        self.where, self._timeout_s = where, timeout_s
        self._changed = threading.Condition()
        # Guarded by _changed.
        self._newest: tuple[np.ndarray, int] | None = None
        self._num_frames = 0
        self._failure: str = ""
        self._closed = threading.Event()
        self._thread: threading.Thread | None = None

    @abstractmethod
    def _open(self) -> None:
        """Opens the device; RuntimeError where it cannot."""

    @abstractmethod
    def _take(self) -> tuple[np.ndarray, int] | None:
        """Waits for the next frame: uint8 ``[H, W, 3]`` RGB, ``time.monotonic_ns()`` of its coming; None at the end."""

    @abstractmethod
    def _release(self) -> None:
        """Gives the device back."""

    @property
    def is_connected(self) -> bool:
        return self._thread is not None

    @property
    def size(self) -> tuple[int, int]:
        """Height and width of the frames, pixels; known once it is connected."""
        with self._changed:
            if self._newest is None:
                raise RuntimeError(f"{self.where}: not connected")
            return self._newest[0].shape[0], self._newest[0].shape[1]

    @property
    def num_frames(self) -> int:
        """Frames that came since it was connected, whether anyone read them or not."""
        with self._changed:
            return self._num_frames

    def connect(self) -> None:
        """Opens the device; returns when the first frame is there.

        Raises:
            RuntimeError: no such device, or no frame in time.
        """
        self.disconnect()
        self._newest, self._num_frames, self._failure = None, 0, ""
        self._closed = threading.Event()
        self._thread = threading.Thread(target=self._run, args=(self._closed,), name=self.where, daemon=True)
        self._thread.start()
        try:
            self.read()
        except BaseException:
            self.disconnect()
            raise

    def read(self) -> tuple[np.ndarray, int]:
        """The newest frame, uint8 ``[H, W, 3]`` RGB, and when it came (``time.monotonic_ns()``); does not wait for one.

        Raises:
            RuntimeError: the camera froze, ended, changed its size, or was never connected.
        """
        with self._changed:
            if self._thread is None:
                raise RuntimeError(f"{self.where}: not connected")
            self._changed.wait_for(lambda: self._newest is not None or self._failure, self._timeout_s)
            if self._failure:
                raise RuntimeError(f"{self.where}: {self._failure}")
            if self._newest is None or time.monotonic_ns() - self._newest[1] > self._timeout_s * 1e9:
                raise RuntimeError(f"{self.where}: no new frame for {self._timeout_s:g} s")
            return self._newest

    def disconnect(self) -> None:
        """Closes the device. Safe to call twice."""
        self._closed.set()
        thread, self._thread = self._thread, None
        if thread is not None:
            thread.join(CLOSE_WAIT_S)  # a driver that hangs keeps its thread; the device goes with the process

    def _run(self, closed: threading.Event) -> None:
        failure = "the video ended"
        try:
            self._open()
            try:
                while not closed.is_set():
                    taken = self._take()
                    if taken is None:
                        break
                    if not self._keep(taken, closed):
                        return
            finally:
                self._release()
        except Exception as error:  # noqa: BLE001  (told to whoever reads next)
            failure = str(error) or type(error).__name__
        self._fail(failure, closed)

    def _keep(self, taken: tuple[np.ndarray, int], closed: threading.Event) -> bool:
        frame = taken[0]
        if frame.dtype != np.uint8 or frame.ndim != 3 or frame.shape[2] != 3:
            self._fail(f"expected uint8 [H, W, 3], got {frame.dtype} {list(frame.shape)}", closed)
            return False
        with self._changed:
            before = self._newest[0].shape if self._newest is not None else frame.shape
            if frame.shape == before and not closed.is_set():
                self._newest = taken
                self._num_frames += 1
                self._changed.notify_all()
                return True
        self._fail(f"its frames changed from {before[0]}x{before[1]} to {frame.shape[0]}x{frame.shape[1]}", closed)
        return False

    def _fail(self, failure: str, closed: threading.Event) -> None:
        with self._changed:
            if not closed.is_set():
                self._failure = failure
                self._changed.notify_all()
