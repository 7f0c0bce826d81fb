"""Work on a second stream of a GPU, beside what the current one does: a fork and a join, which a capture turns into
branches of its graph.

Small kernels and the last, half empty wave of large ones leave multiprocessors idle; two branches fill them. The
numbers do not depend on it. On the CPU everything runs in the order in which it is written.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch

__all__ = ["SideStream"]


class SideStream:
    """One stream, made when it is first needed: PyTorch hands out 32 in turn, and one per use would walk through all.

    What the side allocates is freed after the join, and its next work begins with a fork again: no memory is taken
    while it is read. What it reads has to stay alive until the join, and it makes nothing that needs a gradient.
    """

    def __init__(self) -> None:
        self._stream: torch.cuda.Stream | None = None
        self._device: torch.device | None = None

    @contextmanager
    def fork(self, device: torch.device) -> Iterator[None]:
        """Work of the block begins after what the current stream has to do so far, and goes on beside it."""
        if device.type != "cuda":
            yield
            return
        if self._stream is None or self._device != device:
            self._stream, self._device = torch.cuda.Stream(device), device
        self._stream.wait_stream(torch.cuda.current_stream(device))
        with torch.cuda.stream(self._stream):
            yield

    def join(self, device: torch.device) -> None:
        """The current stream goes on after the side's work."""
        if device.type == "cuda" and self._stream is not None:
            torch.cuda.current_stream(device).wait_stream(self._stream)
