"""Faults while an arm moves, with real sockets and processes: it stops in time, says why, nothing recorded is lost."""

from __future__ import annotations

import contextlib
import json
import os
import re
import resource
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from types import SimpleNamespace

import numpy as np
import pytest
from test_robot_rollout import checkpoint, command, run, run_here, sheet, started, wait_for  # noqa: F401
from websockets.exceptions import ConnectionClosed
from websockets.sync.server import serve

from ptr_fast.checkpoint import save_checkpoint
from ptr_fast.config import ActConfig, BcConfig, EncoderConfig, PolicySpec, TaskTable
from ptr_fast.data.store import EpisodeStore
from ptr_fast.learners import make_learner
from ptr_fast.types import ActionSpec, CameraSpec, StateSpec
from ptr_robot.datasets.layout import BRIDGE_HIGH, BRIDGE_LOW, BRIDGE_NAMES, BRIDGE_UNITS
from ptr_robot.serving.protocol import pack
from ptr_robot.verbs.serve import metadata_of

sys.path.append(os.path.join(os.path.dirname(__file__), "..", "robots"))
from widowx_stand_in import HEIGHT, WIDTH, StandIn

GOOD = pack({"actions": np.zeros((1, 4), np.float32)})


class FaultyServer:
    """Answers well ``num_good`` times (ten of them before the arm is armed), then once as ``fault(server, socket)``
    does, then well again."""

    def __init__(self, metadata: bytes, fault, num_good: int = 15) -> None:
        self._metadata, self._fault, self._num_good, self._answers, self.port = metadata, fault, num_good, 0, 0
        self.start()

    def start(self) -> None:
        self._server = serve(self._handle, "127.0.0.1", self.port, compression=None, max_size=None, close_timeout=0.1)
        self.port = self._server.socket.getsockname()[1]
        self._thread = threading.Thread(target=self._server.serve_forever, daemon=True)
        self._thread.start()

    def stop(self) -> None:
        self._server.shutdown()
        self._thread.join()

    def _handle(self, client) -> None:
        with contextlib.suppress(ConnectionClosed, OSError):
            client.send(self._metadata)
            for _ in client:
                self._answers += 1
                if self._answers == self._num_good + 1:
                    self._fault(self, client)
                else:
                    client.send(GOOD)


def answers(message):
    return lambda server, client: client.send(message)


def late(server, client) -> None:
    time.sleep(1.3)
    client.send(GOOD)


def half(server, client) -> None:
    client.socket.sendall(b"\x82\x7e\x04\x00" + bytes(100))  # 1024 bytes are announced
    client.socket.shutdown(socket.SHUT_RDWR)


def restarts(server, client) -> None:
    def again() -> None:
        server.stop()
        time.sleep(0.3)
        server.start()

    client.socket.shutdown(socket.SHUT_RDWR)
    threading.Thread(target=again).start()


@pytest.fixture(scope="module")
def metadata(checkpoint) -> bytes:  # noqa: F811
    from ptr_fast.runtime.policy import Policy

    return pack(metadata_of(Policy.load(checkpoint)))


@pytest.mark.parametrize(
    ("fault", "reason", "message"),
    [
        (answers(pack({"actions": np.full((1, 4), np.nan, np.float32)})), "stopped_not_finite", "is not finite"),
        (
            answers(pack({"actions": np.zeros((1, 3), np.float32)})),
            "stopped_policy",
            "of 4 numbers, got the shape (1, 3)",
        ),
        (answers(b"\xc1"), "", ""),
        (answers("out of memory"), "", ""),
        (late, "", ""),
        (half, "", ""),
        (restarts, "", ""),
    ],
    ids=["NaN", "another size", "garbage", "an error", "late", "half", "restarts"],
)
def test_a_policy_server_that_answers_wrong_once(metadata, tmp_path, fault, reason, message):
    server = FaultyServer(metadata, fault)
    try:
        url = f"ws://127.0.0.1:{server.port}"
        done = run(None, tmp_path, "--remote", url, "--trials", "1", "--video", "none", "--max-steps", "20")
    finally:
        server.stop()
    assert done.returncode == 0, done.stderr
    (trial,) = sheet(tmp_path)
    assert trial["reason"] == reason, trial["message"]
    assert message in trial["message"]
    assert trial["arm_stopped"]
    if reason:
        assert trial["num_steps"] <= 7, "nothing is sent after it"
    else:
        assert trial["interventions"]["held_late"] >= 1, "it stands still, and goes on when it is asked well again"
        assert trial["num_steps"] == 20


@pytest.fixture(scope="module")
def bridge(tmp_path_factory):
    spec = PolicySpec(
        cameras=(CameraSpec(name="image_0", height=32, width=32),),
        state=StateSpec(names=BRIDGE_NAMES, units=BRIDGE_UNITS),
        action=ActionSpec(names=BRIDGE_NAMES, units=BRIDGE_UNITS, low=BRIDGE_LOW, high=BRIDGE_HIGH, bounds_source="x"),
        tasks=TaskTable(names=("lift",), num_slots=1),
        control_hz=5.0,
    )
    config = BcConfig(encoder=EncoderConfig(name="conv3", num_filters=8, embedding_dim=16), hidden_dims=(16, 16))
    folder = tmp_path_factory.mktemp("bridge")
    return save_checkpoint(folder, 1, make_learner(config, spec), spec, ActConfig(), {"split": {"sources": []}})


def on_the_arm(bridge, service, out, *more) -> list[str]:
    options = (f"port={service.port}", f"image_height={HEIGHT}", f"image_width={WIDTH}", "timeout_s=0.4")
    return [
        *("rollout", "--robot", "widowx", "--robot-options", *options, "--checkpoint", str(bridge), "--task", "lift"),
        *("--engine", "eager", "--max-steps", "40", "--trials", "1", "--video", "none", "--out", str(out), *more),
    ]


def refuses(service) -> None:
    service.status = 2


def blocks(service) -> None:
    service.delay_s = 5.0


def sends_garbage(service) -> None:
    service.raw = b"rubbish"


def freezes(service) -> None:
    service.frozen = True


def changes_size(service) -> None:
    service.height = HEIGHT // 2


def measures_nan(service) -> None:
    service.state[0] = np.nan


@pytest.mark.parametrize(
    ("fault", "reason", "message", "within_s"),
    [
        (refuses, "stopped_arm", "the arm failed: .*it could not carry that out", 1.0),
        (blocks, "stopped_arm", "no answer within 0.4 s", 2.0),
        (sends_garbage, "stopped_arm", "not LZ4 data", 1.0),
        (freezes, "stopped_stale", "the observation is too old", 3.0),
        (changes_size, "stopped_arm", r"the robot's observation failed: .*expected frames of 48 x 64", 1.0),
        (measures_nan, "stopped_arm", "expected 7 finite numbers", 1.0),
    ],
)
def test_an_arm_or_camera_that_fails_in_mid_motion(bridge, tmp_path, fault, reason, message, within_s):
    service, failed_at = StandIn().start(), []

    def fail() -> None:
        while len(service.steps) < 3:
            time.sleep(0.01)
        failed_at.append(time.monotonic())
        fault(service)

    threading.Thread(target=fail, daemon=True).start()
    try:
        done = run_here(*on_the_arm(bridge, service, tmp_path))
        took, num_steps = time.monotonic() - failed_at[0], len(service.steps)
        (trial,) = sheet(tmp_path)
        assert trial["reason"] == reason, trial["message"]
        assert re.search(message, trial["message"]), trial["message"]
        assert done.returncode == 2, "a trial that the robot broke is no success of the verb"
        (line,) = done.stderr.splitlines()
        assert line == f"ptr-fast rollout: error: widowx failed in trial 1 of 1: {trial['message']}"
        assert trial["arm_stopped"]
        assert reason in done.stdout, "it is told"
        assert took < within_s + 2.0, "with the end of the run and its page"
        time.sleep(0.3)
        assert len(service.steps) == num_steps, "no step follows the stop"
    finally:
        service.delay_s = 0.0
        service.close()


def test_a_service_that_is_killed_is_told_by_the_exit_code(bridge, tmp_path):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    stand_in = os.path.join(os.path.dirname(__file__), "..", "robots", "widowx_stand_in.py")
    service = subprocess.Popen([sys.executable, stand_in, str(port)])
    try:
        arguments = on_the_arm(bridge, SimpleNamespace(port=port), tmp_path)
        arguments[arguments.index("timeout_s=0.4")] = "timeout_s=10"  # an arm that hangs is found out all the same
        process = started([sys.executable, "-m", "ptr_robot", *arguments])
        wait_for(process, "trial 1  step")
        service.kill()
        _, errors = process.communicate(timeout=60)
    finally:
        service.kill()
        service.wait()
    assert process.returncode == 2
    (line,) = errors.splitlines()
    assert line.startswith("ptr-fast rollout: error: widowx failed in trial 1 of 1: ")
    assert sheet(tmp_path)[0]["num_steps"] > 0, "what was seen is kept"


def test_trials_that_are_done_stay_when_the_arm_is_gone(bridge, tmp_path):
    service = StandIn().start()

    def fail() -> None:
        while service.resets < 3:  # of connect(), of the first trial, of the second
            time.sleep(0.005)
        service.status = 0

    threading.Thread(target=fail, daemon=True).start()
    try:
        done = run_here(*on_the_arm(bridge, service, tmp_path, "--trials", "3", "--max-steps", "3"))
        if len(sheet(tmp_path)) == 2:  # it failed in the second trial's motion
            assert sheet(tmp_path)[1]["reason"] == "stopped_arm"
    finally:
        service.close()
    assert done.returncode == 2
    assert "no connection" in done.stderr
    assert sheet(tmp_path)[0]["num_steps"] == 3
    assert "not judged" in (tmp_path / "report.html").read_text(), "the page of what is done is there"


@pytest.mark.parametrize(
    ("number", "code"), [(signal.SIGKILL, -9), (signal.SIGTERM, 143), (signal.SIGINT, 130)], ids=["KILL", "TERM", "INT"]
)
def test_ended_in_mid_motion_nothing_more_is_sent(bridge, tmp_path, number, code):
    service = StandIn().start()
    try:
        process = started([sys.executable, "-m", "ptr_robot", *on_the_arm(bridge, service, tmp_path)])
        wait_for(process, "trial 1  step")
        process.send_signal(number)
        time.sleep(0.5)
        num_steps = len(service.steps)
        process.communicate(timeout=30)
        assert process.returncode == code
        assert num_steps > 0
        time.sleep(0.3)
        assert len(service.steps) == num_steps, "none later than half a second after the signal"
    finally:
        service.close()


def test_a_disk_that_is_full_while_recording(checkpoint, tmp_path):  # noqa: F811
    store, out = tmp_path / "store", tmp_path / "out"
    more = ("--trials", "2", "--record", str(store), "--video", "none")
    arguments = command(checkpoint, out, *more)

    def small_disk() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (3000, 3000))

    full = subprocess.run(arguments, capture_output=True, text=True, timeout=120, preexec_fn=small_disk)
    assert full.returncode == 2
    assert "Traceback" not in full.stderr
    assert str(store) in full.stderr
    assert not (out / "trials.jsonl").exists(), "a trial that could not be recorded is done again"
    done = run(checkpoint, out, *more)
    assert done.returncode == 0, done.stderr
    assert EpisodeStore.open(store).num_episodes == 2
    assert [t["index"] for t in sheet(out)] == [0, 1]


# Every look at the wall clock is an hour off the one before, forwards and backwards.
JUMPING_CLOCK = """
#define _GNU_SOURCE
#include <dlfcn.h>
#include <sys/time.h>
#include <time.h>
static int looks;
int clock_gettime(clockid_t clock, struct timespec* now) {
  static int (*real)(clockid_t, struct timespec*);
  if (!real) real = dlsym(RTLD_NEXT, "clock_gettime");
  const int result = real(clock, now);
  if (clock == CLOCK_REALTIME) now->tv_sec += (++looks % 2 ? 3600 : -3600);
  return result;
}
"""


def test_a_wall_clock_that_jumps_does_not_matter(checkpoint, tmp_path):  # noqa: F811
    compiler = shutil.which("cc") or shutil.which("gcc")
    if compiler is None:
        pytest.skip("no C compiler to make a jumping clock with")
    (tmp_path / "clock.c").write_text(JUMPING_CLOCK)
    library = tmp_path / "clock.so"
    subprocess.run([compiler, "-shared", "-fPIC", "-o", library, tmp_path / "clock.c", "-ldl"], check=True)
    jumping = {**os.environ, "LD_PRELOAD": str(library)}
    show = "import time; a = time.time(), time.time(); print(abs(a[0] - a[1]) > 3000)"
    shown = subprocess.run([sys.executable, "-c", show], capture_output=True, text=True, env=jumping)
    assert shown.stdout == "True\n", shown.stderr
    out = tmp_path / "out"
    arguments = command(checkpoint, out, "--trials", "1", "--max-steps", "30", options=("latency_ms=30",))
    begin = time.monotonic()
    done = subprocess.run(arguments, capture_output=True, text=True, timeout=60, env=jumping)
    assert done.returncode == 0, done.stderr
    assert time.monotonic() - begin < 45
    (trial,) = [json.loads(line) for line in (out / "trials.jsonl").read_text().splitlines()]
    assert (trial["reason"], trial["num_steps"], trial["arm_stopped"]) == ("", 30, True)
    assert 30 < trial["legs_ms"]["capture_to_command"]["p50"] < 500
    assert 0 < trial["legs_ms"]["frame_age"]["max"] < 5000
