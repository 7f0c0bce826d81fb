"""The toy kitchens as a gymnasium environment: one interface for put X in Y and for Meta-World's own tasks.

Registered as ``ptr_robot/Kitchen-v0`` (``import ptr_robot.sim``)::

    env = gymnasium.make("ptr_robot/Kitchen-v0", task="put block on plate", kitchen="A")
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Literal

import gymnasium
import numpy as np
from gymnasium.spaces import Box, Dict

from ptr_fast.types import ActionSpec, CameraSpec, StateSpec
from ptr_robot.sim.kitchens import find_kitchen, nearest
from ptr_robot.sim.rendering import SceneRenderer
from ptr_robot.sim.tasks import PutTask, StockTask, find_task
from ptr_robot.sim.worlds import PutWorld, StartRange, StockWorld, make_world

__all__ = [
    "CAMERAS",
    "CAMERA_NAME",
    "FULL_STATE_SPEC",
    "STATE_SPEC",
    "KitchenEnv",
    "Observe",
    "action_spec",
    "camera_spec",
    "check_cameras",
    "check_observable",
    "make_environment",
    "state_spec",
]

CAMERA_NAME = "image_0"
CAMERAS = {
    # name: what it sees, as a camera of the simulated arm; None for the kitchen's own
    CAMERA_NAME: None,
    "front": None,
    "wrist": "gripperPOV",
}
"""``image_0`` and ``front`` are the same view of the table; ``wrist`` looks along the gripper and moves with it."""
Observe = Literal["frames", "state"]
STATE_SPEC = StateSpec(names=("hand_x", "hand_y", "hand_z", "gripper_opening"), units=("m", "m", "m", "0.1 m"))
FULL_STATE_SPEC = StateSpec(
    names=(*STATE_SPEC.names, *(f"{what}_{axis}" for what in ("object", "container") for axis in "xyz")),
    units=("0.1 m",) * 10,
)
"""State of a kitchen without frames: the centre of the object and the foot of the container are known, too.

Its numbers are tenths of a metre: nets that learn from them alone tell a centimetre from them far sooner than from
metres, which differ by a few hundredths between the places where something has to be done.
"""


def action_spec(action_repeat: int = 4) -> ActionSpec:
    """Names, units and bounds of the environment's actions.

    The bounds are twice what the arm does, as Bridge's are: full speed is 0.5 after scaling. At 0.99 the actor's tanh
    would be flat, and a gripper that has chosen wrongly could hardly change its mind.
    """
    unit = f"{action_repeat} cm"
    return ActionSpec(
        names=("dx", "dy", "dz", "gripper"),
        units=(unit, unit, unit, "-1 opens, +1 closes"),
        low=(-2.0,) * 4,
        high=(2.0,) * 4,
        bounds_source="toy kitchens",
    )


def camera_spec(image_size: int, name: str = CAMERA_NAME) -> CameraSpec:
    """Camera of a store of raw frames from the environment; frames are drawn at their size, not resized."""
    return CameraSpec(
        name=name,
        height=image_size,
        width=image_size,
        encoding="raw",
        source_height=image_size,
        source_width=image_size,
    )


OPTION_RANGES = {
    "image_size": (16, 512),
    "render_size": (16, 1024),
    "action_repeat": (1, 40),
    "max_steps": (1, 100_000),
    "hold_steps": (0, 1000),
    "distractors": (0, 5),
}


def check_options(**options: int) -> None:
    """Refuses numbers that no environment is made with.

    Raises:
        ValueError: one lies outside its range.
    """
    for name, value in options.items():
        low, high = OPTION_RANGES[name]
        if not low <= value <= high:
            raise ValueError(f"{name} must lie in {low}..{high}, got {value}")


def state_spec(observe: Observe) -> StateSpec:
    """Names and units of the environment's state."""
    return FULL_STATE_SPEC if observe == "state" else STATE_SPEC


def check_observable(observe: Observe, task: PutTask | StockTask) -> None:
    """Refuses what a task does not show.

    Raises:
        ValueError: not ``frames`` or ``state``, or a state-only kitchen of one of Meta-World's own tasks.
    """
    if observe not in ("frames", "state"):
        raise ValueError(f"observe must be 'frames' or 'state', got {observe!r}")
    if observe == "state" and not isinstance(task, PutTask):
        raise ValueError(
            f"observe state is for tasks 'put <object> in|on <container>': {task.instruction!r} has no object and "
            "container whose positions could be told; observe frames"
        )


def check_cameras(names: Sequence[str]) -> tuple[str, ...]:
    """The names of cameras of the toy kitchens, as they were given.

    Raises:
        ValueError: none, an unknown one, or one twice.
    """
    for name in names:
        if name not in CAMERAS:
            raise ValueError(f"cameras: unknown camera {name!r}{nearest(name, list(CAMERAS))}; known: {list(CAMERAS)}")
    if not names or len(set(names)) < len(names):
        raise ValueError(f"cameras: expected one or several different names of {list(CAMERAS)}, got {list(names)}")
    return tuple(names)


class KitchenEnv(gymnasium.Env[dict[str, np.ndarray], np.ndarray]):
    """A robot arm with a gripper at a kitchen table.

    Observation: ``image`` uint8 ``[H, W, 3]`` RGB of the first camera, the same of each further camera under its name,
    and ``state`` float32 ``[4]`` (:data:`STATE_SPEC`). With ``observe="state"`` nothing is drawn and no OpenGL is
    needed: there is the ``state`` float32 ``[10]`` alone (:data:`FULL_STATE_SPEC`).
    Action: float32 ``[4]`` in [-1, 1]: hand displacement x, y, z (1 is ``action_repeat`` cm) and gripper (-1 opens, +1
    closes). Values outside are clipped.
    Reward: 1 in a state where the task is done, else 0. ``info["success"]`` says the same.
    An episode terminates ``hold_steps`` decisions after the task was done, if it stayed done, and is truncated after
    ``max_steps`` decisions.

    Args:
        task: instruction, e.g. ``put block on plate`` or ``open door``; see :mod:`ptr_robot.sim.tasks`.
        kitchen: ``A`` to ``H``.
        image_size: height and width of the images, pixels, 16 to 512.
        action_repeat: simulation steps of 12.5 ms per decision.
        max_steps: decisions per episode.
        start: ``easy`` or ``wide`` range of the starting positions (put tasks).
        distractors: other objects on the table, 0 to 5 (put tasks).
        hold_steps: decisions after the first state of success.
        cameras: names out of :data:`CAMERAS`; those of ``frames``.
        observe: ``frames`` or ``state``.
        render_mode: ``rgb_array``: :meth:`render` gives a frame of ``render_size``.
        render_size: pixels.

    Raises:
        ValueError: an unknown task or kitchen, or a number out of range.
        RuntimeError: no OpenGL context can be made.
    """

    metadata = {"render_modes": ["rgb_array"], "render_fps": 20}  # noqa: RUF012

    def __init__(
        self,
        task: str = "put block on plate",
        kitchen: str = "A",
        *,
        image_size: int = 64,
        action_repeat: int = 4,
        max_steps: int = 60,
        start: StartRange = "easy",
        distractors: int = 0,
        hold_steps: int = 3,
        cameras: Sequence[str] = (CAMERA_NAME,),
        observe: Observe = "frames",
        render_mode: str | None = None,
        render_size: int = 256,
    ) -> None:
        check_options(
            image_size=image_size,
            render_size=render_size,
            action_repeat=action_repeat,
            max_steps=max_steps,
            hold_steps=hold_steps,
            distractors=distractors,
        )
        if render_mode not in (None, *self.metadata["render_modes"]):
            raise ValueError(f"render_mode must be None or 'rgb_array', got {render_mode!r}")
        self.task, self.kitchen = find_task(task), find_kitchen(kitchen)
        check_observable(observe, self.task)
        self.observe, self.cameras = observe, check_cameras(cameras) if observe == "frames" else ()
        self.image_size, self.render_size, self.render_mode = image_size, render_size, render_mode
        self.action_repeat, self.max_steps, self.hold_steps = action_repeat, max_steps, hold_steps
        self.world: PutWorld | StockWorld = make_world(
            self.task, self.kitchen, start=start, num_distractors=distractors
        )
        self._renderers: dict[tuple[int, str], SceneRenderer] = {}
        self.metadata = {**self.metadata, "render_fps": round(self.control_hz)}
        is_opening = np.array([name == "gripper_opening" for name in self.state_spec.names])
        reach = np.where(np.array(self.state_spec.units) == "m", 1.5, 15.0)
        low, high = (
            np.where(is_opening, 0.0, -reach).astype(np.float32),
            np.where(is_opening, 1.0, reach).astype(np.float32),
        )
        image = Box(0, 255, (image_size, image_size, 3), np.uint8)
        images = {"image" if index == 0 else name: image for index, name in enumerate(self.cameras)}
        self.observation_space: Any = Dict({**images, "state": Box(low, high, dtype=np.float32)})
        self.action_space = Box(-1.0, 1.0, (4,), np.float32)
        self._num_steps = self._num_held = 0

    @property
    def control_hz(self) -> float:
        """Decisions per simulated second."""
        return self.world.STEP_HZ / self.action_repeat

    @property
    def state_spec(self) -> StateSpec:
        return state_spec(self.observe)

    @property
    def action_spec(self) -> ActionSpec:
        return action_spec(self.action_repeat)

    @property
    def camera_spec(self) -> CameraSpec:
        return camera_spec(self.image_size, self.cameras[0])

    def images(self, observation: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        """The images of an observation by the names of their cameras, in their order."""
        return {name: observation["image" if index == 0 else name] for index, name in enumerate(self.cameras)}

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
        """A new start, drawn from ``seed`` (or from the running generator)."""
        super().reset(seed=seed)
        self.world.begin(self.np_random)
        self._num_steps = self._num_held = 0
        return self._observe(), {"success": False}

    def step(self, action: np.ndarray) -> tuple[dict[str, np.ndarray], float, bool, bool, dict[str, Any]]:
        """One decision; ValueError for a wrong shape or a value that is not finite."""
        command = np.asarray(action, dtype=np.float64)
        if command.shape != (4,) or not np.isfinite(command).all():
            raise ValueError(f"action must be 4 finite numbers (dx, dy, dz, gripper), got {action!r}")
        self.world.advance(np.clip(command, -1.0, 1.0), self.action_repeat)
        self._num_steps += 1
        success = self.world.succeeded()
        terminated = success and self._num_held >= self.hold_steps
        self._num_held = self._num_held + 1 if success else 0
        truncated = not terminated and self._num_steps >= self.max_steps
        return self._observe(), float(success), terminated, truncated, {"success": success}

    def restart_clock(self) -> None:
        """Counts decisions, and those since success, from here."""
        self._num_steps = self._num_held = 0

    def render(self) -> np.ndarray | None:
        """uint8 ``[render_size, render_size, 3]`` of the present state in mode ``rgb_array``, else None."""
        return self.picture(self.render_size) if self.render_mode == "rgb_array" else None

    def picture(self, size: int, camera: str = CAMERA_NAME) -> np.ndarray:
        """uint8 ``[size, size, 3]`` RGB of the present state, from the kitchen's camera or another one."""
        key = (size, CAMERAS[camera] or "")
        if key not in self._renderers:
            self._renderers[key] = SceneRenderer(self.world.model, key[1] or self.world.camera, size, size)
        return self._renderers[key].frame(self.world.data)

    def close(self) -> None:
        for renderer in self._renderers.values():
            renderer.close()
        self._renderers.clear()

    def _observe(self) -> dict[str, np.ndarray]:
        pictures = [self.picture(self.image_size, name) for name in self.cameras]
        images = {"image" if index == 0 else self.cameras[index]: each for index, each in enumerate(pictures)}
        return {**images, "state": self._state()}

    def _state(self) -> np.ndarray:
        if self.observe == "frames":
            return self.world.state()
        assert isinstance(self.world, PutWorld)
        hand, opening = np.split(self.world.state(), [3])
        places = 10.0 * np.concatenate([self.world.item_position(), self.world.container_position()])
        return np.concatenate([10.0 * hand, opening, places]).astype(np.float32)


def make_environment(task: str, kitchen: str, **options: Any) -> KitchenEnv:
    """:class:`KitchenEnv` of a task in a kitchen."""
    return KitchenEnv(task, kitchen, **options)
