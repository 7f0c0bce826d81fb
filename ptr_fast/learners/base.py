"""What both learners share: checks of a batch, the averaged copy of a net, the learning-rate schedule."""

from __future__ import annotations

import copy
import math
from typing import Protocol, TypeVar

import torch
from torch import nn

from ptr_fast.config import PolicySpec
from ptr_fast.kernels.augment import AugmentParams, augment
from ptr_fast.types import Batch, PooledFrames

__all__ = ["Learner", "averaged_copy", "check_batch", "check_encoder_dtype", "scheduled_lr", "set_lr", "trained"]


Net = TypeVar("Net", bound=nn.Module)


class Learner(Protocol):
    """One gradient step at a time; everything else (loop, files, clocks) lives above."""

    def update(self, batch: Batch, step: int) -> dict[str, torch.Tensor]:
        """One step on a batch; 0-d tensors on the device, grouped by slash."""

    def networks(self) -> dict[str, nn.Module]:
        """Every net by name; ``actor`` and ``ema_actor`` act."""

    def optimizers(self) -> dict[str, torch.optim.Optimizer]:
        """Every optimiser by name."""


def check_batch(batch: Batch, spec: PolicySpec, sees_images: bool = True) -> None:
    """Compare a batch with the policy's surroundings; images that no encoder looks at only need B rows.

    Raises:
        ValueError: naming the field, what was expected and what came.
    """
    num_batch = batch.actions.shape[0]
    images = (num_batch, spec.camera.height, spec.camera.width, 3)
    states, scalars = (num_batch, spec.state.dim), (num_batch,)
    expected = {
        "images": (images, torch.uint8),
        "next_images": (images, torch.uint8),
        "state": (states, None),
        "next_state": (states, None),
        "task_id": (scalars, torch.int64),
        "actions": ((num_batch, spec.action.dim), None),
        "rewards": (scalars, None),
        "masks": (scalars, None),
    }
    if not sees_images:
        for name in ("images", "next_images"):
            del expected[name]
            if getattr(batch, name).shape[:1] != scalars:
                raise ValueError(f"batch.{name}: expected {num_batch} rows, got {list(getattr(batch, name).shape)}")
    for name, (shape, dtype) in expected.items():
        value = getattr(batch, name)
        if tuple(value.shape) != shape:
            raise ValueError(f"batch.{name}: expected shape {list(shape)}, got {list(value.shape)}")
        if dtype is None and not value.is_floating_point():
            raise ValueError(f"batch.{name}: expected floating point, got {value.dtype}")
        if dtype is not None and value.dtype != dtype:
            raise ValueError(f"batch.{name}: expected {dtype}, got {value.dtype}")
    if batch.task_id.device.type == "cpu" and num_batch > 0:  # reading back from a GPU would wait for it
        lowest, highest = int(batch.task_id.min()), int(batch.task_id.max())
        if lowest < 0 or highest >= spec.tasks.num_slots:
            raise ValueError(f"batch.task_id: expected 0 to {spec.tasks.num_slots - 1}, got {lowest} to {highest}")


def check_encoder_dtype(dtype: torch.dtype | None) -> torch.dtype | None:
    """The dtype itself.

    Raises:
        ValueError: a dtype that the kernels are not made for.
    """
    if dtype not in (None, torch.bfloat16):
        raise ValueError(f"encoder_dtype: expected torch.bfloat16 or None (that of the weights), got {dtype}")
    return dtype


def augmented(frames: torch.Tensor | PooledFrames, params: AugmentParams | None, dtype: torch.dtype) -> torch.Tensor:
    """What the nets take, ``[B, 3, H, W]``, of frames or of their places in a pool."""
    if isinstance(frames, PooledFrames):
        return augment(frames.pool, params, dtype, frames.index)
    return augment(frames, params, dtype)


def averaged_copy(net: Net) -> Net:
    """A copy that never gets a gradient."""
    return copy.deepcopy(net).requires_grad_(False)


def trained(net: nn.Module, average: nn.Module) -> tuple[list[nn.Parameter], list[nn.Parameter]]:
    """Those parameters of a net that want a gradient, and the same ones of its average."""
    pairs = zip(net.parameters(), average.parameters(), strict=True)
    wanted = [(parameter, averaged) for parameter, averaged in pairs if parameter.requires_grad]
    return [parameter for parameter, _ in wanted], [averaged for _, averaged in wanted]


def scheduled_lr(lr: float, schedule: str, num_steps: int, step: int | torch.Tensor) -> float | torch.Tensor:
    """Learning rate at an update; ``cosine`` reaches zero after ``num_steps`` and stays there.

    Of a 0-d tensor ``step`` (a captured step) it is a 0-d tensor on the same device, but for a constant rate.
    """
    if schedule == "constant":
        return lr
    if num_steps < 1:
        raise ValueError(f"lr_schedule {schedule!r} needs lr_schedule_steps above 0, got {num_steps}")
    if isinstance(step, torch.Tensor):
        return lr * 0.5 * (1.0 + torch.cos(math.pi * (step.double() / num_steps).clamp(0.0, 1.0)))
    return lr * 0.5 * (1.0 + math.cos(math.pi * min(max(step, 0) / num_steps, 1.0)))


def set_lr(optimizer: torch.optim.Optimizer, lr: float | torch.Tensor) -> None:
    """Set the rate of every group; where it is a tensor (a captured step), in place."""
    for group in optimizer.param_groups:
        if isinstance(group["lr"], torch.Tensor):
            group["lr"].copy_(lr) if isinstance(lr, torch.Tensor) else group["lr"].fill_(lr)
        else:
            group["lr"] = float(lr)
