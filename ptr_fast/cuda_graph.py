"""The update of one step after another: launched op by op, or captured once in a CUDA graph and replayed.

Both run the same body: batch of the step, ``learner.update``, the numbers of the update into fixed buffers. Nothing is
read back from the device until :meth:`EagerStep.read`.

Note "What is captured". Everything from the index of a sample to the parameters, as one graph on fixed addresses. The
number of the step is a 0-d tensor on the device that the graph itself increments; sampling, random numbers and
learning rates are computed from it. Where the frames lie on the host, their part is a copy into fixed buffers before
the replay; where they lie on the device (``source.on_device``), the graph gathers them.

Note "Warm-up". Before a capture every library has to have initialised itself and every kernel has to be compiled. The
first updates do that: they run op by op on the stream of the capture, are real updates with their own step numbers, and
nothing has to be undone.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, fields
from typing import Any, Protocol

import torch

from ptr_fast.types import Batch

__all__ = ["BatchSource", "CapturedStep", "CudaGraphRecorder", "EagerStep", "Reading", "Recorder", "why_not_captured"]

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


@dataclass(frozen=True)
class Reading:
    """What was read back.

    Attributes:
        numbers: the last update's, by name.
        not_finite: name of the quantity that was the first not to be finite since the last reading, and how many
            updates were done when it was (1 for the first of the run); None where all stayed finite.
    """

    numbers: dict[str, float]
    not_finite: tuple[str, int] | None


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

    def read(self) -> Reading:
        """Waits for the device; forgets what was not finite."""
        flat = torch.cat([self.values, self.first_bad.to(torch.float64)]).tolist()
        self.first_bad.fill_(-1)
        values, steps = flat[: len(self.names)], flat[len(self.names) :]
        bad = [(int(step), name) for step, name in zip(steps, self.names, strict=True) if step >= 0]
        # Of the quantities that went bad in one step the first in the learner's order: losses before statistics.
        first = min(bad, key=lambda pair: pair[0]) if bad else None
        return Reading(dict(zip(self.names, values, strict=True)), None if first is None else (first[1], first[0] + 1))


class EagerStep:
    """One update per call, launched op by op.

    Args:
        learner: see :class:`ptr_fast.learners.Learner`.
        source: batches by step.
        num_done: updates done before; the number of the next step.

    Attributes:
        num_done: updates done.
        why_eager: why the steps are not replayed from a graph; None where they are.
    """

    def __init__(
        self, learner: Any, source: BatchSource, num_done: int, why_eager: str | None = "not asked for"
    ) -> None:
        self.learner, self.source, self.num_done, self.why_eager = learner, source, num_done, why_eager
        self._readout = _Readout(learner.device)

    def run(self) -> None:
        """The next update; on a GPU it is only launched."""
        step = self.num_done
        self._readout.write(self.learner.update(self.source.batch(step), step), step)
        self.num_done += 1

    def read(self) -> Reading:
        """The numbers of the last update; waits for the device.

        Raises:
            RuntimeError: no update has been made.
        """
        if not self._readout.names:
            raise RuntimeError("read: no update has been made yet")
        return self._readout.read()


class CapturedStep(EagerStep):
    """One update per call: the first few launched op by op, the others replayed from one graph.

    A capture that fails (an op that reads back, say) leaves parameters and step as they were; the steps then go on op
    by op and ``why_eager`` tells why.

    Args:
        recorder: makes the graph; :class:`CudaGraphRecorder` by default.
    """

    def __init__(self, learner: Any, source: BatchSource, num_done: int, recorder: Recorder | None = None) -> None:
        super().__init__(learner, source, num_done, why_eager=None)
        self._recorder = CudaGraphRecorder() if recorder is None else recorder
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
        if self._num_warm < NUM_WARM_UP:
            self._recorder.warm_up(self._body)
            self._num_warm += 1
        elif self._replay is None:
            try:
                self._replay = self._recorder.capture(self._body)
            except torch.OutOfMemoryError:
                raise
            except RuntimeError as error:
                self.why_eager = f"the capture failed: {str(error).splitlines()[0]}"
                return super().run()
            self._replay()
        else:
            self._replay()
        self.num_done += 1
        return None

    def _body(self) -> None:
        batch = self.source.batch(self._step) if self._batch is None else self._batch
        self._readout.write(self.learner.update(batch, self._step), self._step)
        self._step.add_(1)


def copy_batch(batch: Batch, fixed: Batch | None) -> Batch:
    """Copies a batch into the tensors of ``fixed``, or into new ones where it is None; returns those."""
    if fixed is None:
        return Batch(**{f.name: getattr(batch, f.name).clone() for f in fields(Batch)})
    for field in fields(Batch):
        getattr(fixed, field.name).copy_(getattr(batch, field.name), non_blocking=True)
    return fixed


class CudaGraphRecorder:
    """Captures work on a stream of its own, on which it was warmed up; batches come in on another one."""

    def __init__(self) -> None:
        self._stream, self._copies = torch.cuda.Stream(), torch.cuda.Stream()
        self._taken: torch.cuda.Event | None = None  # the last batch has arrived in the fixed buffers

    def fill(self, make: Callable[[], Batch], fixed: Batch | None) -> Batch:
        """See :class:`Recorder`.

        The copy to the device waits until the step before has its batch and begins, and so overlaps with it; however
        far the host runs ahead, there is one batch on the device beside the fixed one.
        """
        current = torch.cuda.current_stream()
        if self._taken is not None:
            self._copies.wait_event(self._taken)
        with torch.cuda.stream(self._copies):
            batch = make()
        current.wait_stream(self._copies)
        fixed = copy_batch(batch, fixed)
        for field in fields(Batch):
            getattr(batch, field.name).record_stream(current)  # not to be used again before this copy is done
        self._taken = torch.cuda.Event()
        self._taken.record(current)
        return fixed

    def warm_up(self, work: Callable[[], None]) -> None:
        """See :class:`Recorder`."""
        self._stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(self._stream):
            work()
        torch.cuda.current_stream().wait_stream(self._stream)

    def capture(self, work: Callable[[], None]) -> Callable[[], None]:
        """See :class:`Recorder`. The loader's thread may go on using the device meanwhile (thread-local mode)."""
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph, stream=self._stream, capture_error_mode="thread_local"):
            work()
        return graph.replay


def why_not_captured(learner: Any, num_ranks: int = 1) -> str | None:
    """Why the updates of a learner cannot be replayed from a CUDA graph, or None.

    Whether every op of the update can be captured shows in the capture itself, after the warm-up.
    """
    if learner.device.type != "cuda":
        return f"a CUDA graph needs a GPU, the learner is on the {learner.device.type}"
    if num_ranks > 1:
        return f"gradients are averaged over {num_ranks} ranks, and collectives are not captured"
    for name, optimizer in learner.optimizers().items():
        if any(group.get("capturable") is False for group in optimizer.param_groups):
            return f"the optimiser of {name} counts its steps on the host"
    return None
