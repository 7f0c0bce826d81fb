"""The update of one step after another: launched op by op, or captured once in a CUDA graph and replayed.

Both run the same body: batch of the step, ``learner.update``, the numbers of the update into fixed buffers. Nothing is
read back from the device until someone looks at :attr:`EagerStep.info` or asks :meth:`EagerStep.not_finite`.

Note "What is captured". Everything from the index of a sample to the parameters, as one graph on fixed addresses. The
number of the step is a 0-d tensor on the device that the graph itself increments; sampling, random numbers and
learning rates are computed from it. Where the frames lie on the host, their part is a copy into fixed buffers before
the replay; where they lie on the device (``source.on_device``), the graph gathers them.

Note "Warm-up". Before a capture every library has to have initialised itself and every kernel has to be compiled. The
first updates do that: they run op by op on the stream of the capture, are real updates with their own step numbers, and
nothing has to be undone.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Any, Protocol

import torch

from ptr_fast.types import Batch

__all__ = [
    "BatchSource",
    "CapturedStep",
    "CudaGraphRecorder",
    "EagerStep",
    "GraphReplay",
    "Recorder",
    "StepClock",
    "copy_batch",
    "why_not_captured",
]

NUM_WARM_UP = 3


class BatchSource(Protocol):
    """Where batches come from: a :class:`ptr_fast.data.loader.Loader` or frames that lie on the device.

    Attributes:
        on_device: :meth:`batch` takes the step as a tensor and touches nothing but the device.
        wait_seconds: time spent waiting for batches since the start.
    """

    on_device: bool
    wait_seconds: float

    def batch(self, step: Any) -> Batch:
        """The batch of a step."""
        ...


class Recorder(Protocol):
    """How a captured step uses the device; the numbers do not depend on it."""

    def fill(self, make: Callable[[], Batch], fixed: Batch | None) -> Batch:
        """Makes a batch and copies it into fixed buffers (into new ones where there are none yet); returns those."""
        ...

    def warm_up(self, work: Callable[[], None]) -> None:
        """Runs ``work`` now, as a capture would run it."""
        ...

    def capture(self, work: Callable[[], None]) -> Callable[[], None]:
        """Records ``work`` without running it, and returns what replays it."""
        ...


class _Readout:
    """The numbers of the last update and the first step at which each was not finite, in fixed buffers."""

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self.names: tuple[str, ...] = ()

    @torch.no_grad()
    def write(self, info: dict[str, torch.Tensor], step: int | torch.Tensor) -> None:
        """Takes over 0-d tensors; a few small kernels, nothing is read back."""
        if not self.names:
            self.names = tuple(info)
            self.values = torch.zeros(len(info), dtype=torch.float64, device=self.device)
            self.first_bad = torch.full((len(info),), -1, dtype=torch.int64, device=self.device)
        self.values.copy_(torch.stack([info[name].detach().reshape(()) for name in self.names]))
        is_new = ~self.values.isfinite() & (self.first_bad < 0)
        self.first_bad.copy_(torch.where(is_new, step, self.first_bad))

    def not_finite(self) -> tuple[str, int] | None:
        """See :attr:`EagerStep.not_finite`."""
        steps = self.first_bad.tolist()
        self.first_bad.fill_(-1)
        bad = [(step, name) for step, name in zip(steps, self.names, strict=True) if step >= 0]
        if not bad:
            return None
        # Of the quantities that went bad in one step the first in the learner's order: losses before statistics.
        step, name = min(bad, key=lambda pair: pair[0])
        return name, step + 1


class StepClock:
    """How long the device works on a step: events around the launches of a sample of the steps.

    Where a step is launched op by op, gaps between its kernels count as work.

    Args:
        device: events are recorded on a GPU alone.
        every: one step in so many is measured.
    """

    def __init__(self, device: torch.device, every: int = 1) -> None:
        self._device, self._on, self._every, self._count = device, device.type == "cuda", every, 0
        self._pairs: list[tuple[torch.cuda.Event, torch.cuda.Event]] = []

    @contextmanager
    def around(self) -> Iterator[None]:
        """Measures the launches of one step, if it is its turn."""
        self._count += 1
        if not self._on or self._count % self._every:
            yield
            return
        begin, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        begin.record(torch.cuda.current_stream(self._device))
        yield
        end.record(torch.cuda.current_stream(self._device))
        self._pairs.append((begin, end))

    def seconds_per_step(self) -> float | None:
        """Mean since the last call, which waits for the device; None on the CPU and where nothing was measured."""
        if not self._pairs:
            return None
        self._pairs[-1][1].synchronize()
        total_ms = sum(begin.elapsed_time(end) for begin, end in self._pairs)
        mean = total_ms / 1000.0 / len(self._pairs)
        self._pairs.clear()
        return mean


class EagerStep:
    """One update per call, launched op by op.

    Args:
        learner: see :class:`ptr_fast.learners.Learner`.
        source: batches by step.
        num_done: updates done before; the number of the next step.
        clock_every: one step in so many is timed on the device.

    Attributes:
        num_done: updates done.
        why_eager: why the steps are not replayed from a graph; None where they are.
        clock: how long the device works on a step.
    """

    why_eager: str | None = "not asked for"

    def __init__(self, learner: Any, source: BatchSource, num_done: int, clock_every: int = 1) -> None:
        self.learner, self.source, self.num_done = learner, source, num_done
        self.clock = StepClock(learner.device, clock_every)
        self._readout = _Readout(learner.device)

    def run(self) -> None:
        """The next update; on a GPU it is only launched."""
        step = self.num_done
        batch = self.source.batch(step)
        with self.clock.around():
            self._readout.write(self.learner.update(batch, step), step)
        self.num_done += 1

    @property
    def info(self) -> dict[str, torch.Tensor]:
        """The numbers of the last update: float64 0-d tensors on the device that the next update overwrites.

        Raises:
            RuntimeError: no update has been made.
        """
        if not self._readout.names:
            raise RuntimeError("info: no update has been made yet")
        return dict(zip(self._readout.names, self._readout.values.unbind(), strict=True))

    def not_finite(self) -> tuple[str, int] | None:
        """Waits for the device: which quantity was the first that was not finite since the last call, and when.

        Returns:
            Its name and the number of updates that were done then (1 for the first of the run), or None.
        """
        return self._readout.not_finite()


class CapturedStep(EagerStep):
    """One update per call: the first few launched op by op, the others replayed from one graph.

    A capture that fails (an op that reads back, say) leaves parameters and step as they were; the steps then go on op
    by op and ``why_eager`` tells why.

    Args:
        recorder: makes the graph; a :class:`CudaGraphRecorder` on the learner's device by default.
    """

    why_eager = None

    def __init__(
        self,
        learner: Any,
        source: BatchSource,
        num_done: int,
        clock_every: int = 1,
        recorder: Recorder | None = None,
    ) -> None:
        super().__init__(learner, source, num_done, clock_every)
        self._recorder = CudaGraphRecorder(learner.device) if recorder is None else recorder
        self._step = torch.full((), num_done, dtype=torch.int64, device=learner.device)
        self._batch: Batch | None = None  # fixed buffers of a source on the host
        self._num_warm = 0
        self._replay: Callable[[], None] | None = None

    def run(self) -> None:
        """The next update; the host does no more than fill the buffers and launch."""
        if self.why_eager is not None:
            return super().run()
        if not self.source.on_device:
            self._batch = self._recorder.fill(lambda: self.source.batch(self.num_done), self._batch)
        if self._num_warm == NUM_WARM_UP and self._replay is None:
            try:
                self._replay = self._recorder.capture(self._body)
            except torch.OutOfMemoryError:
                raise
            except RuntimeError as error:
                self.why_eager = "the capture failed: " + str(error).partition("\n")[0]
                if self._step.is_cuda:
                    reserved = torch.cuda.memory_reserved(self._step.device) / 2**20
                    self.why_eager += f" (this process holds {reserved:.0f} MiB on the device after it)"
                return super().run()
        with self.clock.around():
            if self._replay is not None:
                self._replay()
            else:
                self._recorder.warm_up(self._body)
                self._num_warm += 1
        self.num_done += 1
        return None

    def _body(self) -> None:
        batch = self.source.batch(self._step) if self._batch is None else self._batch
        self._readout.write(self.learner.update(batch, self._step), self._step)
        self._step.add_(1)


def copy_batch(batch: Batch, fixed: Batch | None) -> Batch:
    """Copies a batch into the tensors of ``fixed``, or into new ones where it is None; returns those."""
    if fixed is None:
        return batch.map(lambda value: value.clone())
    values, there = batch.tensors(), fixed.tensors()
    for name, value in there.items():
        value.copy_(values[name], non_blocking=True)
    return fixed


class GraphReplay:
    """A captured graph; a call replays it on the current stream."""

    def __init__(self, graph: torch.cuda.CUDAGraph) -> None:
        self._graph = graph

    def __call__(self) -> None:
        self._graph.replay()

    def executable(self) -> int:
        """CUDA's handle of the executable graph (``cudaGraphExec_t``), which lives as long as this object.

        Whoever launches it himself does all that a replay does, unless the graph draws random numbers of PyTorch's.

        Raises:
            RuntimeError: this PyTorch does not give it out.
        """
        if not hasattr(self._graph, "raw_cuda_graph_exec"):
            raise RuntimeError(f"PyTorch {torch.__version__} does not give out the handle of a captured graph")
        return int(self._graph.raw_cuda_graph_exec())


class CudaGraphRecorder:
    """Captures work on a stream of its own, on which it was warmed up; batches come in on another one.

    Args:
        device: the GPU of all tensors of the work, whichever one is current.
    """

    def __init__(self, device: torch.device) -> None:
        self._index = torch.cuda.current_device() if device.index is None else device.index
        self._stream, self._copies = torch.cuda.Stream(self._index), torch.cuda.Stream(self._index)
        self._taken: torch.cuda.Event | None = None  # the last batch has arrived in the fixed buffers

    def fill(self, make: Callable[[], Batch], fixed: Batch | None) -> Batch:
        """See :class:`Recorder`.

        The copy to the device waits until the step before has its batch and begins, and so overlaps with it; however
        far the host runs ahead, there is one batch on the device beside the fixed one.
        """
        current = torch.cuda.current_stream(self._index)
        if self._taken is not None:
            self._copies.wait_event(self._taken)
        with torch.cuda.stream(self._copies):
            batch = make()
        current.wait_stream(self._copies)
        fixed = copy_batch(batch, fixed)
        for value in batch.tensors().values():
            value.record_stream(current)  # not to be used again before this copy is done
        self._taken = torch.cuda.Event()
        self._taken.record(current)
        return fixed

    def warm_up(self, work: Callable[[], None]) -> None:
        """See :class:`Recorder`."""
        current = torch.cuda.current_stream(self._index)
        self._stream.wait_stream(current)
        with torch.cuda.stream(self._stream):
            work()
        current.wait_stream(self._stream)

    def capture(self, work: Callable[[], None]) -> Callable[[], None]:
        """See :class:`Recorder`. The loader's thread may go on using the device meanwhile (thread-local mode)."""
        # From the warm-up on cuBLAS keeps a workspace for the stream, which others in the process may free (the graphs
        # of torch.compile do). Without it the capture takes a new one, in the memory that belongs to the graph.
        if hasattr(torch._C, "_cuda_clearCublasWorkspaces"):  # not in PyTorch's builds for the CPU
            torch._C._cuda_clearCublasWorkspaces()
        graph, pool = torch.cuda.CUDAGraph(), torch.cuda.graph_pool_handle()
        with torch.cuda.device(self._index):
            current = torch.cuda.current_stream()
            try:
                with torch.cuda.graph(graph, pool=pool, stream=self._stream, capture_error_mode="thread_local"):
                    work()
            except RuntimeError as error:
                # The end of a broken capture raises as well: it hides the reason, leaves the capture's stream current
                # and its memory pool open.
                torch.cuda.set_stream(current)
                self._close(graph, pool)
                self._draw_outside_of_captures()
                first = error.__context__
                raise (first if isinstance(first, RuntimeError) else error) from None
        return GraphReplay(graph)

    def _close(self, graph: torch.cuda.CUDAGraph, pool: tuple[int, int]) -> None:
        """Gives the memory of a broken capture back, which PyTorch does for those alone that end as they should."""
        try:
            graph.pool()
        except RuntimeError:  # the capture has no proper end; how far it came is not known
            with suppress(RuntimeError):
                torch.cuda.memory._cuda_endAllocateToPool(self._index, pool)  # type: ignore[attr-defined]
            with suppress(RuntimeError):
                torch.cuda.memory._cuda_releasePool(self._index, pool)  # type: ignore[attr-defined]
        torch.cuda.empty_cache()

    def _draw_outside_of_captures(self) -> None:
        """Makes PyTorch's random numbers on this GPU usable again: a capture lets its generator draw in captures alone,
        and only one that ends as it should takes that back. So an empty one follows a broken one.
        """
        with warnings.catch_warnings(), suppress(RuntimeError):
            warnings.filterwarnings("ignore", message="The CUDA Graph is empty")
            with torch.cuda.graph(torch.cuda.CUDAGraph(), stream=self._stream, capture_error_mode="thread_local"):
                pass


def why_not_captured(learner: Any, num_ranks: int = 1) -> str | None:
    """Why the updates of a learner cannot be replayed from a CUDA graph, or None.

    Whether every op of the update can be captured shows in the capture itself, after the warm-up.
    """
    if learner.device.type != "cuda":
        return f"a CUDA graph needs a GPU, the learner is on the {learner.device.type}"
    if num_ranks > 1:
        return f"gradients are averaged over {num_ranks} ranks, and collectives are not captured"
    for name, optimizer in learner.optimizers().items():
        if not all(isinstance(group["lr"], torch.Tensor) for group in optimizer.param_groups):
            return f"the learning rate of {name} lies on the host"
    return None
