"""A toy kitchen that runs in real time, with the faults of real ones: latency, jitter, lost frames, a frozen camera."""

from __future__ import annotations

import math
import threading
import time
from collections import deque
from typing import Any

import numpy as np

from ptr_fast.runtime.safety import AxisLimits, SafetyLimits
from ptr_robot.robots.interface import LeRobotShape
from ptr_robot.sim.environment import CAMERA_NAME, STATE_SPEC, action_spec, make_environment
from ptr_robot.sim.worlds import World

__all__ = ["SimulatedRobot"]

WORKSPACE_M = {"dx": (-0.5, 0.5), "dy": (0.4, 1.0), "dz": (0.03, 0.5)}  # of the hand, as the simulator clips it
_OPEN = -1.0


class SimulatedRobot(LeRobotShape):
    """The arm of :class:`ptr_robot.sim.environment.KitchenEnv`, stepped by a thread of its own on the wall clock.

    A command lasts for one control period; without a new one the hand stands still and the gripper stays as it is.

    Args:
        task, kitchen, start, distractors, image_size: as in ``KitchenEnv``.
        hz: control rate; divides 80.
        latency_ms: age of a frame when it is delivered. jitter_ms: up to so much more, uniform.
        drop_share: share of frames that never arrive, in [0, 1).
        freeze_after_s: the camera stops delivering so long after a reset; 0 never.
        seed: of the faults.

    Raises:
        ValueError: a number out of range.
    """

    name = "simulated"

    def __init__(
        self,
        task: str = "put block on plate",
        kitchen: str = "A",
        hz: float = 20.0,
        image_size: int = 64,
        start: str = "easy",
        distractors: int = 0,
        latency_ms: float = 0.0,
        jitter_ms: float = 0.0,
        drop_share: float = 0.0,
        freeze_after_s: float = 0.0,
        seed: int = 0,
    ) -> None:
        repeat = World.STEP_HZ / hz
        if repeat != round(repeat):
            raise ValueError(f"hz: expected a divisor of {World.STEP_HZ}, got {hz:g}")
        if latency_ms < 0 or jitter_ms < 0 or freeze_after_s < 0 or not 0 <= drop_share < 1:
            raise ValueError("latency_ms, jitter_ms and freeze_after_s must not be negative, drop_share lies in [0, 1)")
        self.control_hz, self._repeat, self._image_size = hz, round(repeat), image_size
        self._make = {"task": task, "kitchen": kitchen, "start": start, "distractors": distractors}
        self._latency_s, self._jitter_s = latency_ms * 1e-3, jitter_ms * 1e-3
        self._drop_share, self._freeze_after_s = drop_share, freeze_after_s
        self._rng = np.random.default_rng(seed)
        self._spec = action_spec(self._repeat)
        self.observation_features: dict[str, Any] = dict.fromkeys(STATE_SPEC.names, float)
        self.observation_features[CAMERA_NAME] = (image_size, image_size, 3)
        self.action_features: dict[str, Any] = dict.fromkeys(self._spec.names, float)
        self.units = {
            **dict(zip(STATE_SPEC.names, STATE_SPEC.units, strict=True)),
            **dict(zip(self._spec.names, self._spec.units, strict=True)),
        }
        self.is_connected = False
        self._changed = threading.Condition()
        # All below is guarded by _changed.
        self._command: np.ndarray | None = None
        self._gripper = _OPEN
        self._newest: dict[str, Any] | None = None
        self._success = False
        self._wanted_seed: int | None = None
        self._resets = 0
        self._failure: BaseException | None = None
        self._closed = False
        self._thread: threading.Thread | None = None

    def connect(self, calibrate: bool = True) -> None:
        """Starts the kitchen; returns when its first frame is there.

        Raises:
            ValueError, RuntimeError: an unknown task or kitchen, or no OpenGL.
        """
        self._closed, self._failure = False, None
        self._thread = threading.Thread(target=self._run, name="simulated-robot", daemon=True)
        self._thread.start()
        self.is_connected = True
        self.reset(0)

    def reset(self, seed: int) -> None:
        """A new start, drawn from the seed; returns when its first frame is there."""
        with self._changed:
            self._wanted_seed, before = seed, self._resets
            self._changed.wait_for(lambda: self._resets > before or self._failure is not None, timeout=60.0)
            self._check()

    def get_observation(self) -> dict[str, Any]:
        """The newest frame that was delivered, and the state now."""
        with self._changed:
            self._check()
            assert self._newest is not None
            return dict(self._newest)

    def send_action(self, action: dict[str, float]) -> dict[str, float]:
        """Hand displacement and gripper for the next control period, in the units of the store."""
        command = np.array([action[name] for name in self._spec.names], np.float64)
        sent = np.clip(command, -1.0, 1.0)
        with self._changed:
            self._check()
            self._command = sent
        return dict(zip(self._spec.names, sent.tolist(), strict=True))

    def stop(self) -> None:
        """The hand stands still from now on."""
        with self._changed:
            self._command = None

    def success(self) -> bool:
        """Whether the task was done at some moment since the reset."""
        with self._changed:
            return self._success

    def limits(self, hz: float) -> SafetyLimits:
        """Meta-World's own workspace of the hand; the experts' full speed is 1 per command."""
        axes = [
            AxisLimits(
                name=name,
                relative=True,
                position=i,
                low=-1.0,
                high=1.0,
                scale=0.01 * self._repeat,
                box_low=box[0],
                box_high=box[1],
                max_acceleration=0.5 * hz * hz,  # full speed after two commands
            )
            for i, (name, box) in enumerate(WORKSPACE_M.items())
        ]
        axes.append(AxisLimits(name="gripper", relative=False, low=-1.0, high=1.0))
        return SafetyLimits(
            axes=axes,
            state_size=len(STATE_SPEC.names),
            period_s=1 / hz,
            ramp_s=0.25,
            hold_after_s=0.5,
            stop_after_s=2.0,
        )

    def disconnect(self) -> None:
        with self._changed:
            self._closed = True
            self._changed.notify_all()
        if self._thread is not None:
            self._thread.join(10.0)
        self._thread, self.is_connected = None, False

    def _check(self) -> None:
        if self._failure is not None:
            raise RuntimeError(f"{self.name}: {self._failure}") from self._failure
        if not self.is_connected:
            raise RuntimeError(f"{self.name}: not connected")

    def _run(self) -> None:
        # OpenGL contexts belong to the thread that made them, so the environment lives here.
        try:
            env = make_environment(
                image_size=self._image_size, action_repeat=self._repeat, max_steps=100_000, **self._make
            )
            try:
                self._live(env)
            finally:
                env.close()
        except BaseException as error:  # noqa: BLE001  (told to the caller of the next method)
            with self._changed:
                self._failure = error
                self._changed.notify_all()

    def _live(self, env: Any) -> None:
        period = 1.0 / self.control_hz
        on_the_way: deque[tuple[float, dict[str, Any]]] = deque()
        due, reset_at = time.monotonic(), math.inf
        while True:
            with self._changed:
                if self._closed:
                    return
                seed, self._wanted_seed = self._wanted_seed, None
                command, self._command = self._command, None
            if seed is not None:
                observed, _ = env.reset(seed=seed)
                on_the_way.clear()
                due = reset_at = time.monotonic()
                with self._changed:
                    self._newest, self._success, self._gripper = self._pack(observed), False, _OPEN
                    self._resets += 1
                    self._changed.notify_all()
            elif reset_at < math.inf:
                if command is None:
                    command = np.array([0.0, 0.0, 0.0, self._gripper])
                self._gripper = float(command[3])
                observed, _, _, _, info = env.step(command.astype(np.float32))
                with self._changed:
                    self._success = self._success or bool(info["success"])
                if self._rng.random() >= self._drop_share:
                    delay = self._latency_s + self._jitter_s * self._rng.random()
                    on_the_way.append((time.monotonic() + delay, self._pack(observed)))
            now = time.monotonic()
            frozen = self._freeze_after_s > 0 and now - reset_at > self._freeze_after_s
            while on_the_way and on_the_way[0][0] <= now:
                _, arrived = on_the_way.popleft()
                if not frozen:
                    with self._changed:
                        self._newest = arrived
            due = max(due + period, now - period)  # a machine that is too slow makes the kitchen slow, not hasty
            time.sleep(max(0.0, due - now))

    def _pack(self, observed: dict[str, np.ndarray]) -> dict[str, Any]:
        state = dict(zip(STATE_SPEC.names, observed["state"].tolist(), strict=True))
        return {**state, CAMERA_NAME: observed["image"], "captured_ns": time.monotonic_ns()}
