"""How old a frame is where its device does not tell."""

from __future__ import annotations

import numpy as np

__all__ = ["FrameAge"]


class FrameAge:
    """Times of one camera's frames: one that comes again byte for byte keeps its time, so a frozen camera grows old.

    Sensors are noisy: two frames that were really taken differ.
    """

    def __init__(self) -> None:
        self._frame: np.ndarray | None = None
        self._captured_ns = 0

    def captured_ns(self, frame: np.ndarray, asked_ns: int) -> int:
        """When ``frame``, uint8 ``[H, W, 3]``, was first asked for (``time.monotonic_ns()``)."""
        if self._frame is None or not np.array_equal(frame, self._frame):
            self._frame, self._captured_ns = frame.copy(), asked_ns  # a driver may write into its own again
        return self._captured_ns
