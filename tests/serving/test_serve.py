"""The verb in a process of its own: served actions are the local ones bit for bit."""

from __future__ import annotations

import re
import signal
import subprocess
import sys

import numpy as np
import pytest
import toy_robot

from ptr_fast.checkpoint import save_checkpoint
from ptr_fast.config import ActConfig, CqlConfig, EncoderConfig, PolicySpec, TaskTable
from ptr_fast.learners import make_learner
from ptr_fast.runtime.policy import Policy
from ptr_robot.serve import Args, main
from ptr_robot.serving.client import RemotePolicy

TASK = "put carrot on plate"


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    meta = toy_robot.toy_meta(("image_0",))
    tasks = TaskTable(names=(TASK,), num_slots=4)
    spec = PolicySpec(camera=meta.cameras[0], state=meta.state, action=meta.action, tasks=tasks, control_hz=5.0)
    config = CqlConfig(encoder=EncoderConfig(name="conv3", num_filters=8, embedding_dim=16), hidden_dims=(16, 16))
    folder = tmp_path_factory.mktemp("served")
    return save_checkpoint(folder, 1, make_learner(config, spec), spec, ActConfig(), {"split": {"sources": []}})


@pytest.fixture
def server(checkpoint):
    command = [sys.executable, "-m", "ptr_robot", "serve", "--checkpoint", str(checkpoint), "--port", "0"]
    process = subprocess.Popen([*command, "--token", "secret"], stdout=subprocess.PIPE, text=True)
    line = process.stdout.readline()
    url = re.search(r"ws://[\d.:]+", line)
    assert url, line
    yield url[0], process
    process.kill()
    process.wait()


def test_served_actions_are_the_local_ones(server, checkpoint):
    url, process = server
    local, remote = Policy.load(checkpoint), RemotePolicy(url, "secret", timeout_s=10)
    assert remote.metadata["tasks"]["names"] == [TASK]
    assert remote.metadata["control_hz"] == 5.0
    rng = np.random.default_rng(0)
    for height, width in ((toy_robot.SIZE, toy_robot.SIZE), (48, 64)):
        frame = rng.integers(0, 256, (height, width, 3), dtype=np.uint8)
        state = rng.normal(size=local.spec.state.dim).astype(np.float32)
        np.testing.assert_array_equal(remote.act(frame, state, TASK), local.act(frame, state, TASK))
    for wrong, message in (
        ((frame[..., :1], state, TASK), "observation/image: expected uint8"),
        ((frame, state[:3], TASK), "observation/state: expected 7 numbers"),
        ((frame, state, "juggle"), "juggle"),
    ):
        with pytest.raises(RuntimeError, match=message):
            remote.act(*wrong)
    process.send_signal(signal.SIGTERM)
    assert process.wait(10) == 0
    assert "stopped after 5 requests" in process.stdout.read()


def test_other_machines_need_a_token(checkpoint, monkeypatch):
    monkeypatch.delenv("PTR_FAST_TOKEN", raising=False)
    with pytest.raises(ValueError, match="set a token"):
        main(Args(checkpoint=checkpoint, host="0.0.0.0"))
    with pytest.raises(ValueError, match="belong together"):
        main(Args(checkpoint=checkpoint, tls_cert=checkpoint))
