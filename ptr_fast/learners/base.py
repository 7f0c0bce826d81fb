"""What all learners share: what they are made of, checks of a batch, averaged copies, the learning-rate schedule."""

from __future__ import annotations

import copy
import math
from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping
from typing import Any, Protocol, TypeVar

import torch
from torch import nn

from ptr_fast.config import PolicySpec
from ptr_fast.kernels.augment import AugmentParams, augment
from ptr_fast.learners.distributed import Ranks
from ptr_fast.learners.registry import traits_of
from ptr_fast.types import FRAMES, Batch, PooledFrames, Window

__all__ = [
    "BaseLearner",
    "Images",
    "Learner",
    "augmented",
    "averaged_copy",
    "check_batch",
    "check_encoder_dtype",
    "scheduled_lr",
    "set_lr",
    "trained",
]


Net = TypeVar("Net", bound=nn.Module)
Images = dict[str, torch.Tensor]  # by camera name, float [B * T, 3, H, W] in [0, 1]


class Learner(Protocol):
    """One gradient step at a time; everything else (loop, files, clocks) lives above."""

    def update(self, batch: Batch, step: int) -> dict[str, torch.Tensor]:
        """One step on a batch; 0-d tensors on the device, grouped by slash."""

    def networks(self) -> dict[str, nn.Module]:
        """Every net by name; ``actor`` and ``ema_actor`` act."""

    def optimizers(self) -> dict[str, torch.optim.Optimizer]:
        """Every optimiser by name."""


class BaseLearner(ABC):
    """What a learner is made of, and how each of its updates begins; a registered learner may extend it.

    Args:
        config: of a registered learner.
        spec: sizes of image, state, action and task table.
        seed: of initial weights and of all draws.
        device: where everything lives.
        encoder_dtype: of the images, and so of the trunks' activations (note "Precision" in
            :mod:`ptr_fast.nets.encoders.image`): bfloat16, or None for that of the weights.
        ranks: the processes that train together (note "Ranks" in :mod:`ptr_fast.learners.distributed`); None: alone.
    """

    def __init__(
        self,
        config: Any,
        spec: PolicySpec,
        seed: int = 0,
        device: torch.device | str = "cpu",
        encoder_dtype: torch.dtype | None = None,
        ranks: Ranks | None = None,
    ) -> None:
        self.ranks = ranks or Ranks()
        self.config, self.spec, self.seed, self.device = config, spec, seed, torch.device(device)
        self._traits = traits_of(config)
        self._cameras = [camera.name for camera in spec.cameras]
        self._encoder_dtype = check_encoder_dtype(encoder_dtype)

    @abstractmethod
    def optimizers(self) -> dict[str, torch.optim.Optimizer]:
        """Every optimiser by name."""

    def rate(self, optimizer: str) -> float:
        """The configured rate of an optimiser."""
        return getattr(self.config, f"{optimizer}_lr")

    def learning_rates(self, step: int | torch.Tensor) -> dict[str, float | torch.Tensor]:
        """The rate of every optimiser at an update; ``step`` as in :func:`scheduled_lr`."""
        schedule = self.config.lr_schedule, self.config.lr_schedule_steps
        return {name: scheduled_lr(self.rate(name), *schedule, step) for name in self.optimizers()}

    def begin(self, batch: Batch, step: int) -> None:
        """Checks the batch and sets the rates of an update.

        Raises:
            ValueError: a batch that does not fit the spec.
        """
        check_batch(batch, self.spec, self._traits.columns, self._traits.window)
        for name, rate in self.learning_rates(step).items():
            set_lr(self.optimizers()[name], rate)

    def augmented_pair(
        self,
        batch: Batch,
        augment: Mapping[str, AugmentParams] | None,
        next_augment: Mapping[str, AugmentParams] | None,
        weight_dtype: torch.dtype,
    ) -> tuple[Images, Images]:
        """What the nets see at s and at s'; nothing where no encoder looks. Arguments as of :func:`augmented`."""
        if not self.config.encoder.sees_images:
            return {}, {}
        dtype = self._encoder_dtype or weight_dtype
        return augmented(batch.images, augment, dtype), augmented(batch.next_images, next_augment, dtype)


def check_batch(batch: Batch, spec: PolicySpec, columns: Iterable[str], window: Window = Window()) -> None:
    """Compare the columns of a batch that a learner reads with the policy's surroundings.

    Raises:
        ValueError: naming the column, what was expected and what came.
    """
    num_batch, there = len(batch), batch.columns()
    states, scalars = (num_batch, window.num_observations, spec.state.dim), (num_batch,)
    chunk = (num_batch, window.num_actions)
    forms: dict[str, tuple[tuple[int, ...], torch.dtype | None]] = {
        "state": (states, None),
        "next_state": (states, None),
        "task_id": (scalars, torch.int64),
        "observation_mask": ((num_batch, window.num_observations), torch.bool),
        "actions": ((*chunk, spec.action.dim), None),
        "action_mask": (chunk, torch.bool),
        "rewards": (scalars, None),
        "masks": (scalars, None),
        "returns": (scalars, None),
        "critic_weight": (scalars, None),
    }
    for name in columns:
        if name not in there:
            raise ValueError(f"batch.{name}: expected this column, the batch has {list(there)}")
        if name not in FRAMES:
            _check_form(name, there[name], *forms[name])
            continue
        for camera in spec.cameras:
            if camera.name not in there[name]:
                raise ValueError(f"batch.{name}: expected camera {camera.name!r}, got {list(there[name])}")
            shape = (num_batch, window.num_observations, camera.height, camera.width, 3)
            _check_form(f"{name}[{camera.name!r}]", there[name][camera.name], shape, torch.uint8)
    task_id = there.get("task_id")
    if task_id is not None and task_id.device.type == "cpu" and num_batch > 0:  # reading a GPU would wait for it
        lowest, highest = int(task_id.min()), int(task_id.max())
        if lowest < 0 or highest >= spec.tasks.num_slots:
            raise ValueError(f"batch.task_id: expected 0 to {spec.tasks.num_slots - 1}, got {lowest} to {highest}")


def _check_form(name: str, value: Any, shape: tuple[int, ...], dtype: torch.dtype | None) -> None:
    """Compare shape and dtype; None is any floating point."""
    if tuple(value.shape) != shape:
        raise ValueError(f"batch.{name}: expected shape {list(shape)}, got {list(value.shape)}")
    if dtype is None and not value.is_floating_point():
        raise ValueError(f"batch.{name}: expected floating point, got {value.dtype}")
    if dtype is not None and value.dtype != dtype:
        raise ValueError(f"batch.{name}: expected {dtype}, got {value.dtype}")


def check_encoder_dtype(dtype: torch.dtype | None) -> torch.dtype | None:
    """The dtype itself.

    Raises:
        ValueError: a dtype that the kernels are not made for.
    """
    if dtype not in (None, torch.bfloat16):
        raise ValueError(f"encoder_dtype: expected torch.bfloat16 or None (that of the weights), got {dtype}")
    return dtype


def augmented(
    images: Mapping[str, torch.Tensor | PooledFrames], params: Mapping[str, AugmentParams] | None, dtype: torch.dtype
) -> dict[str, torch.Tensor]:
    """What the nets take: of each camera the frames ``[B, T, H, W, 3]``, or their places in a pool, in one row.

    Args:
        images: of a batch.
        params: of the B samples by camera; the T frames of a sample are changed alike. None only scales.
        dtype: of the result.

    Returns:
        By camera ``[B * T, 3, H, W]`` in [0, 1].
    """
    out = {}
    for camera, frames in images.items():
        mine, num_observations = None if params is None else params[camera], frames.shape[1]
        if mine is not None and num_observations > 1:
            mine = mine.repeated(num_observations)
        if isinstance(frames, PooledFrames):
            out[camera] = augment(frames.pool, mine, dtype, frames.index.flatten())
        else:
            out[camera] = augment(frames.flatten(0, 1), mine, dtype)
    return out


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
