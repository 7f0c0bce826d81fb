"""Stands in for the WidowX environment service: the same requests, answers and quirks; its hand is a list of numbers.

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
import zmq

HEIGHT, WIDTH = 48, 64
KEYS = ["init", "move", "gripper", "reset", "step_action", "reboot_motor"]


class StandIn:
    """Serves until ``close``.

    Attributes to change what it does: ``delay_s`` before each answer, ``raw`` bytes in place of the next answers,
    ``frozen`` camera, ``height`` of its frames, ``status`` of all actions, ``testing`` as the service's own test mode.
    ``steps``: actions it got.
    """

    def __init__(self, port: int = 0, num_cameras: int = 1) -> None:
        self.delay_s, self.raw, self.frozen, self.status, self.testing = 0.0, None, False, 1, False
        self.height = HEIGHT
        self.steps: list[np.ndarray] = []
        self.resets, self.num_cameras, self.env_params = 0, num_cameras, None
        self.state = None
        self._frame_number = 0
        self._context = zmq.Context()
        self._socket = self._context.socket(zmq.REP)
        self._socket.setsockopt(zmq.LINGER, 0)
        self._socket.setsockopt(zmq.RCVTIMEO, 50)
        self.port = port or self._socket.bind_to_random_port("tcp://127.0.0.1")
        if port:
            self._socket.bind(f"tcp://127.0.0.1:{port}")
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

    def serve(self) -> None:
        while not self._closed.is_set():
            try:
                request = pickle.loads(lz4.frame.decompress(self._socket.recv()))
            except zmq.Again:
                continue
            answer = self.answer(request)
            time.sleep(self.delay_s)
            self._socket.send(self.raw if self.raw is not None else lz4.frame.compress(pickle.dumps(answer, 4)))

    def answer(self, request: dict) -> dict:
        if request["type"] == "hash":
            config = {"port_number": self.port, "action_keys": KEYS, "observation_keys": ["image"], "version": "0.0.1"}
            return {"success": True, "payload": json.dumps(config)}
        if request["type"] == "obs":
            return self.observe()
        return {"status": self.act(request["key"], request["payload"])}

    def observe(self) -> dict:
        self._frame_number += not self.frozen
        frame = np.full((self.num_cameras, self.height, WIDTH, 3), self._frame_number % 256, np.uint8)
        if self.state is None:
            return {"image": frame[0], "state": {}, "full_image": frame[0]}
        flat = np.float32(frame[0].transpose(2, 0, 1).flatten()) / 255.0
        full = {"qpos": np.zeros(6), "images": frame, "time_stamp": 1.5, "env_done": np.bool_(False)}
        return {"image": flat, "state": self.state, "full_image": frame, "full_obs": full, "image_1": None}

    def act(self, key: str, payload: dict) -> int:
        if key == "init" and not self.testing:
            self.env_params = payload["env_params"]
            self.state = np.array(self.env_params["start_state"])
        if self.state is None:
            return 3
        if self.status != 1:
            return self.status
        if key == "reset":
            self.resets += 1
            self.state = np.array(self.env_params["start_state"])
        if key == "step_action":
            action = payload["action"]
            assert action.dtype == np.float64
            self.steps.append(action)
            action = action if len(action) == 7 else np.r_[action[:3], 0, 0, action[3:]]
            low, high = np.array(self.env_params["override_workspace_boundaries"])[:, :3]
            self.state = self.state + np.r_[action[:6], 0]
            self.state[:3] = np.clip(self.state[:3], low, high)
            self.state[6] = action[6]
        return 1


if __name__ == "__main__":
    StandIn(int(sys.argv[1])).serve()
