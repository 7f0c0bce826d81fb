"""One action as one replay: copy-in, preprocessing, nets, un-scaling and copy-out, captured once in a CUDA graph."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol

import numpy as np
import torch

from ptr_fast import native
from ptr_fast.cuda_graph import NUM_WARM_UP, CudaGraphRecorder
from ptr_fast.runtime.graph import ActingGraph

__all__ = ["CapturedEngine", "WorkRecorder"]

_DRIVER = "libcuda.so.1"


class WorkRecorder(Protocol):
    """How work is warmed up and captured; :class:`ptr_fast.cuda_graph.CudaGraphRecorder` does it on a GPU."""

    def warm_up(self, work: Callable[[], None]) -> None:
        """Runs ``work`` now, as a capture would run it."""
        ...

    def capture(self, work: Callable[[], None]) -> Callable[[], None]:
        """Records ``work`` and returns what replays it."""
        ...


class CapturedEngine:
    """Fixed pinned buffers on the host, fixed buffers on the device, one graph between them, one wait per action.

    Args:
        graph: on the device where it runs. The capture is made here, after a warm-up.
        recorder: makes the graph; a :class:`ptr_fast.cuda_graph.CudaGraphRecorder` by default.

    Raises:
        RuntimeError: there is no GPU and no recorder, or an op of the graph cannot be captured.
    """

    def __init__(self, graph: ActingGraph, recorder: WorkRecorder | None = None) -> None:
        device = graph.low.device
        on_gpu = device.type == "cuda"
        if recorder is None and not on_gpu:
            raise RuntimeError(f"a CUDA graph needs a GPU, the policy is on the {device.type}")
        self._graph, self._device = graph, device
        recorder = recorder or CudaGraphRecorder(device)
        with torch.inference_mode():
            self._there = [torch.zeros_like(example) for example in graph.example()]
            self._here = [_host_buffer(tensor, on_gpu) for tensor in self._there]
            self._answer = _host_buffer(torch.zeros(graph.output_shape), on_gpu)
            for _ in range(NUM_WARM_UP):
                recorder.warm_up(self._body)
            self._wait()
            self._replay = recorder.capture(self._body)
        self._inputs = [tensor.numpy() for tensor in self._here]

    def run(self, *inputs: np.ndarray) -> np.ndarray:
        """See :class:`ptr_fast.runtime.engine.Engine`."""
        for buffer, array in zip(self._inputs, inputs, strict=True):
            if buffer.shape != array.shape:
                raise ValueError(f"input: expected {list(buffer.shape)}, got {list(array.shape)}")
            np.copyto(buffer, array)
        self._replay()
        self._wait()
        return self._answer.numpy().copy()

    def executor(self, driver: str = _DRIVER) -> Any:
        """The graph behind the control loop's own interface: the loop then acts without Python and its lock.

        It shares this engine's buffers: one of the two acts at a time. What the loop gets keeps this engine alive.

        Args:
            driver: name or path of the library of CUDA's driver.

        Returns:
            What :class:`ptr_fast.runtime.control.ControlLoop` takes as a policy.

        Raises:
            ValueError: a graph that takes noise, which comes from Python, or the task as an input.
            RuntimeError: the native module is missing, this PyTorch does not give out the graph's handle, or CUDA's
                driver cannot be used.
        """
        graph, window = self._graph, self._graph.window
        if graph.noise_shape is not None:
            raise ValueError("captured executor: this acting mode draws its noise in Python")
        if graph.slot is None:
            raise ValueError("captured executor: expected a graph of one task, got one with the task as an input")
        make = native.require().CudaGraphExecutor
        executable = getattr(self._replay, "executable", None)
        if executable is None:
            raise RuntimeError("captured executor: what was recorded is not a graph of PyTorch's")
        stream = 0
        if self._device.type == "cuda":
            self._stream = torch.cuda.Stream(self._device)
            stream = self._stream.cuda_stream
        *frames, state = (buffer.data_ptr() for buffer in self._here)
        frame_bytes = [3 * height * width for height, width in graph.frame_sizes.values()]
        shape = (window.num_observations, graph.num_state, window.num_actions, graph.num_axes)
        index = self._device.index or 0
        return make(
            self, driver, index, executable(), stream, frames, state, self._answer.data_ptr(), frame_bytes, *shape
        )

    def _body(self) -> None:
        with torch.inference_mode():
            for there, here in zip(self._there, self._here, strict=True):
                there.copy_(here, non_blocking=True)
            self._answer.copy_(self._graph(*self._there), non_blocking=True)

    def _wait(self) -> None:
        if self._device.type == "cuda":
            torch.cuda.current_stream(self._device).synchronize()


def _host_buffer(like: torch.Tensor, pinned: bool) -> torch.Tensor:
    return torch.zeros(like.shape, dtype=like.dtype, pin_memory=pinned)
