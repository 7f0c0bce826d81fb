"""Frames as YUV 4:2:0 planes, 1.5 bytes a pixel: colour conversion and subsampling, the one definition of both ways.

Layout (I420, as OpenCV's): uint8 ``[N, 3 * H / 2, W]`` with H and W even: H rows of luma, then the plane of Cb and that
of Cr, ``[H / 2, W / 2]`` each, laid end to end.

Colours are JFIF's: ITU-R BT.601 in full range. A sample of chroma lies in the middle of its 2 x 2 pixels, and pixels
are made of samples by a triangle: 3/4 of the nearest and 1/4 of the next nearest one along each axis, the edge
repeated. :func:`decode` is libjpeg's arithmetic in whole numbers, bit by bit (``jdsample.c`` h2v2_fancy_upsample,
``jdcolor.c`` ycc_rgb_convert), so that every implementation gives the same bytes. :func:`encode` looks for the chroma
that :func:`decode` brings nearest to the image, where libjpeg's encoder averages: of an image that a 4:2:0 JPEG holds,
that finds the samples in the JPEG again (55 dB on Bridge's frames; the average gives 42, and 39 without the triangle).

Shapes: N or B images, H x W pixels.
"""

from __future__ import annotations

import torch

__all__ = ["decode", "encode", "frame_size", "rgb_frames", "rgb_of_samples"]

_STEPS = 4  # of the search for chroma; a fifth changes nothing that 8 bits hold


def frame_size(images: torch.Tensor) -> tuple[int, int]:
    """Height and width of frames, RGB ``[N, H, W, 3]`` or planes ``[N, 3 * H / 2, W]``.

    Raises:
        ValueError: it is neither.
    """
    if images.dtype == torch.uint8 and images.dim() == 4 and images.shape[3] == 3:
        return images.shape[1], images.shape[2]
    if images.dtype == torch.uint8 and images.dim() == 3 and images.shape[1] % 3 == 0 and images.shape[2] % 2 == 0:
        return images.shape[1] // 3 * 2, images.shape[2]
    raise ValueError(
        "augment: expected uint8 images, RGB [N, H, W, 3] or YUV 4:2:0 planes [N, 3 * H / 2, W] with H and W even, "
        f"got {images.dtype} {tuple(images.shape)}"
    )


def rgb_frames(images: torch.Tensor, index_B: torch.Tensor | None = None) -> torch.Tensor:
    """The frames (of an index) as RGB, uint8 ``[B, H, W, 3]``."""
    frames = images if index_B is None else images[index_B]
    return decode(frames) if frames.dim() == 3 else frames


def encode(images_NHWC: torch.Tensor) -> torch.Tensor:
    """RGB, uint8 ``[N, H, W, 3]``, to planes, uint8 ``[N, 3 * H / 2, W]``; the same bits on every device.

    Raises:
        ValueError: the images are not uint8 ``[N, H, W, 3]``, or H or W is odd.
    """
    num_images, height, width = images_NHWC.shape[:3]
    if images_NHWC.dtype != torch.uint8 or images_NHWC.shape[3:] != (3,) or height % 2 or width % 2:
        raise ValueError(
            "yuv420: expected uint8 images [N, H, W, 3] of even height and width, "
            f"got {images_NHWC.dtype} {tuple(images_NHWC.shape)}"
        )
    red, green, blue = images_NHWC.to(torch.float32).unbind(-1)
    luma = red * 0.299 + green * 0.587 + blue * 0.114
    planes = [luma]
    for full in ((blue - luma) * (0.5 / 0.886) + 128.0, (red - luma) * (0.5 / 0.701) + 128.0):
        chroma = _average(full)
        for _ in range(_STEPS):
            chroma = chroma + _average(full - _upsampled_16(chroma) / 16.0)
        planes.append(chroma)
    # Half-way cases up, as libjpeg does.
    rounded = [(plane + 0.5).floor().clamp(0.0, 255.0).to(torch.uint8).flatten(1) for plane in planes]
    return torch.cat(rounded, dim=1).view(num_images, height // 2 * 3, width)


def decode(planes_NRW: torch.Tensor) -> torch.Tensor:
    """Planes, uint8 ``[N, 3 * H / 2, W]``, to RGB, uint8 ``[N, H, W, 3]``."""
    num_images, (height, width) = len(planes_NRW), frame_size(planes_NRW)
    luma = planes_NRW[:, :height].to(torch.int32)
    chroma = planes_NRW[:, height:].reshape(num_images, 2, height // 2, width // 2).to(torch.int32)
    rounding = 8 - (torch.arange(width, dtype=torch.int32, device=planes_NRW.device) & 1)
    cb, cr = ((_upsampled_16(plane) + rounding) >> 4 for plane in chroma.unbind(1))
    return rgb_of_samples(luma, cb, cr)


def rgb_of_samples(luma: torch.Tensor, cb: torch.Tensor, cr: torch.Tensor) -> torch.Tensor:
    """Luma and colours of the same shape, integers in 0 to 255, to RGB, uint8 with a last axis of 3; libjpeg's rule."""
    luma, cb, cr = luma.to(torch.int32), cb.to(torch.int32) - 128, cr.to(torch.int32) - 128
    red = luma + ((91881 * cr + 32768) >> 16)
    green = luma + ((-22554 * cb - 46802 * cr + 32768) >> 16)
    blue = luma + ((116130 * cb + 32768) >> 16)
    return torch.stack([red, green, blue], dim=-1).clamp_(0, 255).to(torch.uint8)


def _average(plane_NHW: torch.Tensor) -> torch.Tensor:
    rows = plane_NHW[:, 0::2] + plane_NHW[:, 1::2]
    return (rows[:, :, 0::2] + rows[:, :, 1::2]) * 0.25


def _upsampled_16(plane_NHW: torch.Tensor) -> torch.Tensor:
    """Twice as high and as wide, times 16."""
    return _triangle(_triangle(plane_NHW, 1), 2)


def _triangle(plane_NHW: torch.Tensor, dim: int) -> torch.Tensor:
    """Twice as long in one dimension, times 4."""
    length = plane_NHW.shape[dim]
    first, last = plane_NHW.narrow(dim, 0, 1), plane_NHW.narrow(dim, length - 1, 1)
    before = torch.cat([first, plane_NHW.narrow(dim, 0, length - 1)], dim)
    after = torch.cat([plane_NHW.narrow(dim, 1, length - 1), last], dim)
    near = plane_NHW * 3
    return torch.stack([near + before, near + after], dim + 1).flatten(dim, dim + 1)
