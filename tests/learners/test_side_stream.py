"""Work beside the current stream: which stream waits for which, and where an update forks and joins."""

from __future__ import annotations

from contextlib import contextmanager
from types import SimpleNamespace
from typing import ClassVar

import pytest
import torch
from learner_cases import make_batch, make_spec

from ptr_fast.config import CqlConfig, EncoderConfig
from ptr_fast.learners import make_learner
from ptr_fast.learners.cql import update
from ptr_fast.side_stream import SideStream

GPU = torch.device("cuda", 1)


@pytest.fixture
def gpu(monkeypatch) -> SimpleNamespace:
    """Streams that write down what they do."""
    log: list[str] = []
    made: list[torch.device] = []
    current = ["main"]

    def stream(name: str) -> SimpleNamespace:
        return SimpleNamespace(name=name, wait_stream=lambda other: log.append(f"{name} waits for {other.name}"))

    def new_stream(device: torch.device) -> SimpleNamespace:
        made.append(device)
        return stream(f"side {len(made)}")

    @contextmanager
    def on(stream: SimpleNamespace):
        current.append(stream.name)
        yield
        current.pop()

    fakes = {"Stream": new_stream, "stream": on, "current_stream": lambda device: stream(current[-1])}
    for name, fake in fakes.items():
        monkeypatch.setattr(torch.cuda, name, fake)
    return SimpleNamespace(log=log, made=made, work=lambda what: log.append(f"{what} on {current[-1]}"))


def test_a_fork_and_a_join(gpu):
    side, other = SideStream(), SideStream()
    side.join(GPU)  # nothing was forked
    for _ in range(2):
        with side.fork(GPU):
            gpu.work("target")
        gpu.work("critic")
        side.join(GPU)
    once = ["side 1 waits for main", "target on side 1", "critic on main", "main waits for side 1"]
    assert gpu.log == once * 2
    with other.fork(GPU):  # one may be captured while the other is used
        pass
    assert gpu.made == [GPU, GPU]


def test_the_cpu_knows_no_streams(gpu):
    side = SideStream()
    with side.fork(torch.device("cpu")):
        gpu.work("target")
    side.join(torch.device("cpu"))
    assert gpu.log == ["target on main"]
    assert gpu.made == []


class _Writes(SideStream):
    """Writes down where it forks and joins."""

    log: ClassVar[list[str]] = []

    @contextmanager
    def fork(self, device):
        self.log.append("fork")
        yield
        self.log.append("end of fork")

    def join(self, device):
        self.log.append("join")


@pytest.fixture
def calls(monkeypatch) -> list[str]:
    monkeypatch.setattr(_Writes, "log", [])
    monkeypatch.setattr(update, "SideStream", _Writes)
    return _Writes.log


def _hooked(calls: list[str], **modules: torch.nn.Module) -> None:
    for name, module in modules.items():
        module.register_forward_pre_hook(lambda module, args, name=name: calls.append(name))


def test_an_update_sees_the_next_state_beside_this_one_and_joins_before_the_target_is_read(calls, monkeypatch):
    encoder = EncoderConfig(name="conv3", num_filters=4, embedding_dim=8)
    spec = make_spec()
    learner = make_learner(CqlConfig(encoder=encoder, hidden_dims=(16, 16)), spec)
    _hooked(calls, actor=learner.actor.encoder, critic=learner.critic.encoder, target=learner.target_critic.encoder)
    loss = update.critic_terms
    monkeypatch.setattr(update, "critic_terms", lambda *args: (calls.append("loss"), loss(*args))[1])
    learner.update(make_batch(spec), 0)
    beside = ["fork", "actor", "target", "end of fork"]
    assert calls == [*beside, "critic", "actor", "join", "loss", "critic"]
