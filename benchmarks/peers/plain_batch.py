"""A batch of one camera, one observation and one action without those axes: what a PyTorch user writes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TypeVar

import torch

from ptr_fast.types import Batch

__all__ = ["PlainBatch", "only", "plain"]

Value = TypeVar("Value")


@dataclass(frozen=True, kw_only=True)
class PlainBatch:
    """Columns of :class:`ptr_fast.types.Batch`: frames ``[B, H, W, 3]``, states ``[B, S]``, actions ``[B, A]``."""

    images: torch.Tensor
    next_images: torch.Tensor
    state: torch.Tensor
    next_state: torch.Tensor
    task_id: torch.Tensor
    actions: torch.Tensor
    rewards: torch.Tensor
    masks: torch.Tensor

    def __len__(self) -> int:
        return len(self.rewards)


def plain(batch: Batch) -> PlainBatch:
    """The same numbers, not copied."""
    frames = {name: only(getattr(batch, name))[:, 0] for name in ("images", "next_images")}
    vectors = {name: getattr(batch, name)[:, 0] for name in ("state", "next_state", "actions")}
    return PlainBatch(**frames, **vectors, task_id=batch.task_id, rewards=batch.rewards, masks=batch.masks)


def only(by_camera: Mapping[str, Value] | None) -> Value | None:
    """What belongs to the only camera; None of None."""
    if by_camera is None:
        return None
    (value,) = by_camera.values()
    return value
