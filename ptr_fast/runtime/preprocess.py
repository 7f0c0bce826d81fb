"""From a camera's frame to what the nets see: one definition for training, acting, serving and export.

A frame is resized by :func:`ptr_fast.resize.resize` to the size of the checkpoint's camera and divided by 255. Inside
a graph (an exported file, a CUDA graph) the same resize is two matrix products (:class:`GraphResize`).

Shapes: H, W of the camera; h, w of the nets.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np
import torch
from torch import nn

from ptr_fast.config import PolicySpec
from ptr_fast.resize import resize, rows_come_first
from ptr_fast.runtime.observation import Observation
from ptr_fast.types import CameraSpec

__all__ = ["GraphResize", "arrays_of", "check_states", "fit_frame", "lanczos_matrix", "to_unit"]

_LOBES = 3.0  # of the Lanczos kernel


def fit_frame(image: np.ndarray, camera: CameraSpec) -> np.ndarray:
    """A frame of any size in the size of the checkpoint's camera.

    Args:
        image: uint8 ``[H, W, 3]`` RGB.

    Returns:
        uint8 ``[h, w, 3]``; the frame itself where it has that size already.

    Raises:
        ValueError: another type or shape.
    """
    image = np.asarray(image)
    if image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3 or 0 in image.shape:
        raise ValueError(f"image: expected uint8 [H, W, 3], got {image.dtype} {list(image.shape)}")
    if image.shape[:2] == (camera.height, camera.width):
        return image
    return resize(image, camera.height, camera.width)


def arrays_of(
    past: Sequence[Observation], spec: PolicySpec, frame_sizes: Mapping[str, tuple[int, int]]
) -> tuple[dict[str, np.ndarray], np.ndarray, np.ndarray]:
    """Observations as arrays, frames in the sizes that are asked for.

    Returns:
        Frames by camera uint8 ``[T, H, W, 3]``, states float32 ``[T, S]``, task int64 ``[1]``.

    Raises:
        ValueError: a missing camera, an unknown task, a frame or a state of another shape or type, or a state that is
            not finite.
    """
    slot = spec.tasks.slot(past[-1].task)
    frames = {}
    for camera in spec.cameras:
        height, width = frame_sizes[camera.name]
        fitted = replace(camera, height=height, width=width)
        rows = []
        for each in past:
            if camera.name not in each.images:
                wanted = [one.name for one in spec.cameras]
                raise ValueError(f"images: expected the cameras {wanted}, got {list(each.images)}")
            rows.append(fit_frame(each.images[camera.name], fitted))
        frames[camera.name] = rows[0][None] if len(rows) == 1 else np.stack(rows)
    states = np.stack([np.asarray(each.state, np.float32) for each in past])
    check_states(states, spec)
    return frames, states, np.array([slot])


def check_states(states: np.ndarray, spec: PolicySpec) -> None:
    """Refuses states that are not finite numbers ``[..., S]``.

    Raises:
        ValueError: another shape, NaN or infinity.
    """
    if states.ndim != 2 or states.shape[-1] != spec.state.dim:
        raise ValueError(f"state: expected [{spec.state.dim}] per frame, got {list(states.shape[1:])}")
    if not np.isfinite(states).all():
        raise ValueError("state: expected finite numbers, got NaN or infinity")


def to_unit(frames_BHWC: torch.Tensor) -> torch.Tensor:
    """uint8 ``[B, h, w, 3]`` to float32 ``[B, 3, h, w]`` in [0, 1]; a batch of HWC frames is channels_last already."""
    return frames_BHWC.permute(0, 3, 1, 2).to(torch.float32) / 255.0


def lanczos_matrix(num_in: int, num_out: int) -> np.ndarray:
    """Weights float64 ``[num_out, num_in]`` of an antialiased Lanczos resize along one axis; every row sums to 1.

    Source: Pillow ``src/libImaging/Resample.c:precompute_coeffs``.
    """
    scale = num_in / num_out
    stretch = max(scale, 1.0)
    centre = (np.arange(num_out)[:, None] + 0.5) * scale
    reach = _LOBES * stretch
    first = np.maximum(np.floor(centre - reach + 0.5), 0.0)
    last = np.minimum(np.floor(centre + reach + 0.5), num_in)
    pixel = np.arange(num_in)[None, :]
    x = (pixel - centre + 0.5) / stretch
    inside = (pixel >= first) & (pixel < last) & (np.abs(x) < _LOBES)
    weights = np.where(inside, np.sinc(x) * np.sinc(x / _LOBES), 0.0)
    return weights / weights.sum(axis=1, keepdims=True)


class GraphResize(nn.Module):
    """The resize as two separable products, each rounded to whole levels as Pillow rounds: within 1 level of it.

    Args:
        height, width: of the camera's frames, pixels.
        camera: what the nets were trained on.
    """

    def __init__(self, height: int, width: int, camera: CameraSpec) -> None:
        super().__init__()
        self.columns: torch.Tensor | None
        self.rows: torch.Tensor | None
        for name, num_in, num_out in (("rows", height, camera.height), ("columns", width, camera.width)):
            matrix = None if num_in == num_out else torch.from_numpy(lanczos_matrix(num_in, num_out)).float()
            self.register_buffer(name, matrix, persistent=False)
        self.rows_first = rows_come_first(height, width, camera.height, camera.width)

    def forward(self, frame_HWC: torch.Tensor) -> torch.Tensor:
        """uint8 ``[H, W, 3]`` to float32 ``[1, 3, h, w]`` in [0, 1]."""
        levels_CHW = frame_HWC.permute(2, 0, 1).to(torch.float32)
        if self.rows is not None and self.rows_first:
            levels_CHW = _round_to_levels(torch.matmul(self.rows, levels_CHW))
        if self.columns is not None:
            levels_CHW = _round_to_levels(torch.matmul(levels_CHW, self.columns.t()))
        if self.rows is not None and not self.rows_first:
            levels_CHW = _round_to_levels(torch.matmul(self.rows, levels_CHW))
        return (levels_CHW / 255.0).unsqueeze(0)


def _round_to_levels(values: torch.Tensor) -> torch.Tensor:
    """Halves upwards, as integer arithmetic with half a unit added does; kept in 0 to 255."""
    return torch.floor(values + 0.5).clamp(0.0, 255.0)
