"""Acting without Python: a captured graph behind the control loop's interface, on a stand-in for CUDA's driver."""

from __future__ import annotations

import ctypes
import shutil
import subprocess
import time
import weakref
from pathlib import Path

import numpy as np
import pytest
import torch
import toy_robot

from ptr_fast import native
from ptr_fast.config import PolicySpec, TaskTable
from ptr_fast.cuda_graph import GraphReplay
from ptr_fast.runtime.captured import CapturedEngine
from ptr_fast.runtime.control import ControlLoop, LoopConfig
from ptr_fast.runtime.graph import ActingGraph
from ptr_fast.runtime.safety import AxisLimits, SafetyLimits
from ptr_fast.types import Window

pytestmark = [
    pytest.mark.skipif(native.module() is None, reason=str(native.why_missing())),
    pytest.mark.skipif(shutil.which("cc") is None, reason="there is no C compiler"),
]


@pytest.fixture(scope="module")
def driver(tmp_path_factory) -> ctypes.CDLL:
    library = tmp_path_factory.mktemp("driver") / "libcuda.so"
    source = Path(__file__).with_name("fake_cuda_driver.c")
    subprocess.run(["cc", "-O1", "-shared", "-fPIC", str(source), "-o", str(library)], check=True)
    return ctypes.CDLL(str(library))


def count(driver, name: str) -> int:
    return ctypes.c_int.in_dll(driver, name).value


def address(driver, name: str) -> int:
    return ctypes.addressof(ctypes.c_char.in_dll(driver, name))


def make(driver, owner: object = None, path: str | None = None, device: int = 1, frames: int = 1, executable=None):
    """An executor of the driver's own graph: T = 2 frames of 4 x 5, S = 3, H = 3, A = 2."""
    if executable is None:
        executable = ctypes.cast(driver.graph, ctypes.c_void_p).value
    buffers = [address(driver, "frame")] * frames, address(driver, "state"), address(driver, "action")
    make = native.require().CudaGraphExecutor
    return make(owner, path or driver._name, device, executable, 7, *buffers, [60], 2, 3, 3, 2)


def test_one_launch_and_one_wait_for_an_answer(driver):
    launches, waits = count(driver, "launches"), count(driver, "waits")
    executor = make(driver)
    frames, state = np.zeros((2, 4, 5, 3), np.uint8), np.arange(6, dtype=np.float32).reshape(2, 3)
    frames[0, 0, 0, 0], frames[1, 0, 0, 0] = 3, 2
    np.testing.assert_array_equal(executor.run([frames], state), 23.0 + state.reshape(3, 2))
    assert (count(driver, "launches"), count(driver, "waits")) == (launches + 1, waits + 1)
    assert (executor.num_observations, executor.num_actions) == (2, 3)


def test_the_device_and_the_owner_are_let_go_of(driver):
    class Owner:
        pass

    before, owner = count(driver, "retained"), Owner()
    alive = weakref.ref(owner)
    executor = make(driver, owner)
    del owner
    assert count(driver, "retained") == before + 41
    assert alive() is not None
    del executor
    assert count(driver, "retained") == before
    assert alive() is None


def test_what_cannot_run_is_told(driver, tmp_path):
    with pytest.raises(RuntimeError, match="driver cannot be opened: /nowhere"):
        make(driver, path="/nowhere/libcuda.so")
    with pytest.raises(RuntimeError, match=r"finding the device failed \(101\): invalid device ordinal"):
        make(driver, device=2)
    with pytest.raises(ValueError, match="expected frames of 1 cameras, got 2"):
        make(driver, frames=2)
    with pytest.raises(ValueError, match="expected the handle of an executable graph, got 0"):
        make(driver, executable=0)
    empty = tmp_path / "empty.c"
    empty.write_text("int nothing;\n")
    subprocess.run(["cc", "-shared", "-fPIC", str(empty), "-o", str(tmp_path / "empty.so")], check=True)
    with pytest.raises(RuntimeError, match="CUDA's driver has no function cuInit"):
        make(driver, path=str(tmp_path / "empty.so"))
    executor = make(driver)
    driver.fail_next(700)
    with pytest.raises(RuntimeError, match=r"launching the graph failed \(700\): an illegal memory access"):
        executor.run([np.zeros((2, 4, 5, 3), np.uint8)], np.zeros((2, 3), np.float32))


class _StillArm:
    def send(self, command):
        pass

    def stop(self):
        pass


def test_the_loop_acts_while_python_holds_its_lock(driver):
    """Twenty steps within a second in which Python does not let go: a policy that took the lock would wait for it."""
    axes = [AxisLimits(name=n, relative=True, low=-100.0, high=100.0) for n in "xy"]
    limits = SafetyLimits(axes=axes, state_size=3, period_s=0.02, ramp_s=0.0, hold_after_s=20.0, stop_after_s=30.0)
    config = LoopConfig(hz=50.0, num_steps=20, dry_run=True, policy_timeout_s=20.0, watchdog_s=20.0)
    hold = ctypes.PyDLL(None).usleep  # a call that keeps the lock
    with ControlLoop(config, limits, make(driver), _StillArm(), {"front": (4, 5)}) as loop:
        loop.put_frame("front", np.full((4, 5, 3), 2, np.uint8), time.monotonic_ns())
        loop.put_state(np.zeros(3, np.float32), time.monotonic_ns())
        loop.warm_up(2)
        launches = count(driver, "launches")
        loop.start()
        for _ in range(40):
            hold(100_000)
            if not loop.running:
                break
        assert count(driver, "launches") >= launches + 6  # an answer of three actions is played for three steps
        assert loop.wait(10.0)
        records = [record for record, _ in loop.drain()]
    assert len(records) == 20
    assert all(record["action"][:2].tolist() == [22.0, 22.0] for record in records[1:])


class _Acting(torch.nn.Module):
    """Scaled actions [1, 4, A] out of the mean of the frames, the task and the state; no nets."""

    def forward(self, images, state_1TS, task_id_1):
        level = images["image_0"].float().mean() + 0.01 * task_id_1.float()
        return (level - 0.5 + 0.05 * state_1TS[:, -1]).expand(1, 4, 7)


class _Recorder:
    """In place of a CUDA graph: the work itself, whose handle is the address of a function that runs it."""

    def warm_up(self, work):
        work()

    def capture(self, work):
        class Work:
            function = ctypes.CFUNCTYPE(None)(work)

            def __call__(self):
                work()

            def executable(self):
                return ctypes.cast(self.function, ctypes.c_void_p).value

        return Work()


def _graph(task: str | None) -> ActingGraph:
    meta = toy_robot.toy_meta(("image_0",))
    tasks = TaskTable(names=("lift", "put"), num_slots=4)
    spec = PolicySpec(cameras=meta.cameras[:1], state=meta.state, action=meta.action, tasks=tasks, control_hz=5.0)
    window = Window(num_observations=2, num_actions=4)
    return ActingGraph(_Acting(), spec, {"image_0": (48, 64)}, None, window, task).eval()


def test_an_engine_and_its_executor_answer_alike(driver):
    engine = CapturedEngine(_graph("put"), _Recorder())
    executor = engine.executor(driver._name)
    rng = np.random.default_rng(0)
    for _ in range(2):
        frames = rng.integers(0, 256, (2, 48, 64, 3), np.uint8)
        state = rng.normal(size=(2, 7)).astype(np.float32)
        np.testing.assert_array_equal(executor.run([frames], state), engine.run(frames, state))


def test_graphs_that_need_python_are_refused(driver):
    with pytest.raises(ValueError, match="got one with the task as an input"):
        CapturedEngine(_graph(None), _Recorder()).executor(driver._name)
    with pytest.raises(RuntimeError, match="is not a graph of PyTorch's"):
        CapturedEngine(_graph("put"), type("Plain", (_Recorder,), {"capture": lambda self, work: work})()).executor()
    with pytest.raises(RuntimeError, match="does not give out the handle of a captured graph"):
        GraphReplay(object()).executable()
    with pytest.raises(RuntimeError, match="driver cannot be opened"):
        CapturedEngine(_graph("put"), _Recorder()).executor("/nowhere/libcuda.so")
