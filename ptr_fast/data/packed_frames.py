"""From the JPEG files of stores to a pool of packed frames on the device (:mod:`ptr_fast.kernels.jpeg_frames`)."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import torch

from ptr_fast import native
from ptr_fast.data.frames import FrameSource, JpegFrames
from ptr_fast.data.jpeg_restart import ENCODING
from ptr_fast.data.store_reader import EpisodeStore
from ptr_fast.errors import DataError
from ptr_fast.kernels.jpeg_frames import JpegLayout, JpegPool, decode, describe, why_not_on

__all__ = ["PoolWriter", "packed_frames", "why_not_packed"]

_PIECE_FRAMES = 4096  # packed, or decoded to see that they can be, at a time


class PoolWriter:
    """Packs the files of a camera, piece by piece, into a pool on a device.

    Args:
        layout: of every file.
        num_frames: N, of all pieces.
        max_bytes: of all packed frames, an upper bound (see :meth:`max_bytes`).
        device: where the pool lies.
    """

    def __init__(self, layout: JpegLayout, num_frames: int, max_bytes: int, device: torch.device) -> None:
        self._layout, self._packer = layout, native.require().JpegPacker(tuple(layout))
        self._words = torch.empty(max_bytes // 4, dtype=torch.int32, device=device)
        self._segment_begin = torch.zeros(num_frames * layout.num_segments + 1, dtype=torch.int64, device=device)
        self._tables_of = torch.empty(num_frames, dtype=torch.uint8, device=device)
        self._num_words = self._num_frames = 0

    @staticmethod
    def max_bytes(layout: JpegLayout, files: Sequence[Any]) -> int:
        """What the packed files take at most: one or two of a hundred more than they do.

        Raises:
            ValueError: a file is no baseline JPEG or has another layout; the message has its number.
        """
        return 4 * native.require().JpegPacker(tuple(layout)).max_words(files)

    def add(self, files: Sequence[Any], num_threads: int = 1) -> None:
        """Packs the next files; each is decoded once to see that it can be.

        Raises:
            ValueError: as :meth:`max_bytes`, a file is damaged, or more than 256 different sets of tables are needed.
        """
        words, ends, tables_of = self._packer.pack(files, num_threads)
        first, segments = self._num_frames, self._layout.num_segments
        last = first + len(files)
        self._words[self._num_words : self._num_words + len(words)] = torch.from_numpy(words)
        begins = torch.from_numpy(ends + np.int64(self._num_words))
        self._segment_begin[first * segments + 1 : last * segments + 1] = begins
        self._tables_of[first:last] = torch.from_numpy(tables_of)
        self._num_words, self._num_frames = self._num_words + len(words), last

    def finish(self) -> JpegPool:
        """The pool, after its frames have been decoded on its device once.

        Raises:
            RuntimeError: fewer frames were added than announced, or the device decodes what the host has found good
                to something else than whole frames.
        """
        if self._num_frames != len(self._tables_of):
            raise RuntimeError(f"expected {len(self._tables_of)} frames in the pool, got {self._num_frames}")
        device = self._words.device
        tables = torch.from_numpy(self._packer.tables()).to(device)
        # A view: a copy of the words that are used would need the memory twice.
        pool = JpegPool(self._layout, self._words[: self._num_words], self._segment_begin, self._tables_of, tables)
        if device.type != "cpu":
            self._check(pool)
        return pool

    @staticmethod
    def _check(pool: JpegPool) -> None:
        for first in range(0, len(pool), _PIECE_FRAMES):
            last = min(first + _PIECE_FRAMES, len(pool))
            _, status = decode(pool, torch.arange(first, last, device=pool.device))
            if bool(status.any()):
                bad = first + int(status.any(dim=1).int().argmax())
                raise RuntimeError(f"{pool.device} cannot decode frame {bad} of a pool that the host has decoded")


def why_not_packed(stores: Iterable[EpisodeStore], camera: str, device: torch.device) -> str | None:
    """Why the frames of a camera cannot be decoded on a device; None where they can. Looks at one frame of each store.

    Raises:
        DataError: that frame is no JPEG file.
    """
    layouts = {}
    for store in dict.fromkeys(stores):
        if store.meta.camera(camera).encoding != ENCODING:
            advice = "" if not store.meta.camera(camera).is_jpeg else ", ptr-fast repack makes a store where they are"
            return f"{store.path}: frames of camera {camera!r} are not stored as {ENCODING}{advice}"
        if store.num_records:
            try:
                layouts[store.path] = describe(store.frame_bytes(camera, 0))[0]
            except ValueError as error:
                raise DataError(f"{store.path}: camera {camera!r}, record 0: {error}") from error
    for path, layout in layouts.items():
        why_not = layout.why_not_pixels()
        if why_not is None and layout != next(iter(layouts.values())):
            why_not = f"expected {next(iter(layouts.values()))} as in {next(iter(layouts))}, got {layout}"
        if why_not is not None:
            return f"{path}: camera {camera!r}: {why_not}"
    return why_not_on(device)


def packed_frames(
    camera: str, sources: Sequence[Mapping[str, FrameSource]], records: Sequence[np.ndarray], device: torch.device
) -> JpegPool:
    """The frames of a camera in a pool on the device, those of each source behind each other.

    Args:
        sources: one mapping for all tables of a store: a mapping that comes again is not packed again.
        records: of each source.

    Raises:
        ValueError: a source that is not of JPEG files.
        DataError: a file that cannot be packed; the message names store, camera and record.
    """
    pieces: list[tuple[JpegFrames, np.ndarray]] = []
    seen: set[int] = set()
    for by_camera, mine in zip(sources, records, strict=True):
        if id(by_camera) in seen:
            continue
        seen.add(id(by_camera))
        source = by_camera[camera]
        if not isinstance(source, JpegFrames):
            raise ValueError(f"camera {camera!r}: expected frames that are JPEG files, got {type(source).__name__}")
        pieces += [(source, mine[first : first + _PIECE_FRAMES]) for first in range(0, len(mine), _PIECE_FRAMES)]
    source, first_piece = pieces[0]
    with source.naming(first_piece[:1]):
        layout, _ = describe(source.encoded(first_piece[:1])[0])
    max_bytes = 0
    for source, piece in pieces:
        with source.naming(piece):
            max_bytes += PoolWriter.max_bytes(layout, source.encoded(piece))
    writer = PoolWriter(layout, sum(len(piece) for _, piece in pieces), max_bytes, device)
    for source, piece in pieces:
        with source.naming(piece):
            writer.add(source.encoded(piece), torch.get_num_threads())
    return writer.finish()
