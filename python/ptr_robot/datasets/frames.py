"""From the image files and arrays of a source to the frames of a store."""

from __future__ import annotations

import io
from collections.abc import Sequence

import numpy as np
import simplejpeg
from PIL import Image

from ptr_fast.errors import DataError
from ptr_fast.resize import RESIZE, resize
from ptr_fast.types import CameraSpec
from ptr_robot.datasets.source import Frame

__all__ = ["camera_spec", "convert_frames", "decode_frame"]

JPEG_START, JPEG_END = b"\xff\xd8\xff", b"\xff\xd9"
TRAILER_BYTES = 64  # some cameras pad behind the end marker


def camera_spec(name: str, frame: Frame, image_size: int | None, encoding: str) -> CameraSpec:
    """How a camera will be stored, from one of its frames; ``image_size`` None keeps the frame's size."""
    height, width = decode_frame(frame, f"camera {name!r}").shape[:2]
    return CameraSpec(
        name=name,
        height=image_size or height,
        width=image_size or width,
        encoding=encoding,
        source_height=height,
        source_width=width,
        resize=RESIZE if image_size else "none",
    )


def convert_frames(
    frames: Sequence[Frame], camera: CameraSpec, jpeg_quality: int, where: str
) -> list[bytes] | np.ndarray:
    """Frames as the camera stores them.

    A whole JPEG file of the stored size is kept byte for byte; everything else is decoded, resized (only where the
    camera names a kernel) and encoded.

    Returns:
        JPEG files, or uint8 ``[F, H, W, 3]`` for a raw camera.

    Raises:
        DataError: not an image, cut off, or of another size; names ``where`` and the step.
    """
    if camera.encoding == "jpeg":
        return [_jpeg(frame, camera, jpeg_quality, f"{where}, step {step}") for step, frame in enumerate(frames)]
    out = np.empty((len(frames), camera.height, camera.width, 3), np.uint8)
    for step, frame in enumerate(frames):
        out[step] = _fitted(decode_frame(frame, f"{where}, step {step}"), camera, f"{where}, step {step}")
    return out


def decode_frame(frame: Frame, where: str) -> np.ndarray:
    """uint8 ``[H, W, 3]`` RGB of an image file or array; a cut-off file is an error."""
    if isinstance(frame, np.ndarray):
        return frame
    try:
        if frame.startswith(JPEG_START):
            return simplejpeg.decode_jpeg(frame, colorspace="RGB")
        with Image.open(io.BytesIO(frame)) as image:
            return np.asarray(image.convert("RGB"))
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
        raise DataError(f"{where}: not a whole image of {len(frame)} bytes ({error})") from error


def _jpeg(frame: Frame, camera: CameraSpec, quality: int, where: str) -> bytes:
    if isinstance(frame, bytes) and frame.startswith(JPEG_START):
        try:
            size = simplejpeg.decode_jpeg_header(frame)[:2]
        except ValueError as error:
            raise DataError(f"{where}: not a JPEG file ({error})") from error
        if size == (camera.height, camera.width):
            if JPEG_END not in frame[-TRAILER_BYTES:]:
                decode_frame(frame, where)
            return frame
    image = np.ascontiguousarray(_fitted(decode_frame(frame, where), camera, where))
    return simplejpeg.encode_jpeg(image, quality=quality, colorspace="RGB")


def _fitted(image: np.ndarray, camera: CameraSpec, where: str) -> np.ndarray:
    if image.shape[:2] != (camera.height, camera.width) and camera.resize == "none":
        raise DataError(
            f"{where}: expected {camera.height}x{camera.width} like the first frame, "
            f"got {image.shape[0]}x{image.shape[1]}; an image size makes all frames alike"
        )
    return resize(image, camera.height, camera.width)
