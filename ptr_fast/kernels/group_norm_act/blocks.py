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

__all__ = ["DEVICES", "Blocks", "DeviceLimits", "Kind", "plan", "shared_bytes"]

Kind = Literal["forward", "forward_norm", "backward", "backward_norm", "pool_forward", "pool_backward"]

# Tensors of x's shape that stay in shared memory. An added residual is read when it is needed, once.
_SLABS: dict[str, int] = {
    "forward": 1,
    "forward_norm": 2,
    "backward": 2,
    "backward_norm": 3,
    "pool_forward": 1,
    "pool_backward": 1,
}
_VECTOR_BYTES = 16  # what a thread loads and stores at once
_MIN_ROW_BYTES = 128  # of a pixel's neighbouring channels: a line of the caches
_MIN_SHARE_BYTES = 8 * 1024  # of a slab: a block that holds less is not worth its barriers
_RESERVED_BYTES = 1024  # of the multiprocessor's shared memory, for every block
_CLUSTERS = (1, 2, 4, 8)  # more than 8 is not portable


@dataclass(frozen=True, kw_only=True)
class DeviceLimits:
    """What a GPU gives.

    Attributes:
        num_multiprocessors: of them.
        block_bytes: shared memory that a block may have at most.
        multiprocessor_bytes: shared memory of a multiprocessor, which its blocks share.
        max_threads: threads that a multiprocessor holds.
        max_cluster: blocks of a cluster; 1 before compute capability 9.0.
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
        num_threads: of a block.
        shared_bytes: of a block.
        num_blocks: of the grid.
        resident: blocks that a multiprocessor holds at once, by their shared memory and their threads.
    """

    width: int
    cluster: int
    pixels: int
    num_threads: int
    shared_bytes: int
    num_blocks: int
    resident: int


def shared_bytes(kind: Kind, itemsize: int, size: tuple[int, int], width: int, pixels: int, num_threads: int) -> int:
    """Shared memory of a block, in bytes: the layout that csrc/kernels/group_norm_act_block.h takes.

    Args:
        kind: of the kernel.
        itemsize: of an element of x.
        size: height and width of an image, pixels.
        width, pixels, num_threads: see :class:`Blocks`.
    """
    vector = _VECTOR_BYTES // itemsize
    slabs = _SLABS[kind] * pixels
    if kind == "pool_forward":
        slabs += size[1]  # the first row of the next block's pixels
    total = slabs * width * itemsize
    if kind == "pool_backward":
        windows = (pixels // (2 * size[1]) + 1) * ((size[1] + 1) // 2)  # and a row of the block before or behind
        total += windows * width * (itemsize + 1)
    if kind.endswith("backward") or kind == "backward_norm":
        sums = 3 if kind == "backward_norm" else 2
        # One sum of every thread's channels at a time; the block's and the cluster's sums; means of a group.
        scratch = num_threads * vector + 2 * sums * width + sums * width
    else:
        norms = 2 if kind == "forward_norm" else 1
        # A sum of every thread; the block's moments; the cluster's.
        scratch = norms * (num_threads + 4 * width)
    return total + 4 * scratch


@functools.cache
def plan(
    kind: Kind, itemsize: int, num_images: int, size: tuple[int, int], channels: int, groups: int, limits: DeviceLimits
) -> Blocks | str:
    """The launch for tensors ``[num_images, channels, *size]`` of elements of ``itemsize`` bytes, or why there is none.

    Two blocks a multiprocessor at least where a cluster of any size allows that, else one; the smallest cluster, then
    the widest rows. Where that leaves multiprocessors without work, narrower and smaller shares.
    """
    per_group, vector = channels // groups, _VECTOR_BYTES // itemsize
    if per_group % vector:
        return f"a group has {per_group} channels, the CUDA kernels take multiples of {vector}"
    widths = [per_group * n for n in range(groups, 0, -1) if groups % n == 0]
    full = [width for width in widths if width * itemsize >= _MIN_ROW_BYTES] or widths[:1]
    clusters = [cluster for cluster in _CLUSTERS if cluster <= limits.max_cluster]
    made = [
        blocks
        for cluster in clusters
        for width in full
        if (blocks := _blocks(kind, itemsize, num_images, size, channels, width, cluster, limits)) is not None
    ]
    if not made:
        return f"a slab of {size[0]}x{size[1]}x{per_group} does not fit the shared memory of {clusters[-1]} blocks"
    chosen = next((blocks for blocks in made if blocks.resident >= 2), made[-1])
    wanted = 2 * limits.num_multiprocessors
    for blocks in made:  # in the order of their numbers of blocks, nearly
        smaller = blocks.cluster >= chosen.cluster and blocks.width <= chosen.width
        enough = blocks.pixels * blocks.width * itemsize >= _MIN_SHARE_BYTES
        if chosen.num_blocks < wanted and smaller and enough and blocks.num_blocks > chosen.num_blocks:
            chosen = blocks
    return chosen


def _blocks(
    kind: Kind,
    itemsize: int,
    num_images: int,
    size: tuple[int, int],
    channels: int,
    width: int,
    cluster: int,
    limits: DeviceLimits,
) -> Blocks | None:
    if kind.startswith("pool"):
        pairs = -(-size[0] // 2)
        pixels = 2 * -(-pairs // cluster) * size[1]
        if (cluster - 1) * pixels >= size[0] * size[1]:
            return None  # a block without a row
    else:
        pixels = -(-size[0] * size[1] // cluster)
        if (cluster - 1) * pixels >= size[0] * size[1]:
            return None
    vectors = width * itemsize // _VECTOR_BYTES
    for num_threads in (256, 512):
        if vectors > num_threads:
            continue
        shared = shared_bytes(kind, itemsize, size, width, pixels, num_threads)
        if shared > limits.block_bytes:
            return None
        resident = limits.multiprocessor_bytes // (shared + _RESERVED_BYTES)
        if num_threads == 256 and resident < 3 and pixels * vectors >= 8 * 512:
            continue  # more threads where there are few blocks, and work for them
        return Blocks(
            width=width,
            cluster=cluster,
            pixels=pixels,
            num_threads=num_threads,
            shared_bytes=shared,
            num_blocks=num_images * channels // width * cluster,
            resident=min(resident, limits.max_threads // num_threads),
        )
    return None
