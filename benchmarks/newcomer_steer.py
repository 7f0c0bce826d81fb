"""A steered policy between openpi's own server and openpi's own client: the commands of docs/steer.md with real peers.

``PYTHONPATH=OPENPI/src python -m benchmarks.newcomer_steer RUN_WITH_CRITIC RUN_OF_CLONE`` in an environment with
openpi-client, where OPENPI is a copy of their repository (of which the file of the server alone is imported) and
``ptr-fast`` is on PATH. It prints every command with what came, and is how
``benchmarks/results/newcomer_steer.log`` was made.
"""

from __future__ import annotations

import os
import re
import shlex
import signal
import subprocess
import sys
import threading
import time
from importlib.metadata import version
from pathlib import Path

import numpy as np
from openpi.serving.websocket_policy_server import WebsocketPolicyServer
from openpi_client.action_chunk_broker import ActionChunkBroker
from openpi_client.base_policy import BasePolicy
from openpi_client.websocket_client_policy import WebsocketClientPolicy

OTHER, OURS, STEERED = 8101, 8102, 8103
HORIZON, DIMENSIONS = 5, 4
FRAMES = "observation/image"
OBSERVATION = {"observation/state": np.zeros(4, np.float32), "prompt": "put block on plate"}


class Wandering(BasePolicy):
    """Stands in for a large policy that samples: chunks of small displacements, other ones at every call."""

    def __init__(self) -> None:
        self.given: list[np.ndarray] = []
        self._rng = np.random.default_rng(0)

    def infer(self, obs: dict) -> dict:
        assert obs[FRAMES].dtype == np.uint8, "frames come as pictures"
        self.given.append(self._rng.normal(0.0, 0.4, (HORIZON, DIMENSIONS)))
        return {"actions": self.given[-1]}


def told(text: str) -> None:
    """Prints what came, without the paths of this machine."""
    for place in (str(Path.cwd()), str(Path.home())):
        text = text.replace(place + "/", "")
    print(re.sub(r"\n+$", "", text), flush=True)


def run(command: str) -> None:
    """Runs a command to its end."""
    told(f"\n$ {command}")
    done = subprocess.run(shlex.split(command), text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    told(f"{done.stdout.strip()}\n[exit code {done.returncode}]")


class Served:
    """``ptr-fast serve`` while a block is entered; what it said is printed at the end."""

    def __init__(self, command: str) -> None:
        self._command = command

    def __enter__(self) -> None:
        told(f"\n$ {self._command} &")
        pipes = {"text": True, "stdout": subprocess.PIPE, "stderr": subprocess.STDOUT}
        self._process = subprocess.Popen(shlex.split(self._command), **pipes)
        ready = threading.Event()
        self._reader = threading.Thread(target=self._read, args=(ready,))
        self._reader.start()
        assert ready.wait(300), "the server did not start"

    def _read(self, ready: threading.Event) -> None:
        for line in self._process.stdout:
            told(line)
            if "Ctrl-C" in line:
                ready.set()
        ready.set()

    def __exit__(self, *_: object) -> None:
        told("[Ctrl-C]")
        self._process.send_signal(signal.SIGINT)
        self._process.wait(60)
        self._reader.join()
        told(f"[exit code {self._process.returncode}]")


def observation(number: int) -> dict:
    """A made-up picture of 64 pixels."""
    frame = np.random.default_rng(number).integers(0, 256, (64, 64, 3), np.uint8)
    return {**OBSERVATION, FRAMES: frame}


def ask(number: int) -> tuple[WebsocketClientPolicy, list[np.ndarray]]:
    """openpi's client asks the steered server so often."""
    client = WebsocketClientPolicy("127.0.0.1", STEERED)
    about = client.get_server_metadata()
    told(f"WebsocketClientPolicy: metadata {sorted(about)}, horizon {about['action'].get('horizon', 1)}")
    start = time.perf_counter()
    answers = [client.infer(observation(i))["actions"] for i in range(number)]
    took = (time.perf_counter() - start) / number
    told(f"{number} requests, {1000 * took:.0f} ms each: actions {answers[0].dtype} {list(answers[0].shape)}")
    return client, answers


def chosen(answers: list[np.ndarray], given: list[np.ndarray], count: int, space: dict) -> None:
    """Says which of the proposals of each decision came back to the client."""
    ranks = []
    for number, answer in enumerate(answers):
        proposals = np.clip(given[count * number : count * (number + 1)], space["low"], space["high"])
        (rank,) = np.flatnonzero(np.abs(proposals - answer).max((1, 2)) < 1e-6)
        ranks.append(int(rank))
    told(f"each answer is one of openpi's {count} proposals as a whole: numbers {ranks}")


def main(critic: str, clone: str) -> None:
    """Runs all of it."""
    packages = ("openpi-client", "websockets", "numpy", "msgpack")
    told("openpi's side: " + ", ".join(f"{name} {version(name)}" for name in packages))
    told("openpi's server: openpi.serving.websocket_policy_server of its repository, " + os.environ["OPENPI_COMMIT"])
    other = Wandering()
    server = WebsocketPolicyServer(other, "127.0.0.1", OTHER, metadata={})
    threading.Thread(target=server.serve_forever, daemon=True).start()

    told("\n== openpi's server proposes, our critic chooses, openpi's client asks")
    steer = f"--steer ws://127.0.0.1:{OTHER} --steer-proposals 6 --steer-timeout-s 20"
    run(f"ptr-fast serve --checkpoint {critic} --port {STEERED} {steer}")
    with Served(f"ptr-fast serve --checkpoint {critic} --port {STEERED} {steer} --steer-same-spaces"):
        other.given.clear()
        client, answers = ask(8)
        chosen(answers, other.given, 6, client.get_server_metadata()["action"])
        broker = ActionChunkBroker(client, action_horizon=HORIZON)
        other.given.clear()
        played = [broker.infer(observation(100))["actions"] for _ in range(2 * HORIZON)]
        told(f"ActionChunkBroker: {len(played)} actions {list(played[0].shape)} of {len(other.given) // 6} decisions")

    told("\n== our arm, steered by openpi's server")
    trial = f"ptr-fast rollout --run {critic} --robot simulated --robot-options kitchen=H --trials 2 --max-steps 40"
    run(f"{trial} {steer} --steer-same-spaces --out trials/openpi")

    told("\n== our own server proposes")
    with Served(f"ptr-fast serve --checkpoint {clone} --port {OURS}"):
        run(f"{trial} --steer ws://127.0.0.1:{OURS} --steer-proposals 4 --out trials/ours")

    told("\n== a file proposes")
    run(f"ptr-fast export --checkpoint {clone} --out policy.onnx")
    with Served(f"ptr-fast serve --checkpoint {critic} --port {STEERED} --steer policy.onnx --steer-proposals 8"):
        ask(8)

    told("\n== a checkpoint proposes, in a kitchen")
    run(f"ptr-fast rollout --run {critic} --steer {clone} --kitchen H --trials 2 --max-steps 20")


if __name__ == "__main__":
    main(*sys.argv[1:])
