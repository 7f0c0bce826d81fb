"""Stands in for the WidowX environment service: what was seen on its wire (docs/peers_run.md), over a hand that is a
list of numbers.

In a thread (``StandIn``), or as a process of its own: ``python widowx_stand_in.py PORT``.
"""

from __future__ import annotations

import json
import pickle
import sys
import threading
import time

import lz4.frame
import numpy as np
import simplejpeg
import zmq

HEIGHT, WIDTH = 48, 64
ACTIONS = ["init", "move", "gripper", "reset", "step_action", "reboot_motor"]
OBSERVATIONS = ["image", "state", "full_image"]
SUCCESS, EXECUTION_FAILURE, NOT_INITIALIZED = 1, 2, 3
NEUTRAL = (0.12, -0.019, 0.247, -0.04, -0.127, 0.025, 1.0)  # where the hand is after init and before a reset
LOW, HIGH = np.array([-0.05] * 3 + [-0.25] * 3 + [0.0]), np.array([0.05] * 3 + [0.25] * 3 + [1.0])


class StandIn:
    """Serves until ``close``.

    Attributes to change what it does: ``delay_s`` before each answer, ``raw`` bytes in place of the next answers,
    ``frozen`` camera, ``height`` of its frames (None: as it was asked for), ``status`` of all actions, ``testing`` as
    the service's own test mode. ``steps``: actions it got. ``restarts``: how often a request made it fail, upon which
    it answers nothing and sets its arm up anew.
    """

    def __init__(self, port: int = 0, num_cameras: int = 1) -> None:
        self.delay_s, self.raw, self.frozen, self.status, self.testing = 0.0, None, False, SUCCESS, False
        self.height: int | None = None
        self.steps: list[np.ndarray] = []
        self.resets = self.restarts = 0
        self.num_cameras, self.env_params, self.image_size = num_cameras, None, 0
        self.state: np.ndarray | None = None
        self._target: np.ndarray | None = None
        self._frame_number = 0
        self._context = zmq.Context()
        self.port = port
        self._listen()
        self._closed = threading.Event()
        self._thread = threading.Thread(target=self.serve, daemon=True)

    def start(self) -> StandIn:
        self._thread.start()
        return self

    def close(self) -> None:
        self._closed.set()
        if self._thread.is_alive():
            self._thread.join(10)
        self._socket.close(0)
        self._context.term()

    def _listen(self) -> None:
        self._socket = self._context.socket(zmq.REP)
        self._socket.setsockopt(zmq.LINGER, 0)
        self._socket.setsockopt(zmq.RCVTIMEO, 50)
        if self.port:
            self._socket.bind(f"tcp://127.0.0.1:{self.port}")
        else:
            self.port = self._socket.bind_to_random_port("tcp://127.0.0.1")

    def serve(self) -> None:
        while not self._closed.is_set():
            try:
                request = pickle.loads(lz4.frame.decompress(self._socket.recv()))
            except zmq.Again:
                continue
            try:
                answer = self.answer(request)
            except (AttributeError, AssertionError):  # the service's own words for it, and then nothing
                self.restarts += 1
                self._socket.close(0)
                self._set_up()
                self._listen()
                continue
            time.sleep(self.delay_s)
            self._socket.send(self.raw if self.raw is not None else lz4.frame.compress(pickle.dumps(answer, 4)))

    def answer(self, request: dict) -> dict:
        if request["type"] == "hash":
            config = {
                "port_number": self.port,
                "action_keys": ACTIONS,
                "observation_keys": OBSERVATIONS,
                "broadcast_port": self.port + 1,
                "version": "0.0.1",
            }
            return {"success": True, "payload": json.dumps(config, separators=(",", ":"))}
        if request["type"] == "obs":
            return self.observe()
        if request["type"] == "act":
            return {"status": self.act(request["key"], request["payload"])}
        return {"success": False, "message": "Invalid payload"}

    def observe(self) -> dict:
        if self.state is None:
            noise = np.random.default_rng(0).integers(0, 255, (480, 640, 3), np.uint8)
            return {"image": noise, "state": {}, "full_image": noise}
        self._frame_number += not self.frozen
        # It has its frame in RGB and encodes it as if that were BGR.
        file = simplejpeg.encode_jpeg(self._picture(), quality=95, colorspace="BGR", colorsubsampling="420")
        small = np.zeros((self.num_cameras, 3 * self.image_size**2), np.float32)
        return {"image": small, "state": self.state, "full_image": file}

    def _picture(self) -> np.ndarray:
        """Of the first camera: its left half red, its right half blue, a corner that counts."""
        topic = self.env_params["camera_topics"][0]
        height, width = self.height or topic.get("height", 480), topic.get("width", 640)
        picture = np.zeros((height, width, 3), np.uint8)
        picture[:, : width // 2] = (200, 0, 0)
        picture[:, width // 2 :] = (0, 0, 200)
        picture[height * 3 // 4 :, width * 3 // 4 :] = self._frame_number * 8 % 256
        return picture

    def act(self, key: str, payload: dict) -> int:
        if key not in ACTIONS:
            return EXECUTION_FAILURE
        if key == "init":
            return self._init(payload)
        if self.state is None:
            return NOT_INITIALIZED
        if self.status != SUCCESS:
            return self.status
        if key == "reset":
            self._reset()
        if key == "step_action":
            self._step(payload["action"])
        return SUCCESS

    def _init(self, payload: dict) -> int:
        known, self.env_params, self.image_size = self.env_params, payload["env_params"], payload["image_size"]
        if self.testing:
            return NOT_INITIALIZED
        if known == self.env_params:
            self._reset()
        else:
            self._set_up()
        return SUCCESS

    def _set_up(self) -> None:
        self.state, self._target = np.array(NEUTRAL), None

    def _reset(self) -> None:
        self.resets += 1
        self.state = np.array(self.env_params["start_state"], float)
        self._target = self.state.copy()

    def _step(self, action: np.ndarray) -> None:
        columns = range(7) if self.env_params["action_mode"] == "3trans3rot" else (0, 1, 2, 5, 6)
        assert action.shape == (len(columns),)
        whole = np.zeros(7)
        whole[list(columns)] = action
        whole = np.clip(whole, LOW, HIGH)
        target = self._target.copy()  # there is none before a reset
        self.steps.append(action)
        target[:6] += whole[:6]
        target[:3] = np.clip(target[:3], *np.array(self.env_params["override_workspace_boundaries"])[:, :3])
        target[6] = whole[6]
        self.state, self._target = target, target


if __name__ == "__main__":
    StandIn(int(sys.argv[1])).serve()
