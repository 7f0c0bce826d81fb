"""The verb in a process of its own: served actions are the local ones bit for bit."""

from __future__ import annotations

import contextlib
import re
import signal
import socket
import subprocess
import sys
import time

import numpy as np
import pytest
import toy_robot
import warm_python

from ptr_fast.checkpoint import save_checkpoint
from ptr_fast.config import ActConfig, EncoderConfig, PolicySpec, TaskTable
from ptr_fast.learners import make_learner
from ptr_fast.learners.bc.config import BcConfig
from ptr_fast.learners.cql.config import CqlConfig
from ptr_fast.runtime.observation import Observation
from ptr_fast.runtime.policy import Policy
from ptr_fast.runtime.preprocess import fit_frame
from ptr_robot.serving.client import RemotePolicy
from ptr_robot.trials.contenders import RemoteActing, remote_contender
from ptr_robot.verbs.serve import Args, check_port, image_keys, main, make_infer

TASK = "put carrot on plate"


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    meta = toy_robot.toy_meta(("image_0",))
    tasks = TaskTable(names=(TASK,), num_slots=4)
    spec = PolicySpec(cameras=meta.cameras[:1], state=meta.state, action=meta.action, tasks=tasks, control_hz=5.0)
    config = CqlConfig(encoder=EncoderConfig(name="conv3", num_filters=8, embedding_dim=16), hidden_dims=(16, 16))
    folder = tmp_path_factory.mktemp("served")
    return save_checkpoint(folder, 1, make_learner(config, spec), spec, ActConfig(), {"split": {"sources": []}})


@contextlib.contextmanager
def serving(checkpoint, *more):
    command = [sys.executable, "-m", "ptr_robot", "serve", "--checkpoint", str(checkpoint), "--port", "0", *more]
    process = warm_python.Popen(command, stdout=subprocess.PIPE, text=True)
    try:
        told = ""
        for line in process.stdout:
            told += line
            if url := re.search(r"ws://[\d.:]+", line):
                break
        assert url, told
        assert re.search(r"making it act; .*\nready after \d+\.\d s\n", told), "it says what it waits for"
        yield url[0], process, line
    finally:
        process.kill()
        process.wait()


@pytest.fixture(params=["eager", "auto"])
def server(checkpoint, request):
    options = ("--token", "secret", "--engine", request.param, "--frame-size", "48", "64")
    with serving(checkpoint, *options) as (url, process, told):
        assert request.param == "auto" or "(mean, eager)" in told
        yield url, process, request.param


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"max_connections": 0}, "max-connections: expected a positive number, got 0"),
        ({"max_message_mib": float("nan")}, "max-message-mib: expected a positive number, got nan"),
        ({"idle_s": -1.0}, "idle-s: expected a positive number, got -1"),
        ({"frame_size": (0, 64)}, r"frame-size: expected a height and a width above 0, got \[0, 64\]"),
    ],
)
def test_options_without_sense_are_refused(checkpoint, options, message):
    with pytest.raises(ValueError, match=message):
        main(Args(checkpoint=checkpoint, **options))


def test_served_actions_are_the_local_ones(server, checkpoint):
    url, process, engine = server
    local, remote = Policy.load(checkpoint, engine=engine), RemotePolicy(url, "secret", timeout_s=10)
    assert remote.metadata["tasks"]["names"] == [TASK]
    assert remote.metadata["control_hz"] == 5.0
    rng = np.random.default_rng(0)
    for height, width in ((toy_robot.SIZE, toy_robot.SIZE), (48, 64)):
        frame = rng.integers(0, 256, (height, width, 3), dtype=np.uint8)
        state = rng.normal(size=local.spec.state.dim).astype(np.float32)
        np.testing.assert_array_equal(remote.decide(frame, state, TASK), local.decide(frame, state, TASK))
    other = rng.integers(0, 256, (40, 30, 3), dtype=np.uint8)
    resized = fit_frame(other, local.spec.camera)
    np.testing.assert_array_equal(remote.decide(other, state, TASK), local.decide(resized, state, TASK))
    for wrong, message in (
        ((frame[..., :1], state, TASK), "observation/image: expected uint8"),
        ((frame, state[:3], TASK), "observation/state: expected 7 numbers"),
        ((frame, state, "juggle"), "juggle"),
    ):
        with pytest.raises(RuntimeError, match=message):
            remote.decide(*wrong)
    process.send_signal(signal.SIGTERM)
    assert process.wait(10) == 0
    assert "stopped after 6 requests" in process.stdout.read()


def test_a_port_that_is_taken_is_told_before_anything_is_made_ready(checkpoint, monkeypatch):
    monkeypatch.setattr(Policy, "load", lambda *_, **__: pytest.fail("it read the checkpoint first"))
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        with pytest.raises(OSError, match=f"cannot listen on 127.0.0.1 port {port}: Address already in use"):
            main(Args(checkpoint=checkpoint, port=port))
    with pytest.raises(OSError, match=r"cannot listen on no\.such\.host\.invalid port 8000: "):
        main(Args(checkpoint=checkpoint, host="no.such.host.invalid", token="x"))
    with pytest.raises(ValueError, match=r"cannot listen on h{70} port 8000: "):
        main(Args(checkpoint=checkpoint, host="h" * 70, token="x"))
    check_port("localhost", 0)


def test_search_has_another_noise_each_request_or_the_one_that_is_asked_for(checkpoint):
    policy = Policy.load(checkpoint, mode="search")
    infer = make_infer(policy)
    frame, state = np.zeros((toy_robot.SIZE, toy_robot.SIZE, 3), np.uint8), np.zeros(7, np.float32)
    request = {"observation/image": frame, "observation/state": state, "prompt": TASK}
    own = [infer(request)["actions"][0] for _ in range(3)]
    assert len({action.tobytes() for action in own}) == 3
    for seed, served in enumerate(own):
        np.testing.assert_array_equal(served, policy.decide(frame, state, TASK, seed=seed))
    for seed in (7, np.int64(2**40)):
        asked = infer({**request, "seed": seed})["actions"][0]
        np.testing.assert_array_equal(asked, policy.decide(frame, state, TASK, seed=int(seed)))
    for wrong in (-1, 2**63, 1.5, True, "7", None):
        with pytest.raises(ValueError, match="seed: expected an integer from 0 to 9223372036854775807"):
            infer({**request, "seed": wrong})


def test_a_remote_search_acts_as_the_local_one(checkpoint):
    options = ["--engine", "eager", "--mode", "search", "--candidates", "5", "--elites", "2"]
    with serving(checkpoint, *options) as (url, _, told):
        assert "(search, mean of the best 2 of 5, eager)" in told
        remote, local = RemoteActing(url), Policy.load(checkpoint, mode="search", num_candidates=5, num_elites=2)
        assert (remote.metadata["candidates"], remote.metadata["elites"]) == (5, 2)
        about = remote_contender(url).about
        assert (about["mode"], about["candidates"], about["elites"]) == ("search", 5, 2)
        frame, state = np.zeros((toy_robot.SIZE, toy_robot.SIZE, 3), np.uint8), np.zeros(7, np.float32)
        for seed in (3, 4):
            (served,) = remote.act({"observation/image": frame}, state, TASK, seed=seed)
            np.testing.assert_array_equal(served, local.decide(frame, state, TASK, seed=seed))
        assert remote.metadata["action"]["horizon"] == 1


def test_other_machines_need_a_token(checkpoint, monkeypatch):
    monkeypatch.delenv("PTR_FAST_TOKEN", raising=False)
    with pytest.raises(ValueError, match="set a token"):
        main(Args(checkpoint=checkpoint, host="0.0.0.0"))
    with pytest.raises(ValueError, match="belong together"):
        main(Args(checkpoint=checkpoint, tls_cert=checkpoint))


# A program of its own, so that only the server and not the interpreter of the measured client is kept busy.
HOSTILE = """
import socket, sys, threading, time
import msgpack, numpy as np
from websockets.exceptions import WebSocketException
from websockets.sync.client import connect
from ptr_robot.serving.protocol import pack
url, rng = sys.argv[1], np.random.default_rng(0)
def sends(make):
    while True:
        try:
            with connect(url, compression=None, max_size=None, close_timeout=0.1) as client:
                client.recv()
                for _ in range(50):
                    client.send(make())
                    client.recv()
        except (OSError, WebSocketException):
            time.sleep(0.02)
def crawls(port):
    crawling = []
    while True:
        if len(crawling) < 100:
            crawling.append(socket.create_connection(("127.0.0.1", port)))
        for one in crawling:
            try:
                one.send(b"G")
            except OSError:
                crawling.remove(one)
                break
        time.sleep(0.02)
many = msgpack.packb([[{}] * 1000 for _ in range(7000)])
huge = bytes(9 << 20)
def picture():
    size = rng.integers(8, 1600, 2)
    image = np.zeros((*size, 3), np.uint8)
    return pack({"observation/image": image, "observation/state": np.zeros(7), "prompt": sys.argv[2]})
for make in (lambda: rng.bytes(2000), lambda: many, lambda: huge, picture, picture):
    threading.Thread(target=sends, args=(make,), daemon=True).start()
threading.Thread(target=crawls, args=(int(url.rsplit(":", 1)[1]),), daemon=True).start()
print("hostile", flush=True)
time.sleep(60)
"""


def test_hostile_clients_do_not_stall_another(checkpoint):
    with serving(checkpoint, "--engine", "eager") as (url, process, _), contextlib.closing(RemotePolicy(url)) as good:
        frame, state = np.zeros((toy_robot.SIZE, toy_robot.SIZE, 3), np.uint8), np.zeros(7, np.float32)

        def latencies(seconds: float) -> np.ndarray:
            taken, deadline = [], time.monotonic() + seconds
            while time.monotonic() < deadline:
                begin = time.monotonic()
                good.decide(frame, state, TASK)  # raises where it waits longer than a second
                taken.append(time.monotonic() - begin)
                time.sleep(0.02)
            return np.array(taken)

        alone = latencies(0.5)
        hostile = warm_python.Popen([sys.executable, "-c", HOSTILE, url, TASK], stdout=subprocess.PIPE, text=True)
        try:
            assert hostile.stdout.readline() == "hostile\n"
            beside = latencies(3.0)
        finally:
            hostile.kill()
            hostile.wait()
        print(f"alone {np.median(alone) * 1e3:.1f}, max {alone.max() * 1e3:.0f} ms")
        print(f"beside {np.median(beside) * 1e3:.1f}, max {beside.max() * 1e3:.0f} ms")
        assert len(beside) >= 10
        assert np.median(beside) < 0.2
        assert process.poll() is None


def test_a_client_that_is_killed_leaves_its_place(checkpoint):
    program = (
        "import sys, numpy as np\n"
        "from ptr_robot.serving.client import RemotePolicy\n"
        "remote = RemotePolicy(sys.argv[1])\n"
        "while True:\n"
        f"    remote.decide(np.zeros(({toy_robot.SIZE}, {toy_robot.SIZE}, 3), np.uint8), np.zeros(7), {TASK!r})\n"
        "    print('acts', flush=True)\n"
    )
    with serving(checkpoint, "--engine", "eager", "--max-connections", "1") as (url, process, _):
        client = warm_python.Popen([sys.executable, "-c", program, url], stdout=subprocess.PIPE, text=True)
        assert client.stdout.readline() == "acts\n"
        with pytest.raises(RuntimeError, match="503"):
            RemotePolicy(url)
        client.kill()  # in the middle of a request, most likely
        client.wait()
        deadline = time.monotonic() + 5
        while True:
            try:
                after = RemotePolicy(url)
                break
            except RuntimeError:
                assert time.monotonic() < deadline, "its place is not free again"
                time.sleep(0.05)
        after.decide(np.zeros((toy_robot.SIZE, toy_robot.SIZE, 3), np.uint8), np.zeros(7), TASK)
        assert process.poll() is None


@pytest.fixture(scope="module")
def chunks(tmp_path_factory):
    """A clone of two cameras that answers with chunks of ten actions from two observations."""
    meta = toy_robot.toy_meta(("front", "wrist"))
    tasks = TaskTable(names=(TASK,), num_slots=4)
    spec = PolicySpec(cameras=meta.cameras, state=meta.state, action=meta.action, tasks=tasks, control_hz=5.0)
    encoder = EncoderConfig(name="conv3", num_filters=8, embedding_dim=16)
    config = BcConfig(encoder=encoder, hidden_dims=(16, 16), num_actions=10, num_observations=2)
    folder = tmp_path_factory.mktemp("chunks")
    return save_checkpoint(folder, 1, make_learner(config, spec), spec, ActConfig(), {"split": {"sources": []}})


def two_cameras(seed: int = 0, num_observations: int = 2):
    rng = np.random.default_rng(seed)
    size = (num_observations, toy_robot.SIZE, toy_robot.SIZE, 3)
    frames = {name: rng.integers(0, 256, size, dtype=np.uint8) for name in ("front", "wrist")}
    return frames, rng.normal(size=(num_observations, 7)).astype(np.float32)


def observations_of(frames, states):
    return [Observation({n: f[t] for n, f in frames.items()}, state, TASK) for t, state in enumerate(states)]


def test_a_served_chunk_is_the_local_one_and_the_loop_plays_it(chunks):
    local, (frames, states) = Policy.load(chunks), two_cameras()
    before, newest = observations_of(frames, states)
    expected, _ = local.act(newest, (before,))
    alone, _ = local.act(newest, local.reset())
    assert expected.shape == (10, 7)
    with serving(chunks, "--engine", "eager") as (url, _, _):
        contender = remote_contender(url)
        assert [camera.name for camera in contender.spec.cameras] == ["front", "wrist"]
        remote = contender.policy._remote
        assert [image["key"] for image in remote.metadata["images"]] == ["observation/image", "observation/wrist_image"]
        assert (remote.metadata["action"]["horizon"], remote.metadata["observations"]) == (10, 2)
        keys = {"front": "observation/image", "wrist": "observation/wrist_image"}
        served = remote.act({keys[name]: each for name, each in frames.items()}, states, TASK)
        np.testing.assert_array_equal(served, expected)
        one = remote.act({keys[name]: each[-1] for name, each in frames.items()}, states[-1], TASK)
        np.testing.assert_array_equal(one, alone)
        executor = contender.policy.make_executor({name: each.shape[1:3] for name, each in frames.items()}, TASK)
        assert (executor.num_actions, executor.num_observations) == (10, 2)
        np.testing.assert_array_equal(executor.act(frames, states), expected)
        with pytest.raises(
            RuntimeError, match="no 'observation/wrist_image'; it needs observation/image, observation/"
        ):
            remote.act({"observation/image": frames["front"]}, states, TASK)


def test_keys_of_cameras_are_openpis_or_those_of_the_map(chunks):
    cameras = ["front", "wrist"]
    assert image_keys(cameras) == {"front": "observation/image", "wrist": "observation/wrist_image"}
    mapped = image_keys(cameras, ["observation/exterior_image_1_left=front"])
    assert mapped == {"front": "observation/exterior_image_1_left", "wrist": "observation/wrist_image"}
    for pairs in (["a=side"], ["a"], ["a=front", "b=front"], ["=front"]):
        with pytest.raises(
            ValueError, match=r"expected KEY=CHECKPOINT .* cameras \['front', 'wrist'\], each once, got"
        ):
            image_keys(cameras, pairs)
    with pytest.raises(ValueError, match="two cameras have the same key"):
        image_keys(cameras, ["observation/wrist_image=front"])
    for key in ("observation/state", "prompt", "seed"):
        with pytest.raises(ValueError, match=f"camera-map: '{key}' is no key of frames"):
            image_keys(cameras, [f"{key}=front"])
    policy, (frames, states) = Policy.load(chunks), two_cameras(num_observations=1)
    infer = make_infer(policy, keys=mapped)
    request = {mapped[name]: each[0] for name, each in frames.items()}
    answer = infer({**request, "observation/state": states[0], "prompt": TASK})
    np.testing.assert_array_equal(answer["actions"], policy.act(*observations_of(frames, states), policy.reset())[0])
    frames, states = two_cameras(num_observations=3)
    request = {mapped[name]: each for name, each in frames.items()}
    with pytest.raises(ValueError, match=r"as many frames as states, 1 to 2, got \[3, 3, 3\]"):
        infer({**request, "observation/state": states, "prompt": TASK})
