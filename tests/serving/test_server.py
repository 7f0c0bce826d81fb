"""The server with real sockets: what clients get, what they cannot take, and that none can stall another."""

from __future__ import annotations

import asyncio
import contextlib
import shutil
import socket
import subprocess
import threading
import time
import urllib.error
import urllib.request
from pathlib import Path

import numpy as np
import pytest
from websockets.exceptions import ConnectionClosed, InvalidStatus
from websockets.sync.client import connect

from ptr_robot.serving.client import RemotePolicy
from ptr_robot.serving.protocol import pack, unpack
from ptr_robot.serving.server import Limits, PolicyServer
from ptr_robot.trials.contenders import remote_contender
from ptr_robot.verbs.serve import Args, _tls, main


class Running:
    """A server in a thread of its own."""

    def __init__(self, infer, limits=None, token="", tls=None, metadata=None) -> None:
        self.tls = tls
        self.lines: list[str] = []
        metadata = metadata or {"policy": "test"}
        self.policy_server = PolicyServer(infer, metadata, limits, token, self.lines.append)
        self.loop = asyncio.new_event_loop()
        self.port = 0
        self.ready = threading.Event()
        self.thread = threading.Thread(target=self._run, daemon=True)
        self.thread.start()
        assert self.ready.wait(5)
        self.url = f"{'wss://localhost' if tls else 'ws://127.0.0.1'}:{self.port}"

    def _run(self) -> None:
        async def main() -> None:
            self.stop = asyncio.Event()
            async with await self.policy_server.start(port=0, tls=self.tls) as server:
                self.port = server.sockets[0].getsockname()[1]
                self.ready.set()
                await self.stop.wait()

        self.loop.run_until_complete(main())

    def close(self) -> None:
        self.loop.call_soon_threadsafe(self.stop.set)
        self.thread.join(5)
        self.policy_server.close()


@pytest.fixture
def serve():
    running = []

    def start(infer=lambda request: {"actions": np.asarray(request["x"]) * 2}, **options):
        running.append(Running(infer, **options))
        return running[-1]

    yield start
    for one in running:
        one.close()


def test_metadata_comes_first_and_answers_carry_their_timing(serve):
    server = serve()
    with connect(server.url, compression=None, max_size=None) as client:
        assert unpack(client.recv(timeout=5)) == {"policy": "test"}
        for turn in range(3):
            client.send(pack({"x": np.float32([turn])}))
            answer = unpack(client.recv(timeout=5))
            np.testing.assert_array_equal(answer["actions"], np.float32([2 * turn]))
            assert answer["server_timing"]["infer_ms"] >= 0
            assert ("prev_total_ms" in answer["server_timing"]) == (turn > 0)


def test_health(serve):
    server = serve()
    with urllib.request.urlopen(f"http://127.0.0.1:{server.port}/healthz", timeout=5) as answer:
        assert (answer.status, answer.read()) == (200, b"OK\n")
    with pytest.raises(urllib.error.HTTPError):
        urllib.request.urlopen(f"http://127.0.0.1:{server.port}/other", timeout=5)


def test_token(serve):
    server = serve(token="secret")
    for headers in (None, {"Authorization": "Api-Key wrong"}, {"Authorization": "secret"}):
        with pytest.raises(InvalidStatus, match="401"), connect(server.url, additional_headers=headers):
            pass
    with pytest.raises(RuntimeError, match="401"):
        RemotePolicy(server.url, "wrong")
    assert RemotePolicy(server.url, "secret").metadata == {"policy": "test"}


def test_a_certificate_of_ones_own(serve, tmp_path):
    if shutil.which("openssl") is None:
        pytest.skip("no openssl to make a certificate with")
    names = ["-subj", "/CN=localhost", "-addext", "subjectAltName=DNS:localhost"]
    key = ["-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-days", "1"]
    subprocess.run(
        ["openssl", "req", *key, *names, "-keyout", "key.pem", "-out", "cert.pem"],
        cwd=tmp_path, check=True, capture_output=True,
    )  # fmt: skip
    tls = _tls(Args(checkpoint=tmp_path, tls_cert=tmp_path / "cert.pem", tls_key=tmp_path / "key.pem"))
    server = serve(tls=tls, token="secret")
    assert server.url.startswith("wss://")
    assert RemotePolicy(server.url, "secret", tmp_path / "cert.pem").infer({"x": 3})["actions"] == 6
    with pytest.raises(RuntimeError, match="certificate verify failed"):
        RemotePolicy(server.url, "secret")
    with pytest.raises(RuntimeError, match="401"):
        RemotePolicy(server.url, "wrong", tmp_path / "cert.pem")
    with pytest.raises(RuntimeError, match="no policy server answers there"):
        RemotePolicy(server.url.replace("wss:", "ws:"), "secret")
    with pytest.raises(ValueError, match=r"key\.pem: no certificates in PEM"):
        RemotePolicy(server.url, "secret", tmp_path / "key.pem")
    with pytest.raises(ValueError, match="certificates belong to wss"):
        RemotePolicy("ws://localhost:1", ca_file=tmp_path / "cert.pem")
    with pytest.raises(ValueError, match="expected ws://HOST:PORT"):
        RemotePolicy("http://localhost:1")


@pytest.mark.parametrize(
    ("message", "expected"),
    [
        (b"\xc1", "not a message"),
        ("text", "expected a binary message"),
        (pack([1, 2]), "expected a map, got list"),
        (pack({"y": 1}), "KeyError"),
    ],
)
def test_a_bad_request_gets_a_text_and_ends_only_its_own_connection(serve, message, expected):
    server = serve()
    good = RemotePolicy(server.url)
    with connect(server.url, compression=None) as client:
        client.recv(timeout=5)
        client.send(message)
        text = client.recv(timeout=5)
        assert isinstance(text, str)
        assert expected in text
        assert "Traceback" not in text
        with pytest.raises(ConnectionClosed):
            client.recv(timeout=5)
    assert good.infer({"x": 4})["actions"] == 8


def test_limits_of_size_and_number(serve):
    server = serve(limits=Limits(message_bytes=1000, connections=2))
    first, second = RemotePolicy(server.url), RemotePolicy(server.url)
    with pytest.raises(RuntimeError, match="503"):
        RemotePolicy(server.url)
    with pytest.raises(RuntimeError, match=r"1009|too big"):
        first.infer({"x": np.zeros(1000)})
    assert second.infer({"x": 1})["actions"] == 2
    deadline = time.monotonic() + 5
    while True:  # the place of the closed one is free again
        try:
            RemotePolicy(server.url).close()
            break
        except RuntimeError:
            assert time.monotonic() < deadline
            time.sleep(0.02)


def test_slow_clients_wait_alone_and_are_dropped(serve):
    big = np.zeros(3_000_000, np.uint8)
    server = serve(lambda request: {"actions": big}, limits=Limits(idle_s=0.6, send_s=0.6))
    # One that never speaks HTTP, one that sends half a message, one that does not read its answers.
    stack = contextlib.ExitStack()
    mute = socket.create_connection(("127.0.0.1", server.port))
    half = stack.enter_context(connect(server.url, compression=None, close_timeout=0.1))
    half.recv(timeout=5)
    half.socket.sendall(b"\x82\xfe\x10\x00")  # a frame of 4096 bytes is announced, none come
    deaf = stack.enter_context(connect(server.url, compression=None, max_queue=1, close_timeout=0.1))
    for _ in range(4):
        deaf.send(pack({"x": 0}))
    good = RemotePolicy(server.url, timeout_s=5.0)
    slowest = 0.0
    for _ in range(10):
        begin = time.monotonic()
        assert len(good.infer({"x": 0})["actions"]) == len(big)
        slowest = max(slowest, time.monotonic() - begin)
        time.sleep(0.05)
    assert slowest < 1.0
    deadline = time.monotonic() + 5
    while not any("dropped" in line for line in server.lines) and time.monotonic() < deadline:
        good.infer({"x": 0})
        time.sleep(0.1)
    assert any("dropped" in line for line in server.lines)
    mute.close()
    stack.close()


def test_a_policy_that_hangs_fails_its_request_and_not_the_server(serve):
    release = threading.Event()

    def infer(request):
        if request["x"] == 0:
            release.wait(5)
        return {"actions": 1}

    server = serve(infer, limits=Limits(infer_s=0.2))
    with pytest.raises(RuntimeError, match=r"no answer within 0\.2 s"):
        RemotePolicy(server.url, timeout_s=5).infer({"x": 0})
    release.set()
    assert RemotePolicy(server.url, timeout_s=5).infer({"x": 1})["actions"] == 1


def test_random_bytes_do_not_end_the_server(serve):
    server, rng = serve(), np.random.default_rng(0)
    for length in (0, 1, 10, 500):
        with socket.create_connection(("127.0.0.1", server.port), timeout=5) as raw:
            raw.sendall(rng.bytes(length))
    for _ in range(20):
        with connect(server.url, compression=None) as client:
            client.recv(timeout=5)
            client.send(rng.bytes(int(rng.integers(0, 200))))
            assert isinstance(client.recv(timeout=5), str)
    assert RemotePolicy(server.url).infer({"x": 1})["actions"] == 2


def test_the_client_survives_a_server_that_goes_and_comes_back(serve):
    server = serve()
    client = RemotePolicy(server.url)
    assert client.infer({"x": 1})["actions"] == 2
    server.close()
    with pytest.raises(RuntimeError, match=server.url):
        client.infer({"x": 1})
    with pytest.raises(RuntimeError, match="no policy server answers there"):
        client.infer({"x": 1})
    with pytest.raises(RuntimeError, match="not connected"):
        client.infer({"x": 1})
    other = serve()
    client.url, client._retry_at = other.url, 0.0
    assert client.infer({"x": 2})["actions"] == 4


def test_a_server_that_comes_back_with_another_policy_is_not_asked(serve):
    about = {"policy": "ptr-fast", "step": 100, "action": {"units": ["m"]}}
    server = serve(metadata=about)
    client = RemotePolicy(server.url)
    server.close()
    with pytest.raises(RuntimeError, match=server.url):
        client.infer({"x": 1})
    other = serve(metadata={**about, "action": {"units": ["cm"]}})
    for _ in range(2):
        client.url, client._retry_at = other.url, 0.0
        with pytest.raises(RuntimeError, match=rf"{other.url}: another policy answers there now \(other action\)"):
            client.infer({"x": 1})
    same = serve(metadata=about)
    client.url = same.url
    assert client.infer({"x": 1})["actions"] == 2


def test_the_client_does_not_wait_for_a_late_answer_or_use_it(serve):
    server = serve(lambda request: (time.sleep(request["x"]), {"actions": request["x"]})[1])
    client = RemotePolicy(server.url, timeout_s=0.2)
    begin = time.monotonic()
    with pytest.raises(RuntimeError, match=r"no answer within 0\.2 s"):
        client.infer({"x": 0.6})
    assert time.monotonic() - begin < 0.5
    time.sleep(0.6)
    assert client.infer({"x": 0.0})["actions"] == 0.0


def test_nobody_is_there():
    with pytest.raises(RuntimeError, match=r"ws://127\.0\.0\.1:9: no policy server answers there"):
        RemotePolicy("ws://127.0.0.1:9")


@pytest.mark.parametrize("rest", ["", ":80", "h:99999", "h:x", "[::1:80", "h:80#part", "h" * 70 + ":80"])
def test_what_is_no_url_of_a_server_is_refused(rest):
    with pytest.raises(ValueError, match="expected ws://HOST:PORT or wss://HOST:PORT") as caught:
        RemotePolicy(f"ws://{rest}")
    assert str(caught.value).startswith(f"ws://{rest}: ")


@pytest.mark.parametrize("token", ["se\ncret", "secret\n", " secret", "s\u00e9cret"])
def test_a_token_that_no_header_carries_is_refused_and_not_printed(token, monkeypatch):
    monkeypatch.setenv("PTR_FAST_TOKEN", token)
    for refused in (lambda: RemotePolicy("ws://127.0.0.1:9", token), lambda: main(Args(checkpoint=Path("run")))):
        with pytest.raises(ValueError, match=r"^token: expected printable ASCII without blanks around it$"):
            refused()


@pytest.mark.parametrize("actions", ["abc", [[1.0], [1.0, 2.0]], {"a": 1.0}, [["a"]], None, 1.0])
def test_actions_that_are_none_are_the_servers_fault(serve, actions):
    server = serve(infer=lambda request: {"actions": actions})
    with pytest.raises(RuntimeError, match=rf"{server.url}: expected actions \[H, A\], got "):
        RemotePolicy(server.url).decide(np.zeros((2, 2, 3), np.uint8), np.zeros(2, np.float32), "reach")


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({}, "'image'"),
        ({"control_hz": "fast"}, "could not convert string to float: 'fast'"),
        ({"control_hz": -5.0}, "control_hz: expected a positive number, got -5"),
        ({"image": {"camera": "top", "height": -4, "width": 4}}, "height and width must be positive"),
        ({"state": {"names": ["x"], "units": []}}, "1 names but 0 units"),
        ({"tasks": {"names": []}}, "0 tasks"),
        ({"images": [{"camera": "top", "height": 4, "width": 4}]}, "'key'"),
        ({"images": [{"key": ["top"], "camera": "top", "height": 4, "width": 4}]}, "key: expected a text"),
        (
            {"images": [{"key": "i", "camera": name, "height": 4, "width": 4} for name in "ab"]},
            "key: expected another for each camera",
        ),
        ({"image": {"camera": "top", "height": 4.5, "width": 4}}, "height: expected a whole number, got 4.5"),
        ({"image": {"camera": "top", "height": 10**6, "width": 10**6}}, "a request would take 3000000000004 bytes"),
        ({"observations": 10**9}, "a request would take 52000000000 bytes"),
        ({"observations": 1.5}, "observations: expected a whole number, got 1.5"),
    ],
)
def test_metadata_that_make_no_policy_name_the_server(serve, wrong, message):
    right = {
        "control_hz": 5.0,
        "image": {"camera": "top", "height": 4, "width": 4},
        "state": {"names": ["x"], "units": ["m"]},
        "action": {"names": ["dx"], "units": ["m"], "low": [-1.0], "high": [1.0]},
        "tasks": {"names": ["reach"]},
    }
    server = serve(metadata=right)
    remote_contender(server.url).policy._remote.close()
    server = serve(metadata={**right, **wrong} if wrong else {"policy": "other"})
    with pytest.raises(ValueError, match=f"{server.url}: its metadata does not say .*{message}"):
        remote_contender(server.url)
