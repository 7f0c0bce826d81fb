"""JPEG frames that lie packed on the device: decoded there, inside a captured step, to what ``augment`` reads.

There is one decoder, ``csrc/kernels/jpeg_frames.h``: of the host (tests compare it with libjpeg-turbo, byte for byte)
and of CUDA (the tests' emulator compares it with that of the host). How frames are packed is the note "packed frames"
there.

Shapes: N frames of a pool, B images, S restart segments of a frame, T sets of tables.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any, NamedTuple

import torch

from ptr_fast import native
from ptr_fast.kernels import cuda_backend
from ptr_fast.kernels.augment import yuv420

__all__ = ["JpegLayout", "JpegPool", "decode", "decode_frames", "describe", "why_not_on"]


class JpegLayout(NamedTuple):
    """What all frames of a pool share.

    Attributes:
        height, width: pixels.
        num_components: 3 (luma, Cb, Cr), or 1 (luma alone).
        horizontal, vertical: luma samples per colour sample along a row and along a column, 1 or 2.
        mcus_per_segment: from one restart marker to the next; an MCU is 8 x 8 samples of each colour.
    """

    height: int
    width: int
    num_components: int
    horizontal: int
    vertical: int
    mcus_per_segment: int

    @property
    def num_mcus(self) -> int:
        return -(-self.width // (8 * self.horizontal)) * -(-self.height // (8 * self.vertical))

    @property
    def num_segments(self) -> int:
        return -(-self.num_mcus // self.mcus_per_segment)

    @property
    def frame_bytes(self) -> int:
        """Of the planes of a frame."""
        colour = -(-self.height // self.vertical) * -(-self.width // self.horizontal)
        return self.height * self.width + (self.num_components - 1) * colour

    def why_not_pixels(self) -> str | None:
        """Why :func:`decode_frames` cannot make frames of it; None where it can."""
        if self.num_components != 3:
            return "its frames are grey"
        if (self.horizontal, self.vertical) == (1, 1):
            return None
        if (self.horizontal, self.vertical) != (2, 2):
            return "its colours are sampled as neither 4:4:4 nor 4:2:0"
        if self.height % 2 or self.width % 2:
            return f"its colours are sampled as 4:2:0, and {self.height}x{self.width} pixels are an odd number"
        return None


def describe(data: Any) -> tuple[JpegLayout, bool]:
    """Layout of a JPEG file, from its headers, and whether it has standard tables and a restart after each MCU row.

    Raises:
        ValueError: it is no baseline JPEG; one sentence says what it is.
        RuntimeError: there is no native module.
    """
    layout, is_restart = native.require().jpeg_describe(data)
    return JpegLayout(*layout), is_restart


@dataclass(frozen=True)
class JpegPool:
    """Packed frames of one layout, all tensors on one device.

    Attributes:
        layout: of every frame.
        words: int32 ``[...]``, the bits of all segments.
        segment_begin: int64 ``[N * S + 1]``, first word of each segment, and the end.
        tables_of: uint8 ``[N]``, which set of tables a frame has.
        tables: int32 ``[T, ...]``.
    """

    layout: JpegLayout
    words: torch.Tensor
    segment_begin: torch.Tensor
    tables_of: torch.Tensor
    tables: torch.Tensor

    def __len__(self) -> int:
        return len(self.tables_of)

    @property
    def device(self) -> torch.device:
        return self.words.device

    @property
    def nbytes(self) -> int:
        return sum(t.nbytes for t in (self.words, self.segment_begin, self.tables_of, self.tables))

    @cached_property
    def on_host(self) -> Any:
        """The native module's view of a pool on the CPU."""
        arrays = (self.words, self.segment_begin, self.tables_of, self.tables)
        return native.require().JpegPool(tuple(self.layout), *(t.numpy() for t in arrays))


def why_not_on(device: torch.device) -> str | None:
    """Why frames cannot be decoded on a device; None where they can."""
    return native.why_missing() if device.type == "cpu" else cuda_backend.why_not_cuda(device)


def decode(pool: JpegPool, index_B: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Planes of frames of a pool. On a GPU nothing is read back: an index out of range is the nearest frame's.

    Args:
        index_B: int64 ``[B]`` on the pool's device.

    Returns:
        uint8 ``[B, layout.frame_bytes]``: luma, Cb and Cr, row by row, as libjpeg-turbo decodes them; and int32
        ``[B, S]``, 0 of a segment that is whole (see ``JpegStatus`` of the decoder; its samples are then undefined).

    Raises:
        ValueError: an index of another dtype, shape or device.
        RuntimeError: the device cannot be used, see :func:`why_not_on`.
    """
    if index_B.dtype != torch.int64 or index_B.dim() != 1 or index_B.device != pool.device:
        got = f"{index_B.dtype} {tuple(index_B.shape)} on {index_B.device}"
        raise ValueError(f"jpeg_frames: expected index int64 [B] on {pool.device}, got {got}")
    why_not = why_not_on(pool.device)
    if why_not is not None:
        raise RuntimeError(f"jpeg_frames: {why_not}")
    num_images, layout = len(index_B), pool.layout
    planes = torch.empty((num_images, layout.frame_bytes), dtype=torch.uint8, device=pool.device)
    status = torch.empty((num_images, layout.num_segments), dtype=torch.int32, device=pool.device)
    index_B = index_B.contiguous()
    if pool.device.type == "cpu":
        pool.on_host.decode(index_B.numpy(), planes.numpy(), status.numpy(), torch.get_num_threads())
    else:
        _decode_cuda(pool, index_B, planes, status)
    return planes, status


def decode_frames(pool: JpegPool, index_B: torch.Tensor) -> torch.Tensor:
    """Frames of a pool as ``augment`` reads them.

    They have the pixels that libjpeg-turbo decodes, bit by bit (its default transform, upsampling and colours).

    Returns:
        Of 4:2:0 uint8 ``[B, 3 * H / 2, W]`` planes (:mod:`ptr_fast.kernels.augment.yuv420`), of 4:4:4 uint8
        ``[B, H, W, 3]`` RGB.

    Raises:
        ValueError: the layout is neither (:meth:`JpegLayout.why_not_pixels`), or as :func:`decode`.
    """
    layout = pool.layout
    why_not = layout.why_not_pixels()
    if why_not is not None:
        raise ValueError(f"jpeg_frames: {why_not}")
    planes, _ = decode(pool, index_B)
    if layout.vertical == 2:
        return planes.view(len(index_B), layout.height // 2 * 3, layout.width)
    return yuv420.rgb_of_samples(*planes.view(len(index_B), 3, layout.height, layout.width).unbind(1))


def _decode_cuda(pool: JpegPool, index_B: torch.Tensor, planes: torch.Tensor, status: torch.Tensor) -> None:
    tensors = {
        "words": pool.words,
        "segment_begin": pool.segment_begin,
        "tables_of": pool.tables_of,
        "tables": pool.tables,
        "index": index_B,
        "planes": planes,
        "status": status,
    }
    call = {
        "layout": tuple(pool.layout),
        "num_frames": len(pool),
        "num_words": pool.words.numel(),
        "num_table_words": pool.tables.numel(),
        "num_images": len(index_B),
        **{name: tensor.data_ptr() for name, tensor in tensors.items()},
    }
    with torch.cuda.device(pool.device):
        native.require().jpeg_frames_cuda(call, cuda_backend.stream(pool.device))
