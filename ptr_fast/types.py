"""The data contract: what a frame, a state, an action and a batch are, on every floor of the house.

Frames are HWC uint8 RGB everywhere outside the nets. Actions are raw (the robot's own units) in stores and at the arm,
and scaled to [-1, 1] inside batches; :class:`ActionSpec` holds the one map between the two.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    import torch

__all__ = [
    "FRAMES",
    "MAX_SEED",
    "TRANSITION",
    "ActionSpec",
    "Batch",
    "CameraSpec",
    "PooledFrames",
    "StateSpec",
    "Window",
]

MAX_SEED = 2**63 - 1
"""The largest seed of acting and of trials."""


@dataclass(frozen=True, kw_only=True)
class CameraSpec:
    """One camera of a store or checkpoint.

    Attributes:
        name: camera name, e.g. ``image_0``.
        height, width: size of the stored frame, pixels.
        encoding: ``"jpeg"`` (one JPEG file per frame), ``"jpeg-restart"`` (one with restart markers, see
            :mod:`ptr_fast.data.jpeg_restart`) or ``"raw"`` (height*width*3 bytes).
        source_height, source_width: size of the frame before the resize, pixels; 0 where unknown.
        resize: name of the resize kernel that made the stored frame, or ``"none"``.
    """

    name: str
    height: int
    width: int
    encoding: str = "jpeg"
    source_height: int = 0
    source_width: int = 0
    resize: str = "none"

    def __post_init__(self) -> None:
        if self.height <= 0 or self.width <= 0:
            raise ValueError(f"camera {self.name!r}: height and width must be positive, got {self.height}x{self.width}")
        if self.encoding not in ("jpeg", "jpeg-restart", "raw"):
            raise ValueError(
                f"camera {self.name!r}: encoding must be 'jpeg', 'jpeg-restart' or 'raw', got {self.encoding!r}"
            )

    @property
    def is_jpeg(self) -> bool:
        """Whether a stored frame is a JPEG file."""
        return self.encoding != "raw"


@dataclass(frozen=True, kw_only=True)
class StateSpec:
    """Proprioceptive state: one name and unit per dimension."""

    names: tuple[str, ...]
    units: tuple[str, ...]

    def __post_init__(self) -> None:
        if len(self.names) != len(self.units):
            raise ValueError(f"state: {len(self.names)} names but {len(self.units)} units")

    @property
    def dim(self) -> int:
        return len(self.names)


@dataclass(frozen=True, kw_only=True)
class ActionSpec:
    """The action space and its map to [-1, 1].

    ``scale`` is ``clip(2 * (a - low) / (high - low) - 1, -clip, clip)`` (reference: RescaleActions, bounds
    +-0.05 m, +-0.25 rad, gripper 0..1 and clip 0.99 for Bridge); ``unscale`` is the inverse of the unclipped map.

    Attributes:
        names, units: per dimension.
        low, high: raw bounds per dimension, in ``units``.
        clip: largest absolute scaled value; below 1 so that atanh stays finite.
        bounds_source: where the bounds come from: ``"layout NAME"`` or ``"options"`` of a conversion, ``"data"``
            (measured there, stated by nobody), ``"unfinished"`` (placeholders until they are), ``"reference"`` (the
            published code's), or the name of a simulator.
    """

    names: tuple[str, ...]
    units: tuple[str, ...]
    low: tuple[float, ...]
    high: tuple[float, ...]
    clip: float = 0.99
    bounds_source: str = "reference"

    def __post_init__(self) -> None:
        sizes = {len(self.names), len(self.units), len(self.low), len(self.high)}
        if len(sizes) != 1:
            raise ValueError(f"action: names, units, low and high must have one length, got {sorted(sizes)}")
        for name, low, high in zip(self.names, self.low, self.high, strict=True):
            if not low < high:
                raise ValueError(f"action {name!r}: low must be below high, got {low} and {high}")
        if not 0.0 < self.clip < 1.0:
            raise ValueError(f"action: clip must lie in (0, 1), got {self.clip}")

    @property
    def dim(self) -> int:
        return len(self.names)

    def scale(self, raw: np.ndarray) -> np.ndarray:
        """Raw actions ``[..., A]`` to scaled float32 actions in [-clip, clip]."""
        low, high = np.asarray(self.low, np.float32), np.asarray(self.high, np.float32)
        scaled = 2.0 * (np.asarray(raw, np.float32) - low) / (high - low) - 1.0
        return np.clip(scaled, -self.clip, self.clip).astype(np.float32)

    def unscale(self, scaled: np.ndarray) -> np.ndarray:
        """Scaled actions ``[..., A]`` in [-1, 1] to raw float32 actions in ``units``."""
        low, high = np.asarray(self.low, np.float32), np.asarray(self.high, np.float32)
        return ((np.asarray(scaled, np.float32) + 1.0) * 0.5 * (high - low) + low).astype(np.float32)


@dataclass(frozen=True, kw_only=True)
class Window:
    """How much of an episode one sample holds.

    Attributes:
        num_observations: T, observations up to and including the present one. Before the first step of an episode the
            first observation is repeated.
        num_actions: H, actions from the present one on. After the last step of an episode the last action is repeated.
    """

    num_observations: int = 1
    num_actions: int = 1

    def __post_init__(self) -> None:
        for name in ("num_observations", "num_actions"):
            if getattr(self, name) < 1:
                raise ValueError(f"window: {name} must be at least 1, got {getattr(self, name)}")


@dataclass(frozen=True)
class PooledFrames:
    """Frames named by their place in a pool, so that a batch neither copies nor stores them.

    Attributes:
        pool: uint8, every frame once: ``[N, H, W, 3]`` RGB, or ``[N, 3 * H / 2, W]`` YUV 4:2:0 planes
            (:mod:`ptr_fast.kernels.augment.yuv420`).
        index: int64 ``[B, T]`` on the pool's device, in [0, N).
    """

    pool: torch.Tensor
    index: torch.Tensor

    @property
    def shape(self) -> tuple[int, ...]:
        """``(B, T, H, W, 3)``, of planes too."""
        height, width = self.pool.shape[1:3]
        return (*self.index.shape, height if self.pool.dim() == 4 else height // 3 * 2, width, 3)

    @property
    def dtype(self) -> torch.dtype:
        return self.pool.dtype

    @property
    def device(self) -> torch.device:
        return self.pool.device

    def to(self, device: torch.device | str, non_blocking: bool = False) -> PooledFrames:
        """The same frames on ``device``."""
        return PooledFrames(*(t.to(device, non_blocking=non_blocking) for t in (self.pool, self.index)))


_NOT_ASKED_FOR: Any = None


@dataclass(frozen=True, kw_only=True)
class Batch:
    """Samples for one update. A column that nobody asked for is None.

    B samples; T observations up to the present one, which is the last (see :class:`Window`); H actions from the
    present one on, which is the first.

    Attributes:
        images, next_images: by camera name uint8 ``[B, T, H, W, 3]`` RGB, before augmentation: the frames, or their
            places in a pool.
        state, next_state: float32 ``[B, T, S]``, raw units.
        task_id: int64 ``[B]``, slot in the task table.
        observation_mask: bool ``[B, T]``, False before the first step of the episode, where its first one is repeated.
        actions: float32 ``[B, H, A]``, scaled to [-clip, clip].
        action_mask: bool ``[B, H]``, False after the last step of the episode.
        rewards: float32 ``[B]``; with ``rewards.num_steps`` n the discounted sum over the m <= n steps that the target
            looks ahead, and the next observation lies m steps ahead (note in :mod:`ptr_fast.data.rewards`).
        masks: float32 ``[B]``, 0 where the target must not bootstrap, else discount^(m - 1), which is 1 for one step.
        returns: float32 ``[B]``, the discounted return that was observed from the present step on; -inf where it was
            not observed to its end.
        critic_weight: float32 ``[B]``, how much a sample counts in the critic's loss; 1 on average over many batches.
    """

    images: Mapping[str, torch.Tensor | PooledFrames] = _NOT_ASKED_FOR
    next_images: Mapping[str, torch.Tensor | PooledFrames] = _NOT_ASKED_FOR
    state: torch.Tensor = _NOT_ASKED_FOR
    next_state: torch.Tensor = _NOT_ASKED_FOR
    task_id: torch.Tensor = _NOT_ASKED_FOR
    observation_mask: torch.Tensor = _NOT_ASKED_FOR
    actions: torch.Tensor = _NOT_ASKED_FOR
    action_mask: torch.Tensor = _NOT_ASKED_FOR
    rewards: torch.Tensor = _NOT_ASKED_FOR
    masks: torch.Tensor = _NOT_ASKED_FOR
    returns: torch.Tensor = _NOT_ASKED_FOR
    critic_weight: torch.Tensor = _NOT_ASKED_FOR

    def __len__(self) -> int:
        return int(next(iter(self.tensors().values())).shape[0])

    def columns(self) -> dict[str, Any]:
        """The columns that are there, by name."""
        values = ((f.name, getattr(self, f.name)) for f in fields(self))
        return {name: value for name, value in values if value is not None}

    def tensors(self) -> dict[str, Any]:
        """Every tensor (or frames in a pool) by name, frames as ``images.CAMERA``."""
        out: dict[str, Any] = {}
        for name, value in self.columns().items():
            out |= {f"{name}.{key}": frames for key, frames in value.items()} if name in FRAMES else {name: value}
        return out

    def map(self, change: Callable[[Any], Any]) -> Batch:
        """The batch with every tensor changed."""
        changed: dict[str, Any] = {
            name: {key: change(frames) for key, frames in value.items()} if name in FRAMES else change(value)
            for name, value in self.columns().items()
        }
        return Batch(**changed)

    def to(self, device: torch.device | str) -> Batch:
        """The same batch on ``device``; pinned tensors are copied asynchronously."""
        return self.map(lambda value: value.to(device, non_blocking=True))


FRAMES = ("images", "next_images")
"""The columns of a batch that hold frames, by camera."""
TRANSITION = frozenset(f.name for f in fields(Batch)) - {"observation_mask", "action_mask", "returns", "critic_weight"}
"""The columns of a plain transition, which say all that there is to say about one step."""
