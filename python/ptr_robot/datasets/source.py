"""What a reader of a foreign format offers to ``convert``: shards of episodes, each read only when it is asked for."""

from __future__ import annotations

import hashlib
import os
import zlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from ptr_fast.errors import DataError
from ptr_robot.datasets.layout import Keys, Layout

__all__ = [
    "EpisodeHandle",
    "Frame",
    "Shard",
    "Source",
    "SourceEpisode",
    "as_floats",
    "choose_cameras",
    "failing",
    "find_files",
    "fingerprint_files",
    "outcome_of",
]

Frame = bytes | np.ndarray  # an image file, or uint8 [H, W, 3]


@dataclass(frozen=True, kw_only=True)
class SourceEpisode:
    """One episode as its source holds it: frames not decoded, actions in raw units.

    Attributes:
        episode_id: stable name inside the source; a second conversion finds it again.
        task: the instruction; empty where the source has none.
        domain, split, source, outcome, kind, rewards: as in :class:`ptr_fast.data.store.Episode`.
        states: float32 ``[F, S]``.
        actions: float32 ``[T, A]``; F is T or T + 1.
        frames: per camera F image files or arrays; a sequence may make them while it is walked through.
        flags: facts about labels that are not taken over, e.g. ``rewards_all_zero``; a flag of the whole source is true
            where it is true in every episode.
        remarks: what a user should know about this episode, in words that fit many, so that they can be counted.
    """

    episode_id: str
    task: str
    states: np.ndarray
    actions: np.ndarray
    frames: Mapping[str, Sequence[Frame]]
    domain: str = ""
    split: str = ""
    source: str = ""
    outcome: str = "unknown"
    kind: str = "unknown"
    rewards: np.ndarray | None = None
    flags: Mapping[str, bool] = field(default_factory=dict)
    remarks: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True)
class EpisodeHandle:
    """An episode that can be read. ``task`` is given where it is known before reading; ``read`` raises DataError."""

    episode_id: str
    read: Callable[[], SourceEpisode]
    task: str | None = None


@dataclass(frozen=True, kw_only=True)
class Shard:
    """Episodes that lie together: one file, or one folder.

    Attributes:
        name: path relative to the source.
        episodes: the handles, in order; damage that hides all later episodes is one last handle that raises.
        num_episodes: their number, where it is known without reading.
        is_done: says from the ids of this shard that a store has (``<name>#...``) that nothing is left to read.
    """

    name: str
    episodes: Callable[[], Iterable[EpisodeHandle]]
    num_episodes: int | None = None
    is_done: Callable[[set[str]], bool] = lambda ids: False


class Source(Protocol):
    """A folder in a foreign format. Making one checks the layout, not every episode.

    Attributes:
        format: one of :data:`ptr_robot.datasets.options.Format`, or a word of your own reader.
        dataset: the name that the data set gives itself; empty where it gives none.
        cameras: names of the cameras that are read.
        notes: what a user should know about the source, one sentence each.
        layout: what is known of its numbers, asked for or recognised; None where nothing is.
        keys: the features that are read for state and action; empty where the format leaves no choice.
        names, units: per field (``action``, ``state``), what the source itself calls its numbers, where it does.

    A source that states its steps per second has an attribute ``control_hz`` besides.
    """

    format: str
    dataset: str
    cameras: tuple[str, ...]
    notes: tuple[str, ...]
    layout: Layout | None
    keys: Keys
    names: Mapping[str, tuple[str, ...]]
    units: Mapping[str, tuple[str, ...]]

    def shards(self) -> Sequence[Shard]: ...

    def fingerprint(self) -> str: ...


def choose_cameras(wanted: tuple[str, ...], present: Iterable[str], where: str) -> tuple[str, ...]:
    """The wanted cameras, or all that are present; ValueError names what is missing."""
    present = sorted(present)
    if not present:
        raise DataError(f"{where}: no camera found")
    if len(set(wanted)) < len(wanted):
        raise ValueError(f"cameras: name each camera once, got {list(wanted)}")
    missing = [name for name in wanted if name not in present]
    if missing:
        raise ValueError(f"{where}: no camera {missing}; present: {present}")
    return wanted or tuple(present)


def fingerprint_files(root: Path, files: Iterable[Path]) -> str:
    """SHA-256 over relative names, sizes and the CRC-32 of the first and last 4 KiB of every file.

    It does not depend on where or when the files were copied. A change in the middle of a file that keeps its size is
    not seen; that is what the checksums of the formats are for.
    """
    digest = hashlib.sha256()
    for file in sorted(files):
        try:
            size = file.stat().st_size
            with open(file, "rb") as stream:
                crc = zlib.crc32(stream.read(4096))
                if size > 4096:
                    stream.seek(-4096, os.SEEK_END)
                    crc = zlib.crc32(stream.read(), crc)
        except OSError:  # a file that cannot be read is a bad episode, not the end of all others
            size, crc = -1, 0
        digest.update(f"{file.relative_to(root).as_posix()}\0{size}\0{crc}\n".encode())
    return digest.hexdigest()


def as_floats(values: Any, dim: int | None, where: str) -> np.ndarray:
    """Rows of numbers as float32 ``[n, dim]``.

    Raises:
        DataError: another shape or kind; names ``where``.
    """
    try:
        out = np.asarray(values, dtype=np.float32)
    except (TypeError, ValueError) as error:
        raise DataError(f"{where}: expected rows of numbers ({error})") from error
    if out.ndim != 2 or (dim is not None and out.shape[1] != dim):
        raise DataError(f"{where}: expected shape [n, {'any' if dim is None else dim}], got {list(out.shape)}")
    return out


def outcome_of(success: np.ndarray | None) -> str:
    """``success`` where a number of a success feature ``[T]`` is above 0, else ``failure``; of None ``unknown``."""
    if success is None:
        return "unknown"
    return "success" if (np.asarray(success) > 0).any() else "failure"


def find_files(root: Path, name: str) -> Iterator[Path]:
    """Files of that name under ``root``, in sorted order, folder by folder."""
    for folder, folders, files in os.walk(root):
        folders.sort()
        if name in files:
            yield Path(folder, name)


def failing(episode_id: str, message: str) -> EpisodeHandle:
    """A handle for what cannot be read; reading it raises DataError with the message."""

    def read() -> SourceEpisode:
        raise DataError(message)

    return EpisodeHandle(episode_id=episode_id, read=read)
