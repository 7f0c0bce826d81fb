"""How the CUDA kernels that normalise lay slabs over blocks of threads: plain arithmetic, no GPU is asked.

A block owns a rectangle of one image: some whole groups of channels at some neighbouring pixels, which stays in its
shared memory. A cluster of blocks shares the pixels of the same channels and exchanges sums. What one may want is a
matter of four numbers of the device, so the choice for a GPU that is not here can be printed and tested.

Nothing here has been measured on a GPU yet.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass
from typing import Literal

import torch

from ptr_fast import native

__all__ = ["DEVICES", "NUM_THREADS", "Blocks", "DeviceLimits", "Kind", "limits_of", "plan", "shared_bytes"]

Kind = Literal["forward", "forward_norm", "backward", "backward_norm", "pool_forward", "pool_backward"]

NUM_THREADS = 256  # of a block
_VECTOR_BYTES = 16  # what a thread loads and stores at once
_MIN_ROW_BYTES = 128  # of a pixel's neighbouring channels: a line of the caches
_MIN_SHARE_BYTES = 8 * 1024  # of a slab: a block that holds less is not worth its barriers
_RESERVED_BYTES = 1024 + 128  # of a multiprocessor's shared memory, for every block; barriers of the block
_REGISTERS, _REGISTERS_OF_THREAD = 65536, 80  # of a multiprocessor; of all kernels but two of sm_100 and sm_120 (88)
_CLUSTERS = (1, 2, 4, 8)  # more than 8 is not portable


@dataclass(frozen=True, kw_only=True)
class DeviceLimits:
    """What a GPU gives.

    Attributes:
        num_multiprocessors: of them.
        block_bytes: shared memory that a block may have at most.
        multiprocessor_bytes: shared memory of a multiprocessor, which its blocks share.
        max_threads: threads that a multiprocessor holds.
        max_cluster: blocks of a cluster; 1 before compute capability 9.0, of the GPU or of the code that it runs.
    """

    num_multiprocessors: int
    block_bytes: int
    multiprocessor_bytes: int
    max_threads: int
    max_cluster: int


# By architecture, from the programming guide's table of compute capabilities; the count of a common card.
DEVICES = {
    80: DeviceLimits(
        num_multiprocessors=108, block_bytes=163 << 10, multiprocessor_bytes=164 << 10, max_threads=2048, max_cluster=1
    ),
    90: DeviceLimits(
        num_multiprocessors=132, block_bytes=227 << 10, multiprocessor_bytes=228 << 10, max_threads=2048, max_cluster=8
    ),
    100: DeviceLimits(
        num_multiprocessors=148, block_bytes=227 << 10, multiprocessor_bytes=228 << 10, max_threads=2048, max_cluster=8
    ),
    120: DeviceLimits(
        num_multiprocessors=170, block_bytes=99 << 10, multiprocessor_bytes=100 << 10, max_threads=1536, max_cluster=8
    ),
}


@dataclass(frozen=True, kw_only=True)
class Blocks:
    """One launch.

    Attributes:
        width: channels of a block, whole groups.
        cluster: blocks that share the pixels of an image's channels.
        pixels: pixels of a block; the last one of a cluster may have fewer. Pool: whole pairs of rows.
        shared_bytes: shared memory of a block.
        num_blocks: of the grid.
        resident: blocks that a multiprocessor holds at once, by their shared memory, threads and registers.
    """

    width: int
    cluster: int
    pixels: int
    shared_bytes: int
    num_blocks: int
    resident: int


@functools.cache
def limits_of(device: torch.device) -> DeviceLimits:
    """Of a GPU that is here."""
    found = torch.cuda.get_device_properties(device)
    # A GPU newer than the whole build runs the newest code of it, which may be from before there were clusters.
    newest = max(int(each) for each in native.build_info()["cuda_architectures"].split())
    return DeviceLimits(
        num_multiprocessors=found.multi_processor_count,
        block_bytes=found.shared_memory_per_multiprocessor - 1024,  # what the system keeps for a block
        multiprocessor_bytes=found.shared_memory_per_multiprocessor,
        max_threads=found.max_threads_per_multi_processor,
        max_cluster=8 if found.major >= 9 and newest >= 90 else 1,
    )


@functools.cache
def plan(
    kind: Kind, itemsize: int, num_images: int, size: tuple[int, int], channels: int, groups: int, limits: DeviceLimits
) -> Blocks | str:
    """The launch for tensors ``[num_images, channels, *size]`` of elements of ``itemsize`` bytes, or why there is none.

    Two blocks a multiprocessor at least where a cluster of any size allows that, else one; the smallest cluster, then
    the widest rows. Where that leaves multiprocessors without work (acting: one image), narrower and smaller shares.
    """
    per_group, vector = channels // groups, _VECTOR_BYTES // itemsize
    if per_group % vector:
        return f"a group has {per_group} channels, the CUDA kernels take multiples of {vector}"
    widths = [per_group * n for n in range(groups, 0, -1) if groups % n == 0]
    clusters = [cluster for cluster in _CLUSTERS if cluster <= limits.max_cluster]
    made = [
        blocks
        for cluster in clusters
        for width in widths
        if (blocks := _blocks(kind, itemsize, num_images, size, channels, groups, width, cluster, limits))
    ]
    if not made:
        return f"{size[0]}x{size[1]} pixels of {widths[-1]} channels do not fit the shared memory of " + (
            "a block here" if clusters[-1] == 1 else f"a cluster of {clusters[-1]} blocks here"
        )
    # Rows of whole cache lines are worth more than a smaller cluster, two blocks a multiprocessor more than either.
    whole = [blocks for blocks in made if blocks.width * itemsize >= _MIN_ROW_BYTES or blocks.width == channels]
    chosen = next((blocks for blocks in (*whole, *made) if blocks.resident >= 2), (whole or made)[-1])
    # Wider and in smaller clusters first; narrow rows only where there is not one block a multiprocessor.
    for candidates, wanted in ((whole, 2 * limits.num_multiprocessors), (made, limits.num_multiprocessors)):
        for blocks in candidates:
            smaller = blocks.width <= chosen.width and blocks.cluster >= chosen.cluster and blocks != chosen
            worthwhile = blocks.pixels * blocks.width * itemsize >= _MIN_SHARE_BYTES
            if chosen.num_blocks < wanted and smaller and worthwhile:
                chosen = blocks
    return chosen


def _blocks(
    kind: Kind,
    itemsize: int,
    num_images: int,
    size: tuple[int, int],
    channels: int,
    groups: int,
    width: int,
    cluster: int,
    limits: DeviceLimits,
) -> Blocks | None:
    rows = size[1] * 2 if kind.startswith("pool") else 1  # what a share is made of, pixels
    shares = -(-size[0] * size[1] // rows)
    pixels = -(-shares // cluster) * rows
    idle = (cluster - 1) * pixels >= size[0] * size[1]
    shared = shared_bytes(kind, itemsize, size, width, width * groups // channels, pixels)
    if idle or width * itemsize // _VECTOR_BYTES > NUM_THREADS or shared + 128 > limits.block_bytes:
        return None
    return Blocks(
        width=width,
        cluster=cluster,
        pixels=pixels,
        shared_bytes=shared,
        num_blocks=num_images * (channels // width) * cluster,
        resident=min(
            limits.multiprocessor_bytes // (shared + _RESERVED_BYTES),
            limits.max_threads // NUM_THREADS,
            _REGISTERS // (_REGISTERS_OF_THREAD * NUM_THREADS),
        ),
    )


def shared_bytes(kind: Kind, itemsize: int, size: tuple[int, int], width: int, groups: int, pixels: int) -> int:
    """Shared memory of a block, in bytes: the same sum as ``shared_bytes()`` in csrc/kernels/group_norm_act*_block.h.

    Args:
        kind: of the kernel.
        itemsize: of an element of x.
        size: height and width of an image, pixels.
        width, groups, pixels: channels, groups and pixels of a block.
    """
    vector = _VECTOR_BYTES // itemsize
    norms = 2 if kind.endswith("norm") else 1
    held = pixels + size[1] if kind == "pool_forward" else pixels  # with a row of a neighbour's
    if kind.endswith("forward") or kind == "forward_norm":
        total = norms * _array(held * width * itemsize)
        return total + _array(4 * norms * NUM_THREADS) + 2 * _array(4 * 2 * norms * groups)
    total = _array(held * width * itemsize) * (1 if kind == "pool_backward" else 1 + norms)
    if kind == "pool_backward":
        windows = (pixels // (2 * size[1]) + 1) * ((size[1] + 1) // 2)  # and a row of a neighbour's
        total += _array(windows * width * itemsize) + _array(windows * (width // vector) * 4)
    sums = 1 + norms
    return total + _array(4 * NUM_THREADS * vector) + 2 * _array(4 * sums * width) + _array(4 * 2 * norms * groups)


def _array(num_bytes: int) -> int:
    """What an array takes of shared memory."""
    return -(-num_bytes // 128) * 128
