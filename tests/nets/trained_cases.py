"""What every encoder has to stand: updates of both learners, a captured step, a checkpoint, an exported file."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from ptr_fast.checkpoint import save_checkpoint
from ptr_fast.config import ActConfig, BcConfig, CqlConfig, EncoderConfig
from ptr_fast.kernels import dispatch
from ptr_fast.learners import base, make_learner
from ptr_fast.runtime.policy import Policy

sys.path.insert(0, str(Path(__file__).parents[1]))
sys.path.insert(0, str(Path(__file__).parents[1] / "learners"))
from learner_cases import make_batch, make_spec
from tape import TapeRecorder

SIZE, NUM_UPDATES = 16, 4
LEARNERS = {"cql": CqlConfig, "bc": BcConfig}


def make(kind: str, encoder: EncoderConfig, **options):
    """A learner with rates in tensors, as a GPU has them."""
    learner = make_learner(LEARNERS[kind](encoder=encoder, hidden_dims=(8,)), make_spec(SIZE), **options)
    for optimizer in learner.optimizers().values():
        optimizer.param_groups[0]["lr"] = torch.tensor(optimizer.param_groups[0]["lr"])
    return learner


def state_of(learner) -> dict[str, torch.Tensor]:
    state = {f"{n}.{k}": v for n, net in learner.networks().items() for k, v in net.state_dict().items()}
    for name, optimizer in learner.optimizers().items():
        state[f"{name}.lr"] = optimizer.param_groups[0]["lr"]
        for number, entry in enumerate(optimizer.state.values()):
            state |= {f"{name}.{number}.{key}": value for key, value in entry.items()}
    return state


def check_trains_and_is_captured(kind: str, encoder: EncoderConfig, monkeypatch, **options):
    """Returns a learner after a few updates; those replayed from a tape gave the same bits, and every weight moved."""
    monkeypatch.setattr(base, "check_batch", lambda *_, **__: None)
    batch = make_batch(make_spec(SIZE))
    eager, captured = make(kind, encoder, **options), make(kind, encoder, **options)
    plain = [f"{op}={'planar' if op == 'augment' else 'reference'}" for op in dispatch.ops()]
    before = {name: value.clone() for name, value in eager.actor.named_parameters()}
    step = torch.zeros((), dtype=torch.int64)

    def work() -> None:
        captured.update(batch, step)
        step.add_(1)

    with dispatch.use_backend(",".join(plain)):
        captured.update(batch, step)  # makes the optimisers' state
        step.add_(1)
        replay = TapeRecorder(lambda: [*state_of(captured).values(), step]).capture(work)
        for _ in range(NUM_UPDATES - 1):
            replay()
        for done in range(NUM_UPDATES):
            info = eager.update(batch, torch.tensor(done))
    assert all(bool(value.isfinite()) for value in info.values())
    wanted, got = state_of(eager), state_of(captured)
    assert all(torch.equal(value, got[name]) for name, value in wanted.items())
    still = [name for name, value in eager.actor.named_parameters() if torch.equal(value, before[name])]
    assert still == [name for name, value in eager.actor.named_parameters() if not value.requires_grad]
    return eager


def check_acts_from_a_checkpoint_and_exported(
    learner, folder: Path, engines: tuple[str, ...] = ("openvino", "onnxruntime")
) -> None:
    """The checkpoint acts as the learner does, and OpenVINO and ONNX Runtime act as the checkpoint."""
    spec = learner.spec
    save_checkpoint(folder, 1, learner, spec, ActConfig(mode="mean"), {})
    frame = np.random.default_rng(0).integers(0, 256, (SIZE, SIZE, 3), np.uint8)
    state, task = np.zeros(spec.state.dim, np.float32), spec.tasks.names[0]
    action = Policy.load(folder).decide(frame, state, task)
    images = {spec.camera.name: torch.from_numpy(frame)[None].permute(0, 3, 1, 2) / 255.0}
    with torch.no_grad():
        scaled = learner.actor.mean_action(images, torch.from_numpy(state)[None], torch.tensor([0]))[0]
    np.testing.assert_allclose(action, spec.action.unscale(scaled.numpy()), atol=1e-5)
    for engine in engines:
        pytest.importorskip(engine)
        np.testing.assert_allclose(Policy.load(folder, engine=engine).decide(frame, state, task), action, atol=1e-4)
