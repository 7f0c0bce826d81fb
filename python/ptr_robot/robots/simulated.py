"""A toy kitchen that runs in real time, with the faults of real ones: latency, jitter, lost frames, a frozen camera."""

from __future__ import annotations

import math
import threading
import time
from collections import deque
from typing import Any, Generic, TypeVar

import numpy as np

from ptr_fast.runtime.safety import AxisLimits, SafetyLimits
from ptr_robot.robots.interface import Robot
from ptr_robot.sim.environment import CAMERA_NAME, STATE_SPEC, action_spec, check_cameras, make_environment
from ptr_robot.sim.operators import SKILLS, Operator, SkillName
from ptr_robot.sim.worlds import PutWorld, StockWorld, World

__all__ = ["SimulatedRobot"]

WORKSPACE_M = {"dx": (-0.5, 0.5), "dy": (0.4, 1.0), "dz": (0.03, 0.5)}  # of the hand, as the simulator clips it
_OPEN = -1.0
T = TypeVar("T")


class SimulatedRobot(Robot):
    """The arm of :class:`ptr_robot.sim.environment.KitchenEnv`, stepped by a thread of its own on the wall clock.

    A command lasts for one control period; without a new one the hand stands still and the gripper stays as it is. The
    cameras take a frame each at the end of every control period, at one moment, and share their faults. A fault acts on
    when something is delivered, to the millisecond, and never on when it was measured.

    Args:
        task, kitchen, start, distractors, image_size, cameras: as in ``KitchenEnv``; several as ``front,wrist``.
        hz: control rate; divides 80.
        latency_ms: age of a frame when it is delivered. jitter_ms: up to so much more, uniform.
        state_latency_ms: age of a state when it is delivered.
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
        state_latency_ms: float = 0.0,
        drop_share: float = 0.0,
        freeze_after_s: float = 0.0,
        seed: int = 0,
        cameras: str = CAMERA_NAME,
    ) -> None:
        if hz <= 0 or seed < 0 or image_size < 1:
            told = f"got {hz:g}, {seed} and {image_size}"
            raise ValueError(f"hz and image_size must be positive, seed must not be negative, {told}")
        repeat = World.STEP_HZ / hz
        if repeat != round(repeat):
            raise ValueError(f"hz: expected a divisor of {World.STEP_HZ}, got {hz:g}")
        if min(latency_ms, jitter_ms, state_latency_ms, freeze_after_s) < 0 or not 0 <= drop_share < 1:
            raise ValueError("latencies, jitter_ms and freeze_after_s must not be negative, drop_share lies in [0, 1)")
        self.control_hz, self._repeat, self._image_size = hz, round(repeat), image_size
        self._make: dict[str, Any] = {"task": task, "kitchen": kitchen, "start": start, "distractors": distractors}
        self._latency_s, self._jitter_s = latency_ms * 1e-3, jitter_ms * 1e-3
        self._state_latency_s = state_latency_ms * 1e-3
        self._drop_share, self._freeze_after_s = drop_share, freeze_after_s
        self._rng = np.random.default_rng(seed)
        self._spec = action_spec(self._repeat)
        self.observation_features: dict[str, Any] = dict.fromkeys(STATE_SPEC.names, float)
        self._cameras = check_cameras(cameras.split(","))
        self.observation_features.update(dict.fromkeys(self._cameras, (image_size, image_size, 3)))
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
        self._frames: _Delivery[dict[str, np.ndarray]] = _Delivery()
        self._states: _Delivery[np.ndarray] = _Delivery()
        self._success = False
        self._operator_seed: tuple[SkillName, int] | None = None
        self._told: np.ndarray | None = None
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
        """The newest frame and the newest state that were delivered, each with its time."""
        with self._changed:
            self._check()
            frames, captured_ns = self._frames.newest()
            state, state_captured_ns = self._states.newest()
        return {
            **dict(zip(STATE_SPEC.names, state.tolist(), strict=True)),
            **frames,
            "captured_ns": captured_ns,
            "state_captured_ns": state_captured_ns,
        }

    def send_action(self, action: dict[str, float]) -> dict[str, float]:
        """Hand displacement and gripper for the next control period, in the units of the store."""
        command = np.array([action[name] for name in self._spec.names], np.float64)
        sent = np.clip(command, -1.0, 1.0)
        with self._changed:
            self._check()
            self._command = sent
        return dict(zip(self._spec.names, sent.tolist(), strict=True))

    def operated(self, skill: SkillName, seed: int) -> dict[str, float]:
        """What a model of an operator (:mod:`ptr_robot.sim.operators`) would send now.

        The operator comes with the first call after a reset, wants something else in every control period, and rests
        when the task is done or given up.

        Raises:
            ValueError: an unknown skill.
        """
        if skill not in SKILLS:
            raise ValueError(f"skill: expected one of {list(SKILLS)}, got {skill!r}")
        with self._changed:
            self._check()
            self._operator_seed = (skill, seed)
            self._changed.wait_for(lambda: self._told is not None or self._failure is not None, timeout=60.0)
            self._check()
            assert self._told is not None
            return dict(zip(self._spec.names, self._told.tolist(), strict=True))

    def stop(self) -> None:
        """The hand stands still from now on."""
        with self._changed:
            self._command = None

    def success(self) -> bool:
        """Whether the task was done at some moment since the reset."""
        with self._changed:
            return self._success

    def limits(self, hz: float) -> SafetyLimits:
        """Meta-World's own workspace of the hand; the experts' full speed is 1 per command.

        A command counts as under way for one control period. The hand follows its target like a spring and is there
        after three; but the simulator clips targets to the same box.
        """
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
            response_s=1 / hz,
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
                cameras=self._cameras,
                image_size=self._image_size,
                action_repeat=self._repeat,
                max_steps=100_000,
                **self._make,
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
        due, reset_at = time.monotonic(), math.inf
        operating: _Operating | None = None
        while True:
            with self._changed:
                if self._closed:
                    return
                seed, self._wanted_seed = self._wanted_seed, None
                command, self._command = self._command, None
                if seed is None and operating is None and self._operator_seed is not None:
                    operating = _Operating(env.world, *self._operator_seed)
                if operating is not None:
                    self._told = operating.command()
                    self._changed.notify_all()
            if seed is not None:
                observed, _ = env.reset(seed=seed)
                due, reset_at, operating = (now := time.monotonic()), now, None
                with self._changed:
                    self._operator_seed = self._told = None
                    self._frames, self._states = _Delivery(), _Delivery()
                    self._frames.send(env.images(observed), 0.0)
                    self._states.send(observed["state"], 0.0)
                    self._success, self._gripper = False, _OPEN
                    self._resets += 1
                    self._changed.notify_all()
            elif reset_at < math.inf:
                if command is None:
                    command = np.array([0.0, 0.0, 0.0, self._gripper])
                self._gripper = float(command[3])
                observed, _, _, _, info = env.step(command.astype(np.float32))
                frozen = 0 < self._freeze_after_s < time.monotonic() - reset_at
                with self._changed:
                    self._success = self._success or bool(info["success"])
                    self._states.send(observed["state"], self._state_latency_s)
                    if self._rng.random() >= self._drop_share and not frozen:
                        self._frames.send(env.images(observed), self._latency_s + self._jitter_s * self._rng.random())
            now = time.monotonic()
            due = max(due + period, now - period)  # a machine that is too slow makes the kitchen slow, not hasty
            time.sleep(max(0.0, due - now))


class _Operating:
    """An operator who rests in the end, the gripper as it is."""

    def __init__(self, world: PutWorld | StockWorld, skill: SkillName, seed: int) -> None:
        self._operator = Operator(world, SKILLS[skill], np.random.default_rng(seed))
        self._last: np.ndarray | None = None

    def command(self) -> np.ndarray:
        """Float64 ``[4]`` in [-1, 1]."""
        if self._last is not None:
            return np.array([0.0, 0.0, 0.0, self._last[3]])
        command, is_last = self._operator.command()
        self._last = command if is_last else None
        return command


class _Delivery(Generic[T]):
    """What was measured and is on its way; it arrives when it is due, in order, whoever looks."""

    def __init__(self) -> None:
        self._on_the_way: deque[tuple[float, T, int]] = deque()

    def send(self, measured: T, delay_s: float) -> None:
        """On its way from now on."""
        self._arrive()
        now_ns = time.monotonic_ns()
        self._on_the_way.append((now_ns * 1e-9 + delay_s, measured, now_ns))

    def newest(self) -> tuple[T, int]:
        """What arrived last, and when it was measured (ns)."""
        self._arrive()
        return self._on_the_way[0][1:]

    def _arrive(self) -> None:
        while len(self._on_the_way) > 1 and self._on_the_way[1][0] <= time.monotonic():
            self._on_the_way.popleft()
