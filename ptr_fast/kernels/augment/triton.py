"""augment in Triton: one program per image (jitter), or per block of an image's values (no jitter).

A contrast needs the mean of the image as the operations before it leave it. The image is therefore read twice: the
first time the operations before the contrast only add up the mean, the second time all four run. What is read again
comes from the cache, and operations are cheaper than memory; the branches on an image's own order cost nothing, since
all threads of a program take the same.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl

from ptr_fast.kernels.augment.parameters import AugmentParams
from ptr_fast.kernels.augment.yuv420 import frame_size

__all__ = ["augment", "supports"]

_SCALE_BLOCK, _SCALE_WARPS = 2048, 4
_MAX_BLOCKS = 65_535  # of a grid's second axis


def _launch(num_pixels: int) -> tuple[int, int]:
    """Pixels at a time, and warps, of a program that jitters an image. Chosen by hand, not measured."""
    return (1024, 8) if num_pixels <= 128 * 128 else (2048, 16)


def supports(images: torch.Tensor, index_B: torch.Tensor | None, dtype: torch.dtype) -> str | None:
    """None where the kernels can run on tensors of this device, else why not."""
    if dtype not in (torch.float32, torch.bfloat16):
        return f"{str(dtype).removeprefix('torch.')} is wanted, the Triton kernel gives float32 or bfloat16"
    if not images.is_contiguous():
        return f"images have strides {tuple(images.stride())}, the Triton kernel is for contiguous ones"
    if images.numel() == 0:
        return "there are no images"
    height, width = frame_size(images)
    if 3 * height * width > _MAX_BLOCKS * _SCALE_BLOCK:
        return f"an image has more than {_MAX_BLOCKS * _SCALE_BLOCK} values"
    return None


@triton.jit
def _frame(index_ptr, image, num_frames, HAS_INDEX: tl.constexpr):
    """Number of the frame behind an image: where an index is out of range, the nearest."""
    if HAS_INDEX:
        frame = tl.load(index_ptr + image)
        frame = tl.minimum(tl.maximum(frame, 0), num_frames - 1)
    else:
        frame = image.to(tl.int64)
    return frame


@triton.jit
def _shift(offsets_ptr, image, axis: tl.constexpr, padding, HAS_CROP: tl.constexpr):
    """Rows or columns from a pixel of the result to that of the frame."""
    if HAS_CROP:
        shift = tl.load(offsets_ptr + 2 * image + axis).to(tl.int32) - padding
    else:
        shift = image * 0
    return shift


@triton.jit
def _clip(x):
    return tl.minimum(tl.maximum(x, 0.0), 255.0)


@triton.jit
def _chroma(plane_ptr, row, column, inside, H: tl.constexpr, W: tl.constexpr):
    """A colour difference at pixels of the frame, of a plane of H x W samples; see yuv420.py."""
    y = row >> 1
    x = column >> 1
    next_y = tl.minimum(tl.maximum(y + 2 * (row & 1) - 1, 0), H - 1)
    next_x = tl.minimum(tl.maximum(x + 2 * (column & 1) - 1, 0), W - 1)
    near = 3 * tl.load(plane_ptr + y * W + x, mask=inside, other=0).to(tl.int32)
    near += tl.load(plane_ptr + next_y * W + x, mask=inside, other=0).to(tl.int32)
    far = 3 * tl.load(plane_ptr + y * W + next_x, mask=inside, other=0).to(tl.int32)
    far += tl.load(plane_ptr + next_y * W + next_x, mask=inside, other=0).to(tl.int32)
    return ((3 * near + far + 8 - (column & 1)) >> 4) - 128


@triton.jit
def _colours(in_ptr, pixel, down, right, inside, H: tl.constexpr, W: tl.constexpr, YUV420: tl.constexpr):
    """Red, green and blue in 0 to 255 behind pixels of the result: of the frame's nearest pixel that exists."""
    row = tl.minimum(tl.maximum(pixel // W + down, 0), H - 1)
    column = tl.minimum(tl.maximum(pixel % W + right, 0), W - 1)
    at = row * W + column
    if YUV420:
        luma = tl.load(in_ptr + at, mask=inside, other=0).to(tl.int32)
        cb = _chroma(in_ptr + H * W, row, column, inside, H // 2, W // 2)
        cr = _chroma(in_ptr + H * W + (H // 2) * (W // 2), row, column, inside, H // 2, W // 2)
        r = _clip((luma + ((91881 * cr + 32768) >> 16)).to(tl.float32))
        g = _clip((luma + ((-22554 * cb - 46802 * cr + 32768) >> 16)).to(tl.float32))
        b = _clip((luma + ((116130 * cb + 32768) >> 16)).to(tl.float32))
    else:
        r = tl.load(in_ptr + 3 * at, mask=inside, other=0).to(tl.float32)
        g = tl.load(in_ptr + 3 * at + 1, mask=inside, other=0).to(tl.float32)
        b = tl.load(in_ptr + 3 * at + 2, mask=inside, other=0).to(tl.float32)
    return r, g, b


@triton.jit
def _saturation(r, g, b, factor):
    """Note "Saturation and hue without a round trip" in planar.py; colours in 0 to 255."""
    value = tl.maximum(tl.maximum(r, g), b)
    chroma = tl.maximum(value - tl.minimum(tl.minimum(r, g), b), 1e-30)
    scale = tl.minimum(value / chroma, factor)
    return _clip(value - (value - r) * scale), _clip(value - (value - g) * scale), _clip(value - (value - b) * scale)


@triton.jit
def _ramp(x):
    return tl.minimum(tl.maximum(x, 0.0), 1.0)


@triton.jit
def _hue(r, g, b, shift):
    """The same note; ``shift`` in turns."""
    value = tl.maximum(tl.maximum(r, g), b)
    low = tl.minimum(tl.minimum(r, g), b)
    chroma = value - low
    hue = tl.where(g == value, (b - r) + 2.0 * chroma, (r - g) + 4.0 * chroma)
    hue = tl.where(r == value, g - b, hue)
    hue = hue / tl.maximum(chroma, 1e-30) + 6.0 * (shift - tl.floor(shift))  # in [-1, 11)
    hue = tl.where(hue >= 6.0, hue - 6.0, hue)
    hue = tl.where(hue < 0.0, hue + 6.0, hue)
    red = low + chroma * _ramp(tl.abs(hue - 3.0) - 1.0)
    green = low + chroma * _ramp(2.0 - tl.abs(hue - 2.0))
    blue = low + chroma * _ramp(2.0 - tl.abs(hue - 4.0))
    return red, green, blue


@triton.jit
def _operate(r, g, b, operation, brightness, contrast, saturation, hue, mean_r, mean_g, mean_b):
    """One operation."""
    if operation == 0:
        r = _clip(r + 255.0 * brightness)
        g = _clip(g + 255.0 * brightness)
        b = _clip(b + 255.0 * brightness)
    elif operation == 1:
        r = _clip(r * contrast + mean_r * (1.0 - contrast))
        g = _clip(g * contrast + mean_g * (1.0 - contrast))
        b = _clip(b * contrast + mean_b * (1.0 - contrast))
    elif operation == 2:
        r, g, b = _saturation(r, g, b, saturation)
    else:
        r, g, b = _hue(r, g, b, hue)
    return r, g, b


@triton.jit
def augment_kernel(
    images_ptr, index_ptr, offsets_ptr, apply_ptr, order_ptr, brightness_ptr, contrast_ptr, saturation_ptr, hue_ptr,
    out_ptr, num_frames, padding,
    H: tl.constexpr, W: tl.constexpr, YUV420: tl.constexpr, HAS_INDEX: tl.constexpr, HAS_CROP: tl.constexpr,
    BLOCK: tl.constexpr,
):  # fmt: skip
    image = tl.program_id(0)
    pixels: tl.constexpr = H * W
    frame_bytes: tl.constexpr = pixels // 2 * 3 if YUV420 else pixels * 3
    in_ptr = images_ptr + _frame(index_ptr, image, num_frames, HAS_INDEX) * frame_bytes
    out_ptr += image.to(tl.int64) * (3 * pixels)
    down = _shift(offsets_ptr, image, 0, padding, HAS_CROP)
    right = _shift(offsets_ptr, image, 1, padding, HAS_CROP)
    changes = tl.load(apply_ptr + image) != 0
    op0 = tl.load(order_ptr + 4 * image)
    op1 = tl.load(order_ptr + 4 * image + 1)
    op2 = tl.load(order_ptr + 4 * image + 2)
    num_before = tl.where(op0 == 1, 0, tl.where(op1 == 1, 1, tl.where(op2 == 1, 2, 3)))  # operations, the contrast
    num_operations = tl.where(changes, 4, 0)
    brightness = tl.load(brightness_ptr + image)
    contrast = tl.load(contrast_ptr + image)
    saturation = tl.load(saturation_ptr + image)
    hue = tl.load(hue_ptr + image)
    mean_r = 0.0
    mean_g = 0.0
    mean_b = 0.0
    lane = tl.arange(0, BLOCK)
    if changes:
        sum_r = tl.zeros([BLOCK], dtype=tl.float32)
        sum_g = tl.zeros([BLOCK], dtype=tl.float32)
        sum_b = tl.zeros([BLOCK], dtype=tl.float32)
        for start in range(0, pixels, BLOCK):
            inside = start + lane < pixels
            r, g, b = _colours(in_ptr, start + lane, down, right, inside, H, W, YUV420)
            for k in range(0, num_before):
                operation = tl.load(order_ptr + 4 * image + k)
                r, g, b = _operate(r, g, b, operation, brightness, contrast, saturation, hue, 0.0, 0.0, 0.0)
            sum_r += tl.where(inside, r, 0.0)
            sum_g += tl.where(inside, g, 0.0)
            sum_b += tl.where(inside, b, 0.0)
        mean_r = tl.sum(sum_r, axis=0) / pixels
        mean_g = tl.sum(sum_g, axis=0) / pixels
        mean_b = tl.sum(sum_b, axis=0) / pixels
    for start in range(0, pixels, BLOCK):
        inside = start + lane < pixels
        r, g, b = _colours(in_ptr, start + lane, down, right, inside, H, W, YUV420)
        for k in range(0, num_operations):
            operation = tl.load(order_ptr + 4 * image + k)
            r, g, b = _operate(r, g, b, operation, brightness, contrast, saturation, hue, mean_r, mean_g, mean_b)
        at = out_ptr + 3 * (start + lane)
        tl.store(at, tl.div_rn(tl.floor(r), 255.0).to(out_ptr.dtype.element_ty), mask=inside)
        tl.store(at + 1, tl.div_rn(tl.floor(g), 255.0).to(out_ptr.dtype.element_ty), mask=inside)
        tl.store(at + 2, tl.div_rn(tl.floor(b), 255.0).to(out_ptr.dtype.element_ty), mask=inside)


@triton.jit
def scale_kernel(
    images_ptr, index_ptr, offsets_ptr, out_ptr, num_frames, padding,
    H: tl.constexpr, W: tl.constexpr, YUV420: tl.constexpr, HAS_INDEX: tl.constexpr, HAS_CROP: tl.constexpr,
    BLOCK: tl.constexpr,
):  # fmt: skip
    image = tl.program_id(0)
    values: tl.constexpr = 3 * H * W
    at = tl.program_id(1) * BLOCK + tl.arange(0, BLOCK)
    inside = at < values
    frame_bytes: tl.constexpr = values // 2 if YUV420 else values
    in_ptr = images_ptr + _frame(index_ptr, image, num_frames, HAS_INDEX) * frame_bytes
    if YUV420 or HAS_CROP:
        down = _shift(offsets_ptr, image, 0, padding, HAS_CROP)
        right = _shift(offsets_ptr, image, 1, padding, HAS_CROP)
        r, g, b = _colours(in_ptr, at // 3, down, right, inside, H, W, YUV420)
        x = tl.where(at % 3 == 0, r, tl.where(at % 3 == 1, g, b))
    else:
        x = tl.load(in_ptr + at, mask=inside, other=0).to(tl.float32)
    out_ptr += image.to(tl.int64) * values
    tl.store(out_ptr + at, tl.div_rn(x, 255.0).to(out_ptr.dtype.element_ty), mask=inside)


def augment(
    images: torch.Tensor, params: AugmentParams | None, dtype: torch.dtype, index_B: torch.Tensor | None = None
) -> torch.Tensor:
    """See :func:`ptr_fast.kernels.augment.augment`."""
    num_frames, (height, width) = len(images), frame_size(images)
    num_images = num_frames if index_B is None else index_B.shape[0]
    out_BHWC = torch.empty((num_images, height, width, 3), dtype=dtype, device=images.device)
    out_BCHW = out_BHWC.permute(0, 3, 1, 2)
    if num_images == 0:
        return out_BCHW
    offsets = None if params is None else params.crop_offsets
    layout = {"H": height, "W": width, "YUV420": images.dim() == 3}
    shape = {**layout, "HAS_INDEX": index_B is not None, "HAS_CROP": offsets is not None}
    frames = (
        images,
        images if index_B is None else index_B.contiguous(),
        images if offsets is None else offsets.to(torch.int64).contiguous(),
    )
    sizes = (num_frames, 0 if params is None else params.crop_padding)
    if params is None or params.jitter is None:
        grid = (num_images, triton.cdiv(3 * height * width, _SCALE_BLOCK))
        scale_kernel[grid](*frames, out_BHWC, *sizes, **shape, BLOCK=_SCALE_BLOCK, num_warps=_SCALE_WARPS)
        return out_BCHW
    block, num_warps = _launch(height * width)
    jitter = params.jitter.dense()
    augment_kernel[(num_images,)](
        *frames, jitter[0].view(torch.uint8), *jitter[1:], out_BHWC, *sizes, **shape, BLOCK=block, num_warps=num_warps
    )
    return out_BCHW
