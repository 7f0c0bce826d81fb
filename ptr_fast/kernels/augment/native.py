"""augment by csrc/kernels/augment: CPU."""

from __future__ import annotations

import torch
from torch.utils.dlpack import to_dlpack

from ptr_fast import native
from ptr_fast.kernels.augment.parameters import AugmentParams
from ptr_fast.kernels.augment.yuv420 import frame_size

__all__ = ["augment", "supports"]


def supports(images: torch.Tensor, index_B: torch.Tensor | None, dtype: torch.dtype) -> str | None:
    """None where the native kernel can run, else why not."""
    if native.module() is None:
        return native.why_missing()
    if images.device.type != "cpu":
        return f"images are on {images.device.type}, the native kernel is for the CPU"
    if dtype not in (torch.float32, torch.bfloat16):
        return f"{str(dtype).removeprefix('torch.')} is wanted, the native kernel gives float32 or bfloat16"
    if not images.is_contiguous():
        return f"images have strides {tuple(images.stride())}, the native kernel is for contiguous ones"
    if images.numel() == 0:
        return "there are no images"
    return None


def augment(
    images: torch.Tensor, params: AugmentParams | None, dtype: torch.dtype, index_B: torch.Tensor | None = None
) -> torch.Tensor:
    """See :func:`ptr_fast.kernels.augment.augment`."""
    num_images = images.shape[0] if index_B is None else index_B.shape[0]
    out_BHWC = torch.empty((num_images, *frame_size(images), 3), dtype=dtype)
    offsets = jitter = None
    if params is not None and params.crop_offsets is not None:
        offsets = to_dlpack(params.crop_offsets.to(torch.int64).contiguous())
    if params is not None and params.jitter is not None:
        jitter = tuple(to_dlpack(tensor) for tensor in params.jitter.dense())
    native.require().augment(
        to_dlpack(images),
        None if index_B is None else to_dlpack(index_B.contiguous()),
        offsets,
        0 if params is None else params.crop_padding,
        jitter,
        to_dlpack(out_BHWC),
        torch.get_num_threads(),
    )
    return out_BHWC.permute(0, 3, 1, 2)
