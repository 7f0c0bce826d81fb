"""Frames to a video file."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np

__all__ = ["write_video"]


def write_video(path: Path, frames: Sequence[np.ndarray], rate_hz: float) -> None:
    """Writes frames uint8 ``[H, W, 3]`` at ``rate_hz``, as ``.gif`` or ``.mp4``; the last one stays for a second."""
    import imageio.v2 as imageio

    still = [*frames, *[frames[-1]] * round(rate_hz)]
    temporary = path.with_name(f".{os.getpid()}.{path.name}")
    try:
        if path.suffix == ".gif":
            imageio.mimwrite(temporary, still, duration=1000.0 / rate_hz, loop=0)
        else:
            imageio.mimwrite(temporary, still, fps=rate_hz, macro_block_size=2, ffmpeg_log_level="error")
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)
