"""From the image files and arrays of a source to the frames of a store."""

from __future__ import annotations

import io
import threading
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
import simplejpeg
from PIL import Image, UnidentifiedImageError

from ptr_fast.data.jpeg_restart import add_restarts
from ptr_fast.errors import DataError
from ptr_fast.resize import RESIZE, resize
from ptr_fast.types import CameraSpec
from ptr_robot.datasets.contents import whats_in
from ptr_robot.datasets.source import Frame

if TYPE_CHECKING:
    from ptr_fast.data.decode import Decoder

__all__ = ["JpegDecoders", "camera_spec", "convert_frames", "decode_frame"]

JPEG_START, JPEG_END = b"\xff\xd8\xff", b"\xff\xd9"
MAX_DECODERS = 4  # kept: the cameras of an episode, which follow each other, may differ in size
TRAILER_BYTES = 64  # some cameras pad behind the end marker


def camera_spec(name: str, frame: Frame, image_size: int | None, encoding: str, where: str) -> CameraSpec:
    """How a camera will be stored, from one of its frames; ``image_size`` None keeps the frame's size.

    Raises:
        DataError: not an image, or cut off; names ``where``.
    """
    height, width = decode_frame(frame, where).shape[:2]
    return CameraSpec(
        name=name,
        height=image_size or height,
        width=image_size or width,
        encoding=encoding,
        source_height=height,
        source_width=width,
        resize=RESIZE if image_size else "none",
    )


class JpegDecoders:
    """Decodes the JPEG frames of an episode at once, by the backend of :func:`ptr_fast.data.decode.make_decoder`.

    Args:
        backend: ``auto``, ``simplejpeg`` or ``dali``.
        device: where DALI decodes; the pixels come back to host memory.
    """

    def __init__(self, backend: str = "auto", device: str = "cpu") -> None:
        self._backend, self._device = backend, device
        self._by_size: dict[tuple[int, int], Decoder] = {}
        self._lock = threading.Lock()  # a pipeline serves one worker at a time

    def explain(self) -> str:
        """Which backend decodes, and why."""
        return self._decoder((8, 8)).explain()

    def decode(self, frames: Sequence[bytes]) -> list[np.ndarray]:
        """uint8 ``[H, W, 3]`` of each JPEG file, all of one size.

        Raises:
            DataError: one of them is damaged or of another size than the first.
        """
        with self._lock:
            try:
                size = simplejpeg.decode_jpeg_header(frames[0])[:2]
            except ValueError as error:
                raise DataError(f"frame 0: not a JPEG file ({error})") from error
            pixels = self._decoder(size).decode(frames)
            return list(pixels if isinstance(pixels, np.ndarray) else pixels.cpu().numpy())

    def _decoder(self, size: tuple[int, int]) -> Decoder:
        from ptr_fast.data.decode import make_decoder  # imports torch, which --help need not wait for

        if size not in self._by_size:
            if len(self._by_size) == MAX_DECODERS:
                self._by_size.pop(next(iter(self._by_size)))
            self._by_size[size] = make_decoder(*size, self._backend, self._device)
        return self._by_size[size]


def convert_frames(
    frames: Sequence[Frame], camera: CameraSpec, jpeg_quality: int, where: str, decoders: JpegDecoders | None = None
) -> list[bytes] | np.ndarray:
    """Frames as the camera stores them.

    A whole JPEG file of the stored size is kept: byte for byte, or under ``jpeg-restart`` pixel for pixel. Everything
    else is decoded, resized (only where the camera names a kernel) and encoded.

    Args:
        frames: JPEG or PNG files, or uint8 ``[H, W, 3]`` arrays.
        camera: how they are stored.
        jpeg_quality: of frames that are encoded anew, 1 to 100.
        where: names the frames in errors.
        decoders: decode all JPEG files of the episode at once; None decodes them one by one with simplejpeg.

    Returns:
        JPEG files, or uint8 ``[F, H, W, 3]`` for a raw camera.

    Raises:
        DataError: not an image, cut off, of another size, or under ``jpeg-restart`` no baseline JPEG; names ``where``
            and the step.
    """
    if decoders is not None and len(frames) and isinstance(frames[0], bytes):
        frames = _decoded_together(frames, camera, decoders)
    if camera.is_jpeg:
        return [_jpeg(frame, camera, jpeg_quality, f"{where}, step {step}") for step, frame in enumerate(frames)]
    out = np.empty((len(frames), camera.height, camera.width, 3), np.uint8)
    for step, frame in enumerate(frames):
        out[step] = _fitted(decode_frame(frame, f"{where}, step {step}"), camera, f"{where}, step {step}")
    return out


def _decoded_together(frames: Sequence[Frame], camera: CameraSpec, decoders: JpegDecoders) -> list[Frame]:
    """The frames with pixels in place of the JPEG files that have to be decoded.

    Where one of them is damaged or of another size all stay files: decoding one by one will name it.
    """
    out = list(frames)
    chosen = [i for i, frame in enumerate(frames) if _needs_decoding(frame, camera)]
    files = [frame for frame in (frames[i] for i in chosen) if isinstance(frame, bytes)]
    if files:
        try:
            for i, pixels in zip(chosen, decoders.decode(files), strict=True):
                out[i] = pixels
        except DataError:
            return list(frames)
    return out


def _needs_decoding(frame: Frame, camera: CameraSpec) -> bool:
    if not isinstance(frame, bytes) or not frame.startswith(JPEG_START):
        return False
    if not camera.is_jpeg:
        return True
    try:
        return simplejpeg.decode_jpeg_header(frame)[:2] != (camera.height, camera.width)
    except ValueError:
        return False


def decode_frame(frame: Frame, where: str) -> np.ndarray:
    """uint8 ``[H, W, 3]`` RGB of an image file or array; a cut-off file is an error."""
    if isinstance(frame, np.ndarray):
        return frame
    try:
        if frame.startswith(JPEG_START):
            return simplejpeg.decode_jpeg(frame, colorspace="RGB")
        with Image.open(io.BytesIO(frame)) as image:
            if image.mode[0] in "IF":  # converting would clip them to 255
                raise ValueError(f"expected 8 bits a channel, got mode {image.mode} of {image.format}")
            return np.asarray(image.convert("RGB"))
    except UnidentifiedImageError as error:  # its own message names an object in memory
        told = whats_in(frame) or "neither JPEG nor PNG"
        raise DataError(f"{where}: not a whole image of {len(frame)} bytes ({told})") from error
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
            return frame if camera.encoding == "jpeg" else _with_restarts(frame, where)
    image = np.ascontiguousarray(_fitted(decode_frame(frame, where), camera, where))
    if camera.encoding == "jpeg":
        return simplejpeg.encode_jpeg(image, quality=quality, colorspace="RGB")
    sampling = "444" if camera.height % 2 or camera.width % 2 else "420"
    made = simplejpeg.encode_jpeg(image, quality=quality, colorspace="RGB", colorsubsampling=sampling)
    return _with_restarts(made, where)


def _with_restarts(frame: bytes, where: str) -> bytes:
    try:
        return add_restarts(frame)
    except DataError as error:
        raise DataError(f"{where}: {error}; --encoding jpeg takes it as it is") from error


def _fitted(image: np.ndarray, camera: CameraSpec, where: str) -> np.ndarray:
    if image.shape[:2] != (camera.height, camera.width) and camera.resize == "none":
        raise DataError(
            f"{where}: expected {camera.height}x{camera.width} like the frames of the first episodes, "
            f"got {image.shape[0]}x{image.shape[1]}; an image size makes all frames alike"
        )
    return resize(image, camera.height, camera.width)
