"""A WidowX 250 behind the public environment service of the Bridge robots.

The service (``widowx_env_service --server`` of ``rail-berkeley/bridge_data_robot``) owns the arm and its cameras; this
is a client of it that is written anew. An action is a displacement of the hand from the service's last target within
one control period, and an absolute gripper position; a state is the measured hand and gripper.

Note "A stop of the WidowX": the service has no stop request. The arm is moved from target to target, each within
``move_duration_s``, and rests at its last one; so to stop is to send nothing more, and the arm rests at most
``move_duration_s`` later. ``move`` to the measured pose would be sooner, but it takes another orientation convention
than the state has.

Note "Colours of the WidowX's frames". The service has its frames in RGB and hands them to an encoder that takes BGR; so
a decoder that gives BGR gives RGB back, and one that gives RGB gives red for blue.

Note "The first step of the WidowX". A step starts from the target of the last one, which a reset sets: a step before
any reset fails inside the service, which then sets itself up anew and answers nobody meanwhile. And its first step
compiles its inverse kinematics, which takes seconds. So connect() resets, and then steps by nothing.

Source: ``widowx_envs/widowx_env_service.py`` and ``widowx_envs/base/robot_base_env.py`` of bridge_data_robot, 2024-06;
what they were seen to send is in ``docs/peers_run.md``.
"""

from __future__ import annotations

import json
import threading
import time
from typing import Any

import numpy as np
import simplejpeg

from ptr_fast.runtime.safety import AxisLimits, SafetyLimits
from ptr_robot.datasets.layout import BRIDGE_HIGH, BRIDGE_LOW, BRIDGE_NAMES, BRIDGE_UNITS
from ptr_robot.robots.action_channel import ActionChannel
from ptr_robot.robots.frame_age import FrameAge
from ptr_robot.robots.interface import Robot

__all__ = ["WORKSPACE", "WidowXRobot"]

# x, y, z of the hand in m, turn about the vertical in rad, gripper: WidowXConfigs.DefaultEnvParams of the service.
WORKSPACE = ((0.1, -0.15, -0.1, -1.57, 0.0), (0.45, 0.25, 0.18, 1.57, 0.0))
START_STATE = (0.3, 0.0, 0.15, 0.0, 0.0, 0.0, 1.0)
GRIPPER_OPEN = 1.0  # as a reset leaves it
IMAGE_SIZE = 256  # of the service's own small frame, as its client asks for: nobody reads it, every answer waits for it
STATUS = {0: "no connection", 1: "success", 2: "it could not carry that out", 3: "it is not initialised"}
SUCCESS = 1
ACTIONS_NEEDED = {"init", "reset", "step_action"}
OF_FIVE = (0, 1, 2, 5, 6)  # which of the seven actions the mode 3trans1rot has


class WidowXRobot(Robot):
    """Client of one environment service.

    Args:
        host, port: of the service.
        camera: what its first camera is called here; Bridge's checkpoints call it ``image_0``.
        topic: ROS topic of that camera; ``flip`` turns its picture by half a turn.
        image_height, image_width: of that camera's frames, pixels; the service resizes to it.
        action_dim: 7, or 5 (displacement, turn about the vertical, gripper).
        move_duration_s: of one step; 0.2 s is Bridge's 5 Hz.
        initialize: set the service up on connect; False takes its settings as they are. The arm moves either way.
        blocking: the service answers a step when the arm has arrived, not at once.
        timeout_s: for an observation or a step. start_timeout_s: for ``init``, ``reset`` and the first step.

    Raises:
        ValueError: an option out of range.
    """

    name = "widowx"

    def __init__(
        self,
        host: str = "localhost",
        port: int = 5556,
        camera: str = "image_0",
        topic: str = "/blue/image_raw",
        flip: bool = False,
        image_height: int = 480,
        image_width: int = 640,
        action_dim: int = 7,
        move_duration_s: float = 0.2,
        initialize: bool = True,
        blocking: bool = False,
        timeout_s: float = 1.0,
        start_timeout_s: float = 60.0,
    ) -> None:
        if action_dim not in (5, 7):
            raise ValueError(f"action_dim: expected 5 or 7, got {action_dim}")
        if not 0 < port < 65536:
            raise ValueError(f"port: expected 1 to 65535, got {port}")
        for label, value in (
            ("move_duration_s", move_duration_s),
            ("timeout_s", timeout_s),
            ("start_timeout_s", start_timeout_s),
        ):
            if not value > 0:
                raise ValueError(f"{label}: expected a positive number of seconds, got {value:g}")
        self._host, self._port, self._where = host, port, f"widowx at {host}:{port}"
        self._timeout_s, self._start_timeout_s = timeout_s, start_timeout_s
        self._initialize, self._blocking = initialize, blocking
        self._env_params = {
            "fix_zangle": 0.1,
            "move_duration": move_duration_s,
            "adaptive_wait": True,
            "move_to_rand_start_freq": 1,
            "override_workspace_boundaries": [list(WORKSPACE[0]), list(WORKSPACE[1])],
            "action_clipping": "xyz",
            "action_mode": "3trans3rot" if action_dim == 7 else "3trans1rot",
            "catch_environment_except": False,
            "start_state": list(START_STATE),
            "skip_move_to_neutral": False,
            "return_full_image": False,
            "camera_topics": [{"name": topic, "width": image_width, "height": image_height, "flip": flip}],
        }
        self._columns = tuple(range(7)) if action_dim == 7 else OF_FIVE
        self._action_names = [BRIDGE_NAMES[i] for i in self._columns]
        self._low = np.array([BRIDGE_LOW[i] for i in self._columns])
        self._high = np.array([BRIDGE_HIGH[i] for i in self._columns])
        self._camera = camera
        self.control_hz = 1.0 / move_duration_s
        self.observation_features: dict[str, Any] = dict.fromkeys(BRIDGE_NAMES, float)
        self.observation_features[camera] = (image_height, image_width, 3)
        self.action_features: dict[str, Any] = dict.fromkeys(self._action_names, float)
        self.units = dict(zip(BRIDGE_NAMES, BRIDGE_UNITS, strict=True))
        self.is_connected = False
        # The service answers one request at a time; two channels, so that a step never waits for our own observation.
        self._observe: ActionChannel | None = None
        self._act: ActionChannel | None = None
        self._observing = threading.Lock()
        self._stopped = threading.Event()
        self._age = FrameAge()

    def connect(self, calibrate: bool = True) -> None:
        """Finds the service, sets it up, moves the arm to its start and waits for a first observation.

        Raises:
            RuntimeError: nobody answers, it is another service, it refuses, or its camera has another size.
        """
        self.disconnect()
        self._observe = ActionChannel(self._host, self._port, self._where)
        self._act = ActionChannel(self._host, self._port, self._where)
        try:
            self._check_service(self._observe.request({"type": "hash"}, self._timeout_s))
            if self._initialize:
                payload = {"env_params": self._env_params, "image_size": IMAGE_SIZE}
                self._command("init", payload, self._start_timeout_s)
            self.reset(0)
            nothing = np.zeros(len(self._columns))
            nothing[-1] = GRIPPER_OPEN
            self._step(nothing, self._start_timeout_s)
            self.is_connected = True
            self.get_observation()
        except BaseException:
            self.disconnect()
            raise

    def reset(self, seed: int) -> None:
        """Opens the gripper and moves to the start pose; the seed changes nothing. Observations wait meanwhile.

        Raises:
            RuntimeError: the service refuses or does not answer.
        """
        with self._observing:
            self._command("reset", {}, self._start_timeout_s)
            self._age = FrameAge()
        self._stopped.clear()

    def get_observation(self) -> dict[str, Any]:
        """The measured state and the newest frame.

        ``captured_ns`` is when the frame was first asked for: the service tells no time of this machine's clock. A
        frame that comes again byte for byte keeps its time, so that a frozen camera grows old.

        Raises:
            RuntimeError: no answer, or one that is no observation of this arm.
        """
        with self._observing:
            asked_ns = time.monotonic_ns()
            answer = self._channel(self._observe).request(
                {"type": "obs", "keys": ["image", "state", "full_image"]}, self._timeout_s
            )
            state, frame = self._read(answer)
            return {
                **dict(zip(BRIDGE_NAMES, state.tolist(), strict=True)),
                self._camera: frame,
                "captured_ns": self._age.captured_ns(frame, asked_ns),
            }

    def send_action(self, action: dict[str, float]) -> dict[str, float]:
        """One step, clipped to Bridge's bounds as the service clips it.

        Raises:
            ValueError: a number that is not finite.
            RuntimeError: the service refuses or does not answer; or it was stopped and not reset since.
        """
        wanted = np.array([action[name] for name in self._action_names], np.float64)
        if not np.isfinite(wanted).all():
            raise ValueError(f"{self.name}: expected finite actions, got {action}")
        sent = np.clip(wanted, self._low, self._high)
        if self._stopped.is_set():
            raise RuntimeError(f"{self._where}: it was stopped; reset it first")
        self._step(sent, self._timeout_s)
        return dict(zip(self._action_names, sent.tolist(), strict=True))

    def stop(self) -> None:
        """No further step is sent until a reset; the arm rests at its last target (note "A stop of the WidowX")."""
        self._stopped.set()

    def success(self) -> None:
        """Only a person can tell."""

    def limits(self, hz: float) -> SafetyLimits:
        """The service's workspace box and Bridge's action bounds (``robot_base_env.py``: +-0.05 m, +-0.25 rad).

        Full speed is reached after two commands at the earliest. Roll and pitch have no box: the service has none. A
        step counts as under way for its duration; should the hand be later still, the service clips its targets to the
        same box.

        Raises:
            ValueError: a rate at which steps would overlap.
        """
        if hz > self.control_hz * 1.001:
            raise ValueError(f"{self.name}: a step takes {1 / self.control_hz:g} s, so {hz:g} Hz is too fast")
        box = {0: 0, 1: 1, 2: 2, 5: 3}  # state -> column of the workspace
        axes = []
        for i in self._columns:
            if BRIDGE_NAMES[i] == "gripper":
                axes.append(AxisLimits(name="gripper", relative=False, position=i, low=0.0, high=1.0))
                continue
            bounds = {"box_low": WORKSPACE[0][box[i]], "box_high": WORKSPACE[1][box[i]]} if i in box else {}
            axes.append(
                AxisLimits(
                    name=BRIDGE_NAMES[i],
                    relative=True,
                    position=i,
                    low=BRIDGE_LOW[i],
                    high=BRIDGE_HIGH[i],
                    max_acceleration=0.5 * BRIDGE_HIGH[i] * hz * hz,
                    **bounds,
                )
            )
        return SafetyLimits(
            axes=axes,
            state_size=len(BRIDGE_NAMES),
            period_s=1 / hz,
            ramp_s=1.0,
            response_s=1 / self.control_hz,
            hold_after_s=0.5,
            stop_after_s=2.0,
        )

    def disconnect(self) -> None:
        self.is_connected = False
        for channel in (self._observe, self._act):
            if channel is not None:
                channel.close()
        self._observe = self._act = None

    def _channel(self, channel: ActionChannel | None) -> ActionChannel:
        if channel is None or not self.is_connected:
            raise RuntimeError(f"{self._where}: not connected")
        return channel

    def _step(self, action: np.ndarray, timeout_s: float) -> None:
        self._command("step_action", {"action": action, "blocking": self._blocking}, timeout_s)

    def _command(self, key: str, payload: dict[str, Any], timeout_s: float) -> None:
        if self._act is None:
            raise RuntimeError(f"{self._where}: not connected")
        answer = self._act.request({"type": "act", "key": key, "payload": payload}, timeout_s)
        status = answer.get("status") if isinstance(answer, dict) else None
        if status != SUCCESS:
            known = STATUS.get(status) if isinstance(status, int) else None
            raise RuntimeError(f"{self._where}: {key}: {known or f'not an answer of the service: {_shown(answer)}'}")

    def _check_service(self, answer: Any) -> None:
        try:
            offered = set(json.loads(answer["payload"])["action_keys"])
        except (TypeError, KeyError, ValueError) as error:
            raise RuntimeError(f"{self._where}: not a WidowX environment service; it says {_shown(answer)}") from error
        if not offered >= ACTIONS_NEEDED:
            raise RuntimeError(f"{self._where}: this service lacks {sorted(ACTIONS_NEEDED - offered)}")

    def _read(self, answer: Any) -> tuple[np.ndarray, np.ndarray]:
        """State float64 [7] and frame uint8 [H, W, 3] of an observation."""
        if not isinstance(answer, dict) or not {"state", "full_image"} <= set(answer):
            raise RuntimeError(f"{self._where}: not an observation: {_shown(answer)}")
        state, frame = answer["state"], answer["full_image"]
        if isinstance(state, dict) and not state:
            raise RuntimeError(f"{self._where}: {STATUS[3]}: it sends made-up observations")
        good = isinstance(state, np.ndarray) and state.shape == (len(BRIDGE_NAMES),) and state.dtype.kind in "fiu"
        if not good or not np.isfinite(state).all():
            wanted = f"{len(BRIDGE_NAMES)} finite numbers"
            raise RuntimeError(f"{self._where}: state: expected {wanted}, got {_shown(state)}")
        return state.astype(np.float64), self._decode(frame)

    def _decode(self, frame: Any) -> np.ndarray:
        """uint8 ``[H, W, 3]`` RGB of the service's JPEG file (note "Colours of the WidowX's frames")."""
        if not isinstance(frame, bytes):
            raise RuntimeError(f"{self._where}: camera: expected a JPEG file, got {type(frame).__name__}")
        try:
            height, width, _, _ = simplejpeg.decode_jpeg_header(frame)
            if (height, width, 3) == self.observation_features[self._camera]:
                return simplejpeg.decode_jpeg(frame, colorspace="BGR")
        except ValueError as error:
            told = f"not a whole JPEG file of {len(frame)} bytes ({error})"
            raise RuntimeError(f"{self._where}: camera: {told}") from error
        wanted = "{} x {}".format(*self.observation_features[self._camera])
        raise RuntimeError(
            f"{self._where}: camera: expected frames of {wanted} pixels, got {height} x {width}; "
            "see image_height and image_width"
        )


def _shown(value: Any) -> str:
    """The beginning of a value, on one line."""
    return " ".join(repr(value).split())[:80]
