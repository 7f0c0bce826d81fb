"""The whole update of the real learners, recorded once and replayed, against updates made op by op.

The tape stands for a CUDA graph (``tests/tape.py``): nothing may be read back, drawn on the host or uploaded, and a
number that Python computes from the step would stay what it was at the recording. Ops run as plain PyTorch here; their
Triton kernels take the same tensors.
"""

from __future__ import annotations

import itertools
import sys
from pathlib import Path

import pytest
import torch
from learner_cases import make_batch, make_spec

from ptr_fast.config import BcConfig, CqlConfig, EncoderConfig
from ptr_fast.cuda_graph import NUM_WARM_UP, CapturedStep, EagerStep, why_not_captured
from ptr_fast.kernels import dispatch
from ptr_fast.kernels.augment import yuv420
from ptr_fast.learners import base, make_learner
from ptr_fast.types import Batch, PooledFrames

sys.path.insert(0, str(Path(__file__).parents[1]))
from tape import DirectRecorder, TapeRecorder

ENCODER = EncoderConfig(name="conv3", num_filters=8, embedding_dim=16)
RESNET = EncoderConfig(name="resnet_small", embedding_dim=16)
CONFIGS = {
    "cql": CqlConfig(encoder=RESNET, hidden_dims=(16, 16), num_action_samples=2),
    "cql, one encoder, cosine": CqlConfig(
        encoder=ENCODER,
        hidden_dims=(16,),
        num_action_samples=2,
        actor_encoder="critic",
        lr_schedule="cosine",
        lr_schedule_steps=9,
    ),
    "cql on states": CqlConfig(
        encoder=EncoderConfig(name="none"), critic_head="plain", hidden_dims=(16, 16), num_action_samples=3
    ),
    "cql, bounded targets": CqlConfig(
        encoder=EncoderConfig(name="none"), critic_head="plain", hidden_dims=(16, 16), num_action_samples=3
    ),
    "bc, cosine": BcConfig(encoder=ENCODER, hidden_dims=(16,), lr_schedule="cosine", lr_schedule_steps=9),
    "bc, decay and clipping": BcConfig(encoder=ENCODER, hidden_dims=(16,), weight_decay=0.1, max_grad_norm=0.01),
}
SPEC = make_spec()


class Pool:
    """Batches of frames in a pool, chosen by the step."""

    on_device = True
    wait_seconds = 0.0

    def __init__(self, device: torch.device | str = "cpu", layout: str = "rgb", is_bounded: bool = False) -> None:
        self.rows = make_batch(SPEC, num_batch=24).to(device)
        frames = self.rows.images["camera"][:, 0]
        self.pool = frames if layout == "rgb" else yuv420.encode(frames)
        self.returns = torch.linspace(-20.0, 12.0, 24, device=device) if is_bounded else None

    def batch(self, step) -> Batch:
        rows = (torch.arange(6, device=self.rows.rewards.device) * 3 + step) % 24
        rows = rows.to(torch.int64)
        names = ("state", "next_state", "task_id", "actions", "rewards", "masks")
        return Batch(
            images={"camera": PooledFrames(self.pool, rows[:, None])},
            next_images={"camera": PooledFrames(self.pool, (rows[:, None] + 1) % 24)},
            **{name: getattr(self.rows, name).index_select(0, rows) for name in names},
            returns=None if self.returns is None else self.returns.index_select(0, rows),
        )


@pytest.fixture
def as_on_a_gpu(monkeypatch):
    """The implementations that PyTorch's dispatcher sees; no look at the values of a batch."""
    plain = [f"{op}={'planar' if op == 'augment' else 'reference'}" for op in dispatch.ops()]
    monkeypatch.setattr(base, "check_batch", lambda *_: None)
    with dispatch.use_backend(",".join(plain)):
        yield


@pytest.fixture
def deterministic():
    """Libraries add in one order: what two runs differ in is then our doing."""
    if not torch.cuda.is_available():
        pytest.skip("no GPU")
    before = torch.backends.cudnn.deterministic, torch.are_deterministic_algorithms_enabled()
    torch.backends.cudnn.deterministic = True
    torch.use_deterministic_algorithms(True, warn_only=True)
    yield
    torch.backends.cudnn.deterministic = before[0]
    torch.use_deterministic_algorithms(before[1])


def rates_on_the_device(learner) -> None:
    """Learning rates in tensors, as an optimiser on a GPU has them."""
    for optimizer in learner.optimizers().values():
        for group in optimizer.param_groups:
            group["lr"] = torch.tensor(group["lr"])


def state_of(learner) -> dict[str, torch.Tensor]:
    """Everything that an update changes."""
    state = {}
    for name, network in learner.networks().items():
        state |= {f"{name}.{key}": value for key, value in network.state_dict().items()}
    for name, optimizer in learner.optimizers().items():
        for number, group in enumerate(optimizer.param_groups):
            state[f"{name}.lr{number}"] = group["lr"]
        for number, entry in enumerate(optimizer.state.values()):
            state |= {f"{name}.{number}.{key}": value for key, value in entry.items()}
    return state


@pytest.mark.parametrize(
    ("name", "kind", "layout"),
    [*itertools.product(CONFIGS, ["direct", "tape"], ["rgb"]), ("bc, cosine", "tape", "yuv420")],
)
def test_replayed_updates_equal_the_eager_ones_bit_by_bit(name, kind, layout, as_on_a_gpu):
    steps = []
    for captured in (False, True):
        learner = make_learner(CONFIGS[name], SPEC, seed=1)
        rates_on_the_device(learner)
        if captured:
            step = CapturedStep(
                learner, Pool(layout=layout, is_bounded=name.endswith("bounded targets")), 0, recorder=DirectRecorder()
            )
            if kind == "tape":
                step._recorder = TapeRecorder(
                    lambda step=step, learner=learner: [
                        *state_of(learner).values(), step._step, step._readout.values, step._readout.first_bad
                    ]
                )  # fmt: skip
        else:
            step = EagerStep(learner, Pool(layout=layout, is_bounded=name.endswith("bounded targets")), 0)
        for _ in range(NUM_WARM_UP + 5):
            step.run()
        steps.append(step)
    eager, captured = steps
    assert captured.why_eager is None
    if kind == "tape":
        assert captured._recorder.num_replays == 5
    wanted, got = state_of(eager.learner), state_of(captured.learner)
    assert wanted.keys() == got.keys()
    for key, value in wanted.items():
        assert torch.equal(value, got[key]), key
    assert eager.info.keys() == captured.info.keys()
    for key, value in eager.info.items():
        assert torch.equal(value, captured.info[key]), key
    assert captured.not_finite() is None


def test_learners_can_be_captured_where_their_rates_are_on_the_device():
    learner = make_learner(CONFIGS["cql"], SPEC)
    learner.device = torch.device("cuda")
    assert why_not_captured(learner) == "the learning rate of actor lies on the host"
    rates_on_the_device(learner)
    assert why_not_captured(learner) is None


@pytest.mark.cuda
@pytest.mark.parametrize(("name", "layout"), [*itertools.product(CONFIGS, ["rgb"]), ("cql", "yuv420")])
def test_a_cuda_graph_trains_as_eager_launches_do(name, layout, deterministic):
    """Bit by bit; replays wait for nothing and allocate nothing."""
    steps = []
    for kind in (EagerStep, CapturedStep):
        learner = make_learner(CONFIGS[name], SPEC, seed=1, device="cuda")
        assert why_not_captured(learner) is None
        step = kind(learner, Pool("cuda", layout, name.endswith("bounded targets")), 0)
        for _ in range(NUM_WARM_UP + 1):
            step.run()
        torch.cuda.synchronize()
        allocated, num_allocations = torch.cuda.memory_allocated(), torch.cuda.memory_stats()["num_alloc_retries"]
        segments = torch.cuda.memory_stats()["segment.all.allocated"]
        if kind is CapturedStep:
            assert step.why_eager is None
            torch.cuda.set_sync_debug_mode("error")
        try:
            for _ in range(16):
                step.run()
        finally:
            torch.cuda.set_sync_debug_mode("default")
        if kind is CapturedStep:
            assert torch.cuda.memory_allocated() == allocated
            assert torch.cuda.memory_stats()["segment.all.allocated"] == segments
            assert torch.cuda.memory_stats()["num_alloc_retries"] == num_allocations
        assert step.clock.seconds_per_step() > 0
        steps.append(step)
    eager, captured = steps
    wanted, got = state_of(eager.learner), state_of(captured.learner)
    for key, value in wanted.items():
        assert torch.equal(value, got[key]), key
    for key, value in eager.info.items():
        assert torch.equal(value, captured.info[key]), key


@pytest.mark.cuda
def test_a_cuda_graph_of_our_cuda_kernels_trains_as_eager_launches_do(deterministic):
    """Norms on both streams and the heads, bit by bit; the kernels are forced, so that none is missed in silence."""
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("high")  # as training in bfloat16 does
    steps = []
    try:
        with dispatch.use_backend("cql_head=cuda,group_norm_act=cuda"):
            for kind in (EagerStep, CapturedStep):
                learner = make_learner(CONFIGS["cql"], SPEC, seed=1, device="cuda", encoder_dtype=torch.bfloat16)
                steps.append(kind(learner, Pool("cuda"), 0))
                for _ in range(NUM_WARM_UP + 8):
                    steps[-1].run()
    finally:
        torch.set_float32_matmul_precision(before)
    eager, captured = steps
    assert captured.why_eager is None
    wanted, got = state_of(eager.learner), state_of(captured.learner)
    for key, value in wanted.items():
        assert torch.equal(value, got[key]), key
    for key, value in eager.info.items():
        assert torch.equal(value, captured.info[key]), key


@pytest.mark.cuda
def test_a_cuda_graph_fed_from_the_host_trains_the_same(deterministic):
    """Batches made on the host, one per step, through the fixed buffers."""

    class Host(Pool):
        on_device = False

        def batch(self, step) -> Batch:
            batch = super().batch(step)
            batch = batch.map(lambda value: value.pool[value.index] if isinstance(value, PooledFrames) else value)
            return batch.to("cuda")  # as the loader hands it out

    infos = []
    for kind in (EagerStep, CapturedStep):
        step = kind(make_learner(CONFIGS["cql"], SPEC, seed=1, device="cuda"), Host(), 0)
        for _ in range(20):
            step.run()
        assert kind is EagerStep or step.why_eager is None
        infos.append(step.info)
    for key, value in infos[0].items():
        assert torch.equal(value, infos[1][key]), key
