"""How the CUDA kernels of group_norm_act lay every norm of the nets over a GPU, and what has to move; no GPU is needed.

    python -m benchmarks.group_norm_blocks [--architecture 90] [--batch 256] [--dtype bfloat16] [--gbps 3000]

For each norm, forward and backward: bytes that have to move; those over the bandwidth; pixels and channels of a block
(and the blocks of a cluster); its shared memory, the blocks that a multiprocessor holds at once, and how often all
multiprocessors are filled.
"""

from __future__ import annotations

import argparse
from collections import Counter
from collections.abc import Iterator
from typing import Any

import torch

from ptr_fast.config import EncoderConfig
from ptr_fast.kernels.group_norm_act.blocks import DEVICES, Kind, plan
from ptr_fast.nets.encoders import make_encoder
from ptr_fast.nets.layers import GroupNormAct, GroupNormActPool
from ptr_fast.types import CameraSpec

__all__ = ["ENCODERS", "Norm", "norms_of", "num_bytes"]

ENCODERS = ("resnet18", "resnet34", "resnet50", "conv3")
# (channels, height, width), groups, "none", "add", "norm" (what the residual is) or "pool"
Norm = tuple[tuple[int, int, int], int, str]
_KINDS: dict[str, tuple[Kind, Kind]] = {
    "none": ("forward", "backward"),
    "add": ("forward", "backward"),
    "norm": ("forward_norm", "backward_norm"),
    "pool": ("pool_forward", "pool_backward"),
}


def norms_of(encoder: str, size: int) -> Counter[Norm]:
    """The norms of an encoder on frames of ``size`` x ``size`` pixels, and how often each is run in a forward pass."""
    found: Counter[Norm] = Counter()

    def note(module: torch.nn.Module, args: tuple[Any, ...], options: dict[str, Any]) -> None:
        x, residual, residual_norm = (*args, None, None, None)[:3]
        residual, residual_norm = options.get("residual", residual), options.get("residual_norm", residual_norm)
        branch = "norm" if residual_norm is not None else "add" if residual is not None else "none"
        branch = "pool" if isinstance(module, GroupNormActPool) else branch
        found[tuple(x.shape[1:]), module.num_groups, branch] += 1  # type: ignore[index]

    with torch.device("meta"):
        camera = CameraSpec(name="image", height=size, width=size)
        net = make_encoder(EncoderConfig(name=encoder), (camera,))  # type: ignore[arg-type]
        for module in net.modules():
            if isinstance(module, GroupNormAct):
                module.register_forward_pre_hook(note, with_kwargs=True)
        net.trunk(torch.empty(1, 3, size, size))  # type: ignore[operator]
    return found


def num_bytes(branch: str, itemsize: int, size: int) -> tuple[int, int]:
    """That a forward and a backward pass of ``size`` elements have to move."""
    image = size * itemsize
    kept = image // 16  # a byte for every 16: the mask
    if branch == "pool":
        taps = image // 4 // 4  # a word for every 16 bytes of the pooled pixels
        return image + image // 4 + taps, 2 * image + image // 4 + taps
    if branch == "none":
        return 2 * image, 3 * image
    return 3 * image + kept, (4 if branch == "add" else 5) * image + kept


def _rows(batch: int, dtype: torch.dtype, architecture: int, gbps: float) -> Iterator[list[str]]:
    limits = DEVICES[architecture]
    norms = sorted({norm for encoder in ENCODERS for size in (64, 128) for norm in norms_of(encoder, size)})
    for (channels, height, width), groups, branch in norms:
        row = [f"{height}x{width}x{channels}", branch]
        moved = num_bytes(branch, dtype.itemsize, batch * channels * height * width)
        for kind, size in zip(_KINDS[branch], moved, strict=True):
            row += [f"{size / 1e6:.1f}", f"{size / gbps / 1e3:.1f}"]
            blocks = plan(kind, dtype.itemsize, batch, (height, width), channels, groups, limits)
            if isinstance(blocks, str):
                row += [blocks, ""]
                continue
            waves = blocks.num_blocks / (limits.num_multiprocessors * blocks.resident)
            row.append(f"{blocks.pixels}x{blocks.width}" + f" of {blocks.cluster}" * (blocks.cluster > 1))
            row.append(f"{blocks.shared_bytes / 1024:.0f}, {blocks.resident}, {waves:.1f}")
        yield row


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--architecture", type=int, choices=list(DEVICES), default=90)
    parser.add_argument("--batch", type=int, default=256)
    parser.add_argument("--dtype", choices=["bfloat16", "float32"], default="bfloat16")
    parser.add_argument("--gbps", type=float, default=3000.0, help="of a copy on that GPU, GB/s")
    args = parser.parse_args()
    each = ("MB", "floor us", "block", "KiB, resident, waves")
    titles = ("image", "residual", *(f"forward {title}" for title in each), *(f"backward {title}" for title in each))
    print("| " + " | ".join(titles) + " |\n" + "|---" * len(titles) + "|")
    for row in _rows(args.batch, getattr(torch, args.dtype), args.architecture, args.gbps):
        print("| " + " | ".join(row) + " |")


if __name__ == "__main__":
    main()
