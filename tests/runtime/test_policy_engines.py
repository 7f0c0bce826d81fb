"""What runs a policy's nets: every engine against the eager one, what is in memory, and what is refused."""

from __future__ import annotations

import os
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
import toy_robot

from ptr_fast import native
from ptr_fast.checkpoint import save_checkpoint
from ptr_fast.config import ActConfig, AugmentConfig, CqlConfig, EncoderConfig, PolicySpec, TaskTable
from ptr_fast.learners import make_learner
from ptr_fast.resize import resize
from ptr_fast.runtime import engine as engines
from ptr_fast.runtime import policy as policy_module
from ptr_fast.runtime.captured import CapturedEngine
from ptr_fast.runtime.control import ControlLoop, LoopConfig, PythonPolicy
from ptr_fast.runtime.engine import BOUND, make_engine, native_executor, why_not
from ptr_fast.runtime.graph import noise_for
from ptr_fast.runtime.policy import Policy
from ptr_fast.runtime.preprocess import GraphResize
from ptr_fast.runtime.safety import AxisLimits, SafetyLimits
from ptr_fast.types import CameraSpec

TASKS = ("put carrot on plate", "flip pot upright")
CAMERA_SIZE = (60, 80)
CAMERAS = {"image_0": CAMERA_SIZE}
CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory) -> Path:
    meta = toy_robot.toy_meta(("image_0",))
    spec = PolicySpec(
        cameras=meta.cameras[:1],
        state=meta.state,
        action=meta.action,
        tasks=TaskTable(names=TASKS, num_slots=4),
        control_hz=5.0,
    )
    encoder = EncoderConfig(name="conv3", num_filters=8, embedding_dim=16)
    learner = make_learner(CqlConfig(encoder=encoder, hidden_dims=(16, 16), augment=AugmentConfig()), spec, seed=1)
    generator = torch.Generator().manual_seed(2)
    with torch.no_grad():  # actions that differ from one another
        for network in learner.networks().values():
            for parameter in network.parameters():
                parameter.add_(0.1 * torch.randn(parameter.shape, generator=generator))
    act = ActConfig(num_candidates=6, num_elites=2)
    return save_checkpoint(tmp_path_factory.mktemp("engines"), 7, learner, spec, act, {"split": {"sources": []}})


@pytest.fixture(scope="module")
def models(checkpoint) -> dict[str, bytes]:
    """ONNX files by acting mode."""
    pytest.importorskip("onnxscript")
    return {mode: Policy.load(checkpoint, mode=mode).to_onnx() for mode in ("mean", "search")}


def seen(seed: int = 0, size: tuple[int, int] = (toy_robot.SIZE, toy_robot.SIZE)):
    rng = np.random.default_rng(seed)
    return rng.integers(0, 256, (*size, 3), dtype=np.uint8), rng.normal(size=7).astype(np.float32)


def inputs_of(policy: Policy, frame, state, task: str, seed: int = 0) -> list[np.ndarray]:
    inputs = [frame, state, np.array([policy.spec.tasks.slot(task)])]
    if policy.mode == "search":
        inputs.append(noise_for(seed, (policy.act_config.num_candidates, policy.spec.action.dim)).numpy())
    return inputs


def half_range(policy: Policy) -> np.ndarray:
    return 0.5 * (np.array(policy.spec.action.high) - np.array(policy.spec.action.low))


@pytest.mark.parametrize(
    ("mode", "loaded"),
    [("mean", ("actor",)), ("ema_mean", ("ema_actor",)), ("search", ("ema_actor", "target_critic"))],
)
def test_only_the_nets_that_act_are_in_memory(checkpoint, mode, loaded):
    policy = Policy.load(checkpoint, mode=mode)
    frame, state = seen()
    policy.decide(frame, state, TASKS[0])
    assert policy.loaded == loaded
    policy.predict_value({"image_0": frame[None]}, state[None], TASKS[0], np.zeros((1, 7), np.float32))
    assert set(policy.loaded) == {*loaded, "critic"}
    assert set(policy.networks) == {"actor", "ema_actor", "critic", "target_critic"}


@pytest.mark.parametrize("mode", ["mean", "search"])
@pytest.mark.parametrize("name", ["onnxruntime", "openvino"])
def test_an_engine_acts_like_the_eager_one(checkpoint, models, name, mode):
    pytest.importorskip(name)
    policy = Policy.load(checkpoint, mode=mode)
    chosen, engine, told = make_engine(name, policy.graph(), lambda: models[mode])
    assert chosen == name
    assert "of eager" in told[-1]
    for seed, task in enumerate(TASKS):
        frame, state = seen(seed)
        expected = policy.decide(frame, state, task, seed=seed)
        given = inputs_of(policy, frame, state, task, seed)
        difference = np.abs(engine.run(*given) - expected) / half_range(policy)
        assert difference.max() < BOUND
        assert (engine.run(*given) == engine.run(*given)).all()


def test_a_search_runs_both_encoders_at_once(checkpoint):
    for package in ("onnxruntime", "onnxscript"):
        pytest.importorskip(package)
    policy = Policy.load(checkpoint, mode="search")
    engine = engines.OnnxRuntimeInTwo(policy.graph(), bytes)
    for seed, task in enumerate(TASKS):
        frame, state = seen(seed)
        given = inputs_of(policy, frame, state, task, seed)
        difference = np.abs(engine.run(*given) - policy.decide(frame, state, task, seed=seed)) / half_range(policy)
        assert difference.max() < BOUND
        assert (engine.run(*given) == engine.run(*given)).all()


def test_auto_takes_the_first_that_can_run_and_tells(checkpoint, monkeypatch):
    monkeypatch.setattr(engines, "find_spec", lambda name: None)
    policy = Policy.load(checkpoint, engine="auto")
    assert policy.explain() == "auto (not made yet)"
    policy.warm_up()
    assert policy.explain().startswith("eager (not onnxruntime: not installed")
    eager = Policy.load(checkpoint)
    frame, state = seen()
    assert (policy.decide(frame, state, TASKS[1]) == eager.decide(frame, state, TASKS[1])).all()
    assert eager.explain() == "eager"
    policy.reset()


def test_engines_that_cannot_run_are_refused(checkpoint, monkeypatch):
    with pytest.raises(ValueError, match="expected auto, one of"):
        Policy.load(checkpoint, engine="tensorflow")
    with pytest.raises(RuntimeError, match="needs a GPU"):
        Policy.load(checkpoint, engine="cuda_graph")
    assert "it runs on the CPU" in str(why_not("openvino", torch.device("cuda")))
    monkeypatch.setattr(engines, "find_spec", lambda name: None)
    with pytest.raises(RuntimeError, match="pip install 'ptr-fast\\[export\\]'"):
        Policy.load(checkpoint, engine="onnxruntime")


class _Wrong:
    def __init__(self, graph, model):
        self.graph = graph

    def run(self, *inputs):
        return np.full(self.graph.num_axes, np.nan, np.float32)


def test_an_engine_that_acts_differently_is_not_used(checkpoint, monkeypatch):
    monkeypatch.setattr(engines, "why_not", lambda name, device: None if name != "openvino" else "not today")
    monkeypatch.setitem(engines.ENGINES, "onnxruntime", _Wrong)
    policy = Policy.load(checkpoint)
    name, _, reasons = make_engine("auto", policy.graph(), bytes)
    assert name == "eager"
    assert "not onnxruntime: its action differs" in reasons[0]
    with pytest.raises(RuntimeError, match="its action differs from the eager one by inf"):
        make_engine("onnxruntime", policy.graph(), bytes)


def test_an_openvino_that_does_not_compile_the_net_is_passed_over_and_told(checkpoint, monkeypatch):
    openvino = pytest.importorskip("openvino")

    def refuse(self, *args):
        raise RuntimeError("Exception from core.cpp:117:\nbad combination\n")

    monkeypatch.setattr(openvino.Core, "compile_model", refuse)
    with pytest.raises(RuntimeError, match=r"'openvino' cannot run: OpenVINO does not .* here \(.*: bad combination\)"):
        Policy.load(checkpoint, engine="openvino").warm_up()
    monkeypatch.setitem(engines.PREFERENCE, "cpu", ("openvino", "eager"))
    policy = Policy.load(checkpoint, engine="auto")
    policy.warm_up()
    told = "not openvino: OpenVINO does not compile this policy here (Exception from core.cpp:117: bad combination)"
    assert policy.explain() == f"eager ({told})"


class EagerRecorder:
    """Stands in for a CUDA graph: the replay runs the work again."""

    def __init__(self) -> None:
        self.calls: list[str] = []

    def warm_up(self, work):
        self.calls.append("warm up")
        work()

    def capture(self, work):
        self.calls.append("capture")
        return work


def test_openvino_compiles_as_if_there_were_no_mask_for_onednn(checkpoint, models, monkeypatch):
    """``make test-isa`` has the real thing: under the mask a frozen ResNet ended the process on a newer processor."""
    openvino = pytest.importorskip("openvino")
    compile_model, masks = openvino.Core.compile_model, []

    def compile_here(*args):
        masks.append(os.environ.get("ONEDNN_MAX_CPU_ISA"))
        return compile_model(*args)

    monkeypatch.setattr(openvino.Core, "compile_model", compile_here)
    monkeypatch.setenv("ONEDNN_MAX_CPU_ISA", "AVX2")
    make_engine("openvino", Policy.load(checkpoint, mode="mean").graph(), lambda: models["mean"])
    assert masks == [None]
    assert os.environ["ONEDNN_MAX_CPU_ISA"] == "AVX2"


@pytest.mark.parametrize("mode", ["mean", "search"])
def test_a_captured_action_works_on_fixed_buffers(checkpoint, mode):
    policy, recorder = Policy.load(checkpoint, mode=mode), EagerRecorder()
    engine = CapturedEngine(policy.graph(CAMERAS), recorder)
    assert recorder.calls == ["warm up"] * 3 + ["capture"]
    for seed, task in enumerate(TASKS):
        frame, state = seen(seed, CAMERA_SIZE)
        got = engine.run(*inputs_of(policy, frame, state, task, seed))
        difference = np.abs(got - policy.decide(frame, state, task, seed=seed)) / half_range(policy)
        assert difference.max() < 0.02  # the resize may differ by a level
    with pytest.raises(ValueError, match="input: expected"):
        engine.run(*inputs_of(policy, frame[1:], state, TASKS[0]))


@pytest.mark.cuda
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_a_cuda_graph_acts_like_the_eager_policy(checkpoint):
    eager, captured = Policy.load(checkpoint, "cuda"), Policy.load(checkpoint, "cuda", engine="cuda_graph")
    captured.warm_up(CAMERAS)
    frame, state = seen(1, CAMERA_SIZE)
    difference = np.abs(captured.decide(frame, state, TASKS[0]) - eager.decide(frame, state, TASKS[0])) / half_range(
        eager
    )
    assert difference.max() < 0.02
    assert captured.explain().startswith("cuda_graph")


@pytest.mark.cuda
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
@pytest.mark.skipif(native.module() is None, reason=str(native.why_missing()))
def test_the_loop_replays_the_captured_graph_itself_or_tells_why_not(checkpoint):
    eager, captured = Policy.load(checkpoint, "cuda"), Policy.load(checkpoint, "cuda", engine="cuda_graph")
    executor = captured.make_executor(CAMERAS, TASKS[1])
    if not hasattr(torch.cuda.CUDAGraph, "raw_cuda_graph_exec"):
        assert isinstance(executor, PythonPolicy)
        assert "does not give out the handle" in captured.explain()
        return
    assert type(executor).__name__ == "CudaGraphExecutor"
    for seed in range(3):
        frame, state = seen(seed, CAMERA_SIZE)
        difference = np.abs(executor.run([frame], state)[0] - eager.decide(frame, state, TASKS[1])) / half_range(eager)
        assert difference.max() < 0.02


@pytest.mark.parametrize("fitted", [(48, 48), (128, 128), (37, 70)], ids=["fifth", "quarter", "odd"])
@pytest.mark.parametrize("size", [(120, 160), (48, 48), (31, 64)], ids=["camera", "same", "enlarged"])
def test_the_resize_of_a_graph_is_pillows_within_a_level(size, fitted):
    camera = CameraSpec(name="image_0", height=fitted[0], width=fitted[1])
    frame, _ = seen(3, size)
    frame[: size[0] // 2] = np.where(frame[: size[0] // 2] > 127, 255, 0)  # overshoot is clipped
    levels = GraphResize(*size, camera)(torch.from_numpy(frame))[0].permute(1, 2, 0) * 255.0
    difference = np.abs(levels.numpy() - resize(frame, *fitted))
    assert difference.max() <= 1.0 + 1e-4
    assert (difference > 1e-3).mean() < 0.01


@pytest.fixture(scope="module")
def executor(checkpoint):
    """OpenVINO behind the loop's interface, for frames of a camera and one task."""
    pytest.importorskip("openvino")
    pytest.importorskip("onnxscript")
    if native.module() is None:
        pytest.skip(f"the native module is missing: {native.why_missing()}")
    policy = Policy.load(checkpoint)
    return native_executor(policy.graph(task=TASKS[1]), policy.to_onnx(task=TASKS[1]), CAMERAS)


def test_the_native_executor_acts_like_the_policy(checkpoint, executor):
    policy = Policy.load(checkpoint)
    for seed in range(3):
        frame, state = seen(seed, CAMERA_SIZE)
        difference = np.abs(executor.run([frame], state)[0] - policy.decide(frame, state, TASKS[1])) / half_range(
            policy
        )
        assert difference.max() < BOUND
    with pytest.raises(ValueError, match="frame: the policy takes 14400 bytes of camera 0, got 14160"):
        executor.run([frame[1:]], state)
    with pytest.raises(ValueError, match="frames: the policy takes 1 cameras, got 2"):
        executor.run([frame, frame], state)
    with pytest.raises(ValueError, match="state: the policy takes 7 numbers, got 3"):
        executor.run([frame], state[:3])


def test_the_native_executor_takes_the_task_and_says_what_it_refuses(checkpoint, models, executor):
    policy = Policy.load(checkpoint)
    with_input = native_executor(policy.graph(), models["mean"], policy.graph().frame_sizes, slot=1)
    frame, state = seen()
    difference = np.abs(with_input.run([frame], state)[0] - policy.decide(frame, state, TASKS[1])) / half_range(policy)
    assert difference.max() < BOUND
    with pytest.raises(RuntimeError, match="reading the model failed"):
        native_executor(policy.graph(), b"no model", CAMERAS)
    with pytest.raises(ValueError, match="bytes of frame"):
        native_executor(policy.graph(CAMERAS), models["mean"], CAMERAS)
    with pytest.raises(ValueError, match="this acting mode draws its noise in Python"):
        native_executor(Policy.load(checkpoint, mode="search").graph(), models["search"], CAMERAS)
    with pytest.raises(RuntimeError, match="cannot be opened"):
        native.require().OpenVinoExecutor("/nowhere.so", b"", [], [("frame", (1, 1), (1, 1))], 1, 1, 1, 1, 0)


class StillArm:
    def __init__(self) -> None:
        self.sent = 0

    def send(self, command):
        self.sent += 1

    def stop(self):
        pass


def test_the_loop_runs_the_native_executor(checkpoint, executor):
    policy, arm = Policy.load(checkpoint), StillArm()
    axes = [AxisLimits(name=n, relative=True, position=i, low=-1.0, high=1.0) for i, n in enumerate(toy_robot.NAMES)]
    limits = SafetyLimits(axes=axes, state_size=7, period_s=0.1, ramp_s=0.0, hold_after_s=20.0, stop_after_s=30.0)
    config = LoopConfig(hz=10.0, num_steps=3, policy_timeout_s=20.0, watchdog_s=20.0)
    with pytest.raises(ValueError, match="bytes of camera 0, got 6912"):
        ControlLoop(config, limits, executor, arm, {"image_0": (48, 48)})
    frame, state = seen(1, CAMERA_SIZE)
    with ControlLoop(config, limits, executor, arm, CAMERAS) as loop:
        loop.put_frame("image_0", frame, time.monotonic_ns())
        loop.put_state(state, time.monotonic_ns())
        loop.warm_up(2)
        loop.start()
        assert loop.wait(30.0)
        records = list(loop.drain())
    assert arm.sent == 3
    expected = policy.decide(frame, state, TASKS[1])
    for record, _ in records:
        assert (np.abs(record["action"][:7] - expected) / half_range(policy)).max() < 0.02


def test_auto_takes_frames_of_any_size(checkpoint):
    for package in ("onnxruntime", "onnxscript", "openvino"):
        pytest.importorskip(package)
    fast, eager = Policy.load(checkpoint, engine="auto"), Policy.load(checkpoint)
    fast.warm_up(CAMERAS)
    frame, state = seen(2, CAMERA_SIZE)
    difference = np.abs(fast.decide(frame, state, TASKS[0]) - eager.decide(frame, state, TASKS[0])) / half_range(eager)
    assert difference.max() < 0.02
    assert fast.explain().startswith("onnxruntime (within")
    if native.module() is not None:
        assert type(fast.make_executor(CAMERAS, TASKS[0])).__name__ == "OpenVinoExecutor"


def test_an_executor_that_acts_differently_is_not_taken(checkpoint, executor, monkeypatch):
    made = native_executor
    monkeypatch.setattr(
        policy_module, "native_executor", lambda graph, model, size, slot: made(graph, model, size, 1 - slot)
    )
    sizes = CAMERAS
    assert isinstance(Policy.load(checkpoint, engine="auto").make_executor(sizes, TASKS[0]), PythonPolicy)
    with pytest.raises(RuntimeError, match="engine 'openvino' acts differently"):
        Policy.load(checkpoint, engine="openvino").make_executor(sizes, TASKS[0])


def test_an_executor_of_a_policy_without_openvino_is_python(checkpoint):
    policy = Policy.load(checkpoint, mode="search")
    executor = policy.make_executor(CAMERAS, TASKS[0])
    frame, state = seen(0, CAMERA_SIZE)
    first, second = (executor.act({"image_0": frame[None]}, state[None]) for _ in range(2))
    assert (first == policy.decide(frame, state, TASKS[0], seed=0)).all()
    assert (second == policy.decide(frame, state, TASKS[0], seed=1)).all()
