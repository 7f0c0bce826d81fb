"""The whole of acting as one module of tensors: cameras' frames in, a chunk of actions in the robot's units out.

It is what is exported to ONNX, compiled and captured in a CUDA graph. How the nets act is the learner's
(:class:`ptr_fast.learners.capabilities.Acts`); here are preprocessing, inputs by name, and units.

Shapes: T observations, H actions of a chunk, A action, S state. Where T or H is 1, its axis is left out of the inputs
or the output.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping

import numpy as np
import torch
from torch import nn

from ptr_fast.config import PolicySpec
from ptr_fast.learners.capabilities import ActsInTwo
from ptr_fast.runtime.preprocess import GraphResize
from ptr_fast.types import Window

__all__ = ["ActingGraph", "MainGraph", "SideGraph", "frame_names", "noise_for"]

Sizes = Mapping[str, tuple[int, int]]


def noise_for(seed: int, shape: tuple[int, ...]) -> torch.Tensor:
    """Standard normal noise float32 ``shape`` on the CPU; the same on every device and in every engine."""
    return torch.randn(1, *shape, generator=torch.Generator().manual_seed(seed))[0]


def frame_names(cameras: Collection[str]) -> tuple[str, ...]:
    """The inputs of frames: ``frame`` of a single camera, ``frame_CAMERA`` of each of several."""
    return ("frame",) if len(cameras) == 1 else tuple(f"frame_{name}" for name in cameras)


class ActingGraph(nn.Module):
    """Resize, scale, nets, choice of the actions, un-scaling.

    Args:
        acting: of the learner, for one mode: ``(images, state, task_id[, noise]) -> scaled actions [1, H, A]``.
        spec: of the checkpoint.
        frame_sizes: camera -> height and width of its frames, pixels; the checkpoint's own size resizes nothing. None:
            the checkpoint's own sizes.
        noise_shape: of the noise that an answer takes, e.g. ``(K, A)``; None where it takes none.
        window: T and H.
        task: the one task that the graph acts on; None makes the task an input.

    Raises:
        ValueError: an unknown task, or other cameras than the checkpoint's.
    """

    def __init__(
        self,
        acting: nn.Module,
        spec: PolicySpec,
        frame_sizes: Sizes | None = None,
        noise_shape: tuple[int, ...] | None = None,
        window: Window | None = None,
        task: str | None = None,
    ) -> None:
        super().__init__()
        self.acting, self.noise_shape, self.window = acting, noise_shape, window or Window()
        names = [camera.name for camera in spec.cameras]
        sizes: Sizes = frame_sizes or {camera.name: (camera.height, camera.width) for camera in spec.cameras}
        if set(sizes) != set(names):
            raise ValueError(f"frame sizes: expected those of the cameras {names}, got {list(sizes)}")
        self.frame_sizes = {name: sizes[name] for name in names}
        self.num_state, self.num_axes = spec.state.dim, spec.action.dim
        self.resizes = nn.ModuleList(GraphResize(*sizes[camera.name], camera) for camera in spec.cameras)
        low, high = np.asarray(spec.action.low, np.float32), np.asarray(spec.action.high, np.float32)
        self.low: torch.Tensor
        self.half_range: torch.Tensor
        self.slot: torch.Tensor | None
        self.register_buffer("low", torch.from_numpy(low), persistent=False)
        self.register_buffer("half_range", torch.from_numpy(0.5 * (high - low)), persistent=False)
        slot = None if task is None else torch.tensor([spec.tasks.slot(task)])
        self.register_buffer("slot", slot, persistent=False)

    @property
    def frame_names(self) -> tuple[str, ...]:
        """Of its cameras; see :func:`frame_names`."""
        return frame_names(self.frame_sizes)

    @property
    def input_names(self) -> tuple[str, ...]:
        """Frames and ``state``; ``task_id`` where no task is fixed; ``noise`` where the policy takes any."""
        names = [*self.frame_names, "state"]
        names += ["task_id"] if self.slot is None else []
        names += ["noise"] if self.noise_shape is not None else []
        return tuple(names)

    @property
    def output_shape(self) -> tuple[int, ...]:
        """``[A]``, or ``[H, A]`` where H is above 1."""
        return (self.num_axes,) if self.window.num_actions == 1 else (self.window.num_actions, self.num_axes)

    def example(self) -> tuple[torch.Tensor, ...]:
        """Inputs of the right shapes and types, all zero."""
        past = () if self.window.num_observations == 1 else (self.window.num_observations,)
        zeros = {
            name: torch.zeros(*past, *size, 3, dtype=torch.uint8)
            for name, size in zip(self.frame_names, self.frame_sizes.values(), strict=True)
        }
        zeros["state"] = torch.zeros(*past, self.num_state)
        zeros["task_id"] = torch.zeros(1, dtype=torch.int64)
        zeros["noise"] = torch.zeros(self.noise_shape or ())
        return tuple(zeros[name].to(self.low.device) for name in self.input_names)

    def forward(self, *inputs: torch.Tensor) -> torch.Tensor:
        """One answer.

        Args:
            inputs: in the order of :attr:`input_names`: of each camera uint8 ``[H, W, 3]`` RGB, or ``[T, H, W, 3]``;
                ``state`` float32 ``[S]``, or ``[T, S]``; ``task_id`` int64 ``[1]``; ``noise`` float32.

        Returns:
            float32 ``[A]``, or ``[H, A]``, in the units of the checkpoint's action space.
        """
        images, state_1TS, task_id_1, noise = self.prepared(*inputs)
        return self.unscale(self.acting(images, state_1TS, task_id_1, *noise))

    def prepared(
        self, *inputs: torch.Tensor
    ) -> tuple[dict[str, torch.Tensor], torch.Tensor, torch.Tensor, tuple[torch.Tensor, ...]]:
        """What the nets take: images by camera ``[T, 3, h, w]``, state ``[1, T, S]``, task, and noise or nothing."""
        given = dict(zip(self.input_names, inputs, strict=True))
        state = given["state"]
        state_1TS = state.unsqueeze(0) if self.window.num_observations > 1 else state.unsqueeze(0).unsqueeze(0)
        task_id = given["task_id"] if self.slot is None else self.slot
        noise = (given["noise"].unsqueeze(0),) if self.noise_shape is not None else ()
        return self.images(*inputs[: len(self.frame_names)]), state_1TS, task_id, noise

    def images(self, *frames: torch.Tensor) -> dict[str, torch.Tensor]:
        """Images by camera ``[T, 3, h, w]`` in [0, 1] of each camera's frames."""
        out = {}
        for name, resize, each in zip(self.frame_sizes, self.resizes, frames, strict=True):
            past = each.unbind(0) if self.window.num_observations > 1 else (each,)
            out[name] = torch.cat([resize(frame) for frame in past]) if len(past) > 1 else resize(past[0])
        return out

    def unscale(self, scaled_1HA: torch.Tensor) -> torch.Tensor:
        """Scaled actions float32 ``[1, H, A]`` in raw units, of :attr:`output_shape`."""
        scaled = scaled_1HA[0] if self.window.num_actions > 1 else scaled_1HA[0, 0]
        return (scaled + 1.0) * self.half_range + self.low


class MainGraph(nn.Module):
    """The first half of an acting that has two (:class:`ActsInTwo`): all inputs to its intermediate result."""

    def __init__(self, graph: ActingGraph) -> None:
        super().__init__()
        assert isinstance(graph.acting, ActsInTwo)
        self.whole, self.acting = graph, graph.acting

    def forward(self, *inputs: torch.Tensor) -> torch.Tensor:
        images, state_1TS, task_id_1, noise = self.whole.prepared(*inputs)
        return self.acting.main(images, state_1TS, task_id_1, *noise)


class SideGraph(nn.Module):
    """The other half: frames to its embedding."""

    def __init__(self, graph: ActingGraph) -> None:
        super().__init__()
        assert isinstance(graph.acting, ActsInTwo)
        self.whole, self.acting = graph, graph.acting

    def forward(self, *frames: torch.Tensor) -> torch.Tensor:
        return self.acting.side(self.whole.images(*frames))
