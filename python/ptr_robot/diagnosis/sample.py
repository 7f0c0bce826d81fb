"""A bounded sample of the frames of a store: thumbnails and a few numbers, never all pixels."""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from ptr_fast.errors import DataError

__all__ = ["BLACK_PEAK", "CameraSample", "sample_cameras"]

THUMBNAIL = 32
"""Pixels on the short side of the grey thumbnails that frames are compared on; averaging takes out JPEG noise."""
SATURATED = 250
"""Grey level from which a pixel counts as blown out."""
MAX_COMPARED_FRAMES = 200
"""Frames of a sampled episode whose stored bytes are compared with the next frame's."""
BLACK_PEAK = 16
"""Grey level that no pixel of a black frame exceeds; JPEG turns pure black into at most a few levels."""
CONSTANT_PEAK = 8.0
"""Grey levels by which no part of a constant picture ever differs; JPEG and sensor noise stay below 5."""


@dataclass
class CameraSample:
    """The sampled frames of one camera.

    Attributes:
        name: camera name.
        frame_episode, frame_t: int64 ``[n]``: which episode and which frame in it.
        mean, peak: float32 ``[n]``: mean and largest grey level, 0 to 255.
        saturated: float32 ``[n]``: share of pixels at 250 or above.
        thumbnails: float32 ``[n, h, w]``: grey, block means.
        pair_episode, pair_t: int64 ``[m]``: consecutive sampled frames t, t + 1, not both black.
        energy: float32 ``[m]``: mean absolute difference of their thumbnails, grey levels.
        repeats: per sampled episode, bool ``[frames - 1]``: frame t + 1 has the same bytes as frame t.
        broken: (episode, t, reason) of frames that did not decode or have the wrong size.
    """

    name: str
    frame_episode: np.ndarray
    frame_t: np.ndarray
    mean: np.ndarray
    peak: np.ndarray
    saturated: np.ndarray
    thumbnails: np.ndarray
    pair_episode: np.ndarray
    pair_t: np.ndarray
    energy: np.ndarray
    repeats: dict[int, np.ndarray]
    broken: list[tuple[int, int, str]] = field(default_factory=list)

    @property
    def is_black(self) -> bool:
        """No pixel of any sampled frame is above ``BLACK_PEAK``."""
        return len(self.peak) > 0 and bool(self.peak.max() <= BLACK_PEAK)

    @property
    def is_constant(self) -> bool:
        """Always the same picture, but for noise."""
        return len(self.thumbnails) > 1 and self.largest_difference < CONSTANT_PEAK

    @functools.cached_property
    def largest_difference(self) -> float:
        """Of any four thumbnail pixels together from the first sampled frame, grey levels."""
        height, width = (size // 2 * 2 for size in self.thumbnails.shape[1:])
        halves = self.thumbnails[:, :height, :width].reshape(-1, height // 2, 2, width // 2, 2).mean(axis=(2, 4))
        return float(np.abs(halves - halves[0]).max())

    @functools.cached_property
    def black_episodes(self) -> np.ndarray:
        """int64: sampled episodes in which no pixel is above ``BLACK_PEAK``."""
        episodes = np.unique(self.frame_episode)
        peak = np.array([self.peak[self.frame_episode == episode].max() for episode in episodes])
        return episodes[peak <= BLACK_PEAK]


def sample_cameras(
    store: Any, *, max_frames: int, max_episodes: int, advance: Callable[[int], None] = lambda n: None
) -> dict[str, CameraSample]:
    """Decodes a few frames of every camera.

    Args:
        store: an open ``EpisodeStore``.
        max_frames: consecutive frames decoded per sampled episode and camera, at least 2.
        max_episodes: episodes sampled, spread evenly.
        advance: told the number of episodes done, for a progress bar.

    Returns:
        Samples by camera name. A frame that does not decode is recorded, not raised.
    """
    if max_frames < 2:
        raise ValueError(f"max_frames must be at least 2 (frames are compared with the next), got {max_frames}")
    count = min(store.num_episodes, max_episodes)
    sampled = np.unique(np.linspace(0, store.num_episodes - 1, count).round().astype(np.int64))
    collectors = {camera.name: _Collector(camera, store) for camera in store.meta.cameras}
    for turn, episode in enumerate(sampled):
        for collector in collectors.values():
            collector.look(int(episode), max_frames, from_start=turn % 2 == 0)
        advance(1)
    return {name: collector.result() for name, collector in collectors.items()}


class _Collector:
    """Looks at the frames of one camera, an episode at a time, and keeps the numbers."""

    def __init__(self, camera: Any, store: Any) -> None:
        self.camera, self.store = camera, store
        self.frames: list[tuple[int, int, float, float, float]] = []
        self.thumbnails: list[np.ndarray] = []
        self.pairs: list[tuple[int, int, float]] = []
        self.repeats: dict[int, np.ndarray] = {}
        self.broken: list[tuple[int, int, str]] = []

    def look(self, episode: int, max_frames: int, *, from_start: bool) -> None:
        """Frames from the start of an episode (they show static starts), or from its middle (they show the work)."""
        first = int(self.store.episodes.first[episode])
        num_frames = int(self.store.episodes.num_frames[episode])
        begin = 0 if from_start else max(0, (num_frames - max_frames) // 2)
        previous: tuple[int, np.ndarray] | None = None
        for t in range(begin, min(num_frames, begin + max_frames)):
            grey = self._decode(episode, t, first + t)
            if grey is None:
                continue
            small = _thumbnail(grey)
            self.frames.append((episode, t, grey.mean(), grey.max(), (grey >= SATURATED).mean()))
            self.thumbnails.append(small)
            seen = max(small.max(), 0 if previous is None else previous[1].max()) > BLACK_PEAK
            if previous is not None and previous[0] == t - 1 and seen:
                self.pairs.append((episode, t - 1, float(np.abs(small - previous[1]).mean())))
            previous = (t, small)
        count = min(num_frames, MAX_COMPARED_FRAMES)
        blobs = [self.store.frame_bytes(self.camera.name, first + t) for t in range(count)]
        self.repeats[episode] = np.array([a == b for a, b in zip(blobs, blobs[1:], strict=False)], bool)

    def _decode(self, episode: int, t: int, record: int) -> np.ndarray | None:
        try:
            frame = self.store.frame(self.camera.name, record)
        except (DataError, ValueError, OSError) as error:
            self.broken.append((episode, t, f"does not decode: {error}"))
            return None
        expected = (self.camera.height, self.camera.width, 3)
        if frame.shape != expected:
            self.broken.append((episode, t, f"has shape {frame.shape}, meta.json says {expected}"))
            return None
        return frame @ np.array([0.299, 0.587, 0.114], np.float32)

    def result(self) -> CameraSample:
        frames = np.array(self.frames, np.float64).reshape(-1, 5)
        pairs = np.array(self.pairs, np.float64).reshape(-1, 3)
        empty = np.zeros((0, THUMBNAIL, THUMBNAIL), np.float32)
        return CameraSample(
            name=self.camera.name,
            frame_episode=frames[:, 0].astype(np.int64),
            frame_t=frames[:, 1].astype(np.int64),
            mean=frames[:, 2].astype(np.float32),
            peak=frames[:, 3].astype(np.float32),
            saturated=frames[:, 4].astype(np.float32),
            thumbnails=np.stack(self.thumbnails) if self.thumbnails else empty,
            pair_episode=pairs[:, 0].astype(np.int64),
            pair_t=pairs[:, 1].astype(np.int64),
            energy=pairs[:, 2].astype(np.float32),
            repeats=self.repeats,
            broken=self.broken,
        )


def _thumbnail(grey: np.ndarray) -> np.ndarray:
    block = max(1, min(grey.shape) // THUMBNAIL)
    height, width = grey.shape[0] // block, grey.shape[1] // block
    return grey[: height * block, : width * block].reshape(height, block, width, block).mean(axis=(1, 3))
