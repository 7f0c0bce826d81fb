"""The captured step against the one launched op by op: on the CPU with a tape in place of the graph."""

from __future__ import annotations

import math
import sys
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from ptr_fast.cuda_graph import NUM_WARM_UP, CapturedStep, CudaGraphRecorder, EagerStep, StepClock, why_not_captured
from ptr_fast.types import Batch

sys.path.insert(0, str(Path(__file__).parent))
from tape import DirectRecorder, NotCapturableError, TapeRecorder, capturable


class Line:
    """A learner of one line: the loss depends on batch, step and an optimiser's state."""

    device = torch.device("cpu")

    def __init__(self, bad_step: int = -1, reads_back_at: int = -1) -> None:
        torch.manual_seed(0)
        self.net = torch.nn.Linear(3, 1)
        self.adam = torch.optim.Adam(self.net.parameters(), lr=0.1, fused=True)
        self.bad_step, self.reads_back_at, self.num_calls = bad_step, reads_back_at, 0

    def optimizers(self):
        return {"line": self.adam}

    def update(self, batch: Batch, step: int | torch.Tensor) -> dict[str, torch.Tensor]:
        self.num_calls += 1
        if self.num_calls == self.reads_back_at:
            float(batch.rewards.sum())
        is_bad = torch.as_tensor(step == self.bad_step) if isinstance(step, int) else step == self.bad_step
        loss = (self.net(batch.state).squeeze(1) - batch.rewards).square().mean() * (1.0 + 0.125 * step)
        self.adam.zero_grad(set_to_none=True)
        loss.backward()
        self.adam.step()
        loss = loss.detach()
        return {"loss": loss, "broken": torch.where(is_bad, math.nan, loss), "later": loss}

    def state(self) -> list[torch.Tensor]:
        return [*self.net.parameters(), *(v for s in self.adam.state.values() for v in s.values())]


class HostBatches:
    """A batch per step, in buffers that are written again and again, as the loader's."""

    on_device = False
    wait_seconds = 0.0

    def __init__(self, on_device: bool = False) -> None:
        self.on_device, self.asked = on_device, []
        self.state = torch.empty(4, 3)

    def batch(self, step: int | torch.Tensor) -> Batch:
        self.asked.append(step)
        ramp = torch.arange(12.0).view(4, 3)
        state = torch.sin(ramp * (step + 1))
        if not self.on_device:
            state = self.state.copy_(state)
        empty, scalars = torch.zeros(4, 1), ramp[:, 0]
        return Batch(
            images={"front": empty, "wrist": empty + 1.0},
            state=state,
            task_id=torch.zeros(4, dtype=torch.int64),
            actions=empty,
            rewards=state.sum(1),
            masks=scalars,
        )


def read(step: EagerStep) -> dict[str, float]:
    assert step.not_finite() is None
    return {name: float(value) for name, value in step.info.items()}


def make(kind: str, on_device: bool, num_done: int = 0, **options) -> EagerStep:
    learner, source = Line(**options), HostBatches(on_device)
    if kind == "eager":
        return EagerStep(learner, source, num_done)
    step = CapturedStep(learner, source, num_done, recorder=DirectRecorder())
    if kind == "tape":
        step._recorder = TapeRecorder(lambda: [*learner.state(), step._step, step._readout.values])
    return step


@pytest.mark.parametrize("on_device", [False, True], ids=["frames on the host", "frames on the device"])
@pytest.mark.parametrize("kind", ["direct", "tape"])
@pytest.mark.parametrize("num_done", [0, 7])
def test_captured_steps_equal_the_eager_ones_bit_by_bit(kind, on_device, num_done):
    eager, captured = make("eager", on_device, num_done), make(kind, on_device, num_done)
    for count in range(1, 13):
        eager.run()
        captured.run()
        assert captured.num_done == eager.num_done == num_done + count
        if count in (2, 5, 12):
            assert read(captured) == read(eager)
    for a, b in zip(eager.learner.state(), captured.learner.state(), strict=True):
        assert torch.equal(a, b)
    assert captured.why_eager is None


@pytest.mark.parametrize("on_device", [False, True])
def test_python_runs_for_the_warm_up_and_the_capture_alone(on_device):
    step = make("tape", on_device)
    for _ in range(10):
        step.run()
    assert step.learner.num_calls == NUM_WARM_UP + 1
    assert step._recorder.num_replays == 10 - NUM_WARM_UP
    assert int(step._step) == step.num_done == 10
    if not on_device:
        assert step.source.asked == list(range(10))


@pytest.mark.parametrize("kind", ["eager", "direct", "tape"])
@pytest.mark.parametrize("bad_step", [0, 1, 6, 9])
def test_what_was_not_finite_in_the_middle_of_a_stretch_is_named_with_its_step(kind, bad_step):
    step = make(kind, True, bad_step=bad_step)
    for _ in range(10):
        step.run()
    if bad_step < 9:
        assert math.isfinite(step.info["broken"])  # it had recovered; the stretch had not
    assert step.not_finite() == ("broken", bad_step + 1)
    step.run()
    assert step.not_finite() is None


def test_a_step_that_cannot_be_captured_goes_on_op_by_op_and_says_why():
    eager, step = make("eager", True), make("tape", True, reads_back_at=NUM_WARM_UP + 1)
    for _ in range(8):
        eager.run()
        step.run()
    assert step.why_eager == "the capture failed: Tensor.__float__ in a captured step"
    assert step.num_done == 8
    assert read(step) == read(eager)
    for a, b in zip(eager.learner.state(), step.learner.state(), strict=True):
        assert torch.equal(a, b)


def test_out_of_memory_is_not_hidden():
    class Full(DirectRecorder):
        def capture(self, work):
            raise torch.OutOfMemoryError("full")

    step = CapturedStep(Line(), HostBatches(), 0, recorder=Full())
    for _ in range(NUM_WARM_UP):
        step.run()
    with pytest.raises(torch.OutOfMemoryError):
        step.run()


def test_reading_needs_an_update():
    with pytest.raises(RuntimeError, match="no update"):
        _ = make("eager", True).info


def test_why_not():
    learner = Line()
    assert "needs a GPU" in why_not_captured(learner)
    learner.device = torch.device("cuda")
    assert "2 ranks" in why_not_captured(learner, num_ranks=2)
    assert why_not_captured(learner) == "the learning rate of line lies on the host"
    learner.adam.param_groups[0]["lr"] = torch.tensor(0.1)
    assert why_not_captured(learner) is None


@pytest.mark.parametrize(
    "work",
    [
        lambda x: x.item(),
        lambda x: x.view(1).tolist(),
        lambda x: x.numpy(),
        lambda x: bool(x > 0),
        lambda x: x.view(1)[x.view(1) > 0],
        lambda x: x.view(1).nonzero(),
        lambda x: x + torch.tensor([1.0, 2.0]),
        lambda x: torch.randn(3, generator=torch.Generator()),
        lambda x: torch.rand(3),
        lambda x: x.view(1).unique(),
        lambda x: torch.equal(x, x),
    ],
)
def test_the_tape_refuses_what_a_graph_cannot_hold(work):
    with pytest.raises(NotCapturableError), capturable():
        work(torch.ones(()))


class Calls:
    """Stands for ``torch.cuda`` with two GPUs, the first of which is current: writes down who waits for whom."""

    def __init__(self) -> None:
        self.log: list[str] = []
        self.num_streams = self.num_events = self.index = 0
        self.on = {0: "main0", 1: "main1"}
        note = self.log.append
        self.memory = SimpleNamespace(
            _cuda_endAllocateToPool=lambda index, pool: note(f"end of {pool} on {index}"),
            _cuda_releasePool=lambda index, pool: note(f"release of {pool} on {index}"),
        )

    def current_device(self):
        return self.index

    @contextmanager
    def device(self, index):
        self.index, before = index, self.index
        try:
            yield
        finally:
            self.index = before

    def Stream(self, index):
        self.num_streams += 1
        return self.stream_named(f"stream{self.num_streams}", index)

    def stream_named(self, name, index):
        note = self.log.append
        return SimpleNamespace(
            name=name,
            index=index,
            wait_stream=lambda other: note(f"{name} waits for {other.name}"),
            wait_event=lambda event: note(f"{name} waits for {event.name}"),
        )

    def Event(self, enable_timing=False):
        self.num_events += 1
        name = f"event{self.num_events}"
        return SimpleNamespace(name=name, record=lambda stream: self.log.append(f"{name} on {stream.name}"))

    def current_stream(self, index=None):
        index = index.index if isinstance(index, torch.device) else index
        index = self.index if index is None else index
        return self.stream_named(self.on[index], index)

    @contextmanager
    def stream(self, stream):
        before = self.index, self.on[stream.index]
        self.set_stream(stream)
        yield
        self.index, self.on[stream.index] = before

    def CUDAGraph(self):
        def pool():
            if self.is_broken:
                raise RuntimeError("no capture has ended")

        self.is_broken = False
        return SimpleNamespace(replay=lambda: self.log.append("replay"), pool=pool)

    def graph_pool_handle(self):
        return "the pool"

    def empty_cache(self):
        self.log.append("empty cache")

    def set_stream(self, stream):
        self.index, self.on[stream.index] = stream.index, stream.name

    @contextmanager
    def graph(self, graph, pool=None, *, stream, capture_error_mode):
        assert capture_error_mode == "thread_local"
        before = self.index, self.on[stream.index]
        self.set_stream(stream)
        self.draws_in_captures_alone = True
        try:
            yield
        except RuntimeError:
            self.is_broken = True
            raise RuntimeError("the capture was invalidated")  # noqa: B904 (as torch's own; the stream stays)
        self.draws_in_captures_alone = False  # torch: where a capture ends as it should, and nowhere else
        self.index, self.on[stream.index] = before

    @property
    def here(self):
        return self.on[self.index]


def test_streams_of_the_recorder_wait_for_each_other(monkeypatch):
    calls = Calls()
    monkeypatch.setattr(torch, "cuda", calls)
    recorder = CudaGraphRecorder(torch.device("cuda", 1))  # stream1 captures, stream2 copies

    class Traced:
        def __init__(self, name):
            self.name = name

        def clone(self):
            calls.log.append(f"{calls.here}: clone {self.name}")
            return Traced("fixed")

        def copy_(self, other, non_blocking):
            calls.log.append(f"{calls.here}: {self.name} <- {other.name}")

        def record_stream(self, stream):
            calls.log.append(f"{self.name} used on {stream.name}")

    def make(name):
        calls.log.append(f"{calls.here}: make {name}")
        images = {camera: Traced(f"{name}.{camera}") for camera in ("front", "wrist")}
        return Batch(images=images, state=Traced(f"{name}.state"))

    fixed = recorder.fill(lambda: make("a"), None)
    assert recorder.fill(lambda: make("b"), fixed) is fixed
    assert calls.log == [
        "stream2: make a",
        "main1 waits for stream2",
        "main0: clone a.front",
        "main0: clone a.wrist",
        "main0: clone a.state",
        "a.front used on main1",
        "a.wrist used on main1",
        "a.state used on main1",
        "event1 on main1",
        "stream2 waits for event1",
        "stream2: make b",
        "main1 waits for stream2",
        "main0: fixed <- b.front",
        "main0: fixed <- b.wrist",
        "main0: fixed <- b.state",
        "b.front used on main1",
        "b.wrist used on main1",
        "b.state used on main1",
        "event2 on main1",
    ]
    calls.log.clear()
    recorder.warm_up(lambda: calls.log.append(f"{calls.here}: work"))
    replay = recorder.capture(lambda: calls.log.append(f"{calls.here}: recorded"))
    replay()
    assert calls.log == [
        "stream1 waits for main1",
        "stream1: work",
        "main1 waits for stream1",
        "stream1: recorded",
        "replay",
    ]


def test_a_capture_that_breaks_tells_the_first_reason_and_gives_stream_memory_and_generator_back(monkeypatch):
    calls = Calls()
    monkeypatch.setattr(torch, "cuda", calls)
    recorder = CudaGraphRecorder(torch.device("cuda", 1))

    def reads_back():
        raise RuntimeError("an op reads back")

    with pytest.raises(RuntimeError, match="an op reads back"):
        recorder.capture(reads_back)
    assert calls.on == {0: "main0", 1: "main1"}
    assert calls.index == 0
    assert calls.log == ["end of the pool on 1", "release of the pool on 1", "empty cache"]
    assert not calls.draws_in_captures_alone


def test_the_clock_times_the_learners_device(monkeypatch):
    calls = Calls()
    monkeypatch.setattr(torch, "cuda", calls)
    with StepClock(torch.device("cuda", 1)).around():
        calls.log.append("work")
    assert calls.log == ["event1 on main1", "work", "event2 on main1"]


@pytest.mark.cuda
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_memory_stays_what_it_was_after_a_capture_that_broke_and_random_numbers_are_drawn():
    device = torch.device("cuda")

    class Onward(HostBatches):
        def batch(self, step):
            return super().batch(step).to(device)

    learner = Line(reads_back_at=NUM_WARM_UP + 1)
    learner.device = device
    learner.net.to(device)
    step = CapturedStep(learner, Onward(), 0)
    for _ in range(NUM_WARM_UP + 3):
        step.run()
    assert "the capture failed" in step.why_eager
    assert "MiB on the device" in step.why_eager
    torch.cuda.synchronize()
    before = torch.cuda.memory_reserved()
    for _ in range(20):
        step.run()
    torch.cuda.synchronize()
    assert torch.cuda.memory_reserved() == before
    assert torch.randn(3, device=device).isfinite().all()  # PyTorch's generator draws outside of captures again


@pytest.mark.cuda
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_a_replay_outlives_the_workspaces_of_cublas():
    """The graphs of torch.compile free them, and give memory that nobody uses back to the driver."""
    a, b = (torch.randn(64, 4096, device="cuda"), torch.randn(4096, 64, device="cuda"))  # small results: split sums
    out, recorder = torch.empty(64, 64, device="cuda"), CudaGraphRecorder(torch.device("cuda"))
    work = lambda: torch.mm(a, b, out=out)  # noqa: E731
    recorder.warm_up(work)
    replay = recorder.capture(work)
    torch._C._cuda_clearCublasWorkspaces()
    torch.cuda.empty_cache()
    replay()
    torch.cuda.synchronize()
    torch.testing.assert_close(out, a @ b)
