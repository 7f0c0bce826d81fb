"""The simulated worlds behind the environment: put X in Y, and Meta-World's own tasks, both on Meta-World's Sawyer arm.

Importing this module imports mujoco; :mod:`ptr_robot.sim.gl` chooses the OpenGL back end before that.
"""

from __future__ import annotations

import warnings
from abc import abstractmethod
from functools import cache
from typing import Any, Literal

from ptr_robot.sim.gl import choose_gl

choose_gl()

import mujoco  # noqa: E402
import numpy as np  # noqa: E402
from metaworld.asset_path_utils import full_V3_path_for  # noqa: E402
from metaworld.env_dict import ENV_CLS_MAP  # noqa: E402
from metaworld.policies import ENV_POLICY_MAP  # noqa: E402
from metaworld.sawyer_xyz_env import SawyerXYZEnv  # noqa: E402

from ptr_robot.sim.kitchens import STOCK_CAMERA, TABLE_CAMERA, Camera, Kitchen, furnish  # noqa: E402
from ptr_robot.sim.objects import CONTAINERS, OBJECTS, add_container, add_object  # noqa: E402
from ptr_robot.sim.tasks import PutTask, StockTask  # noqa: E402

__all__ = ["PutWorld", "StartRange", "StockWorld", "World", "make_world"]

StartRange = Literal["easy", "wide", "left", "far"]


class World(SawyerXYZEnv):
    """What the environment and the experts need of a simulated scene.

    A command is Meta-World's: (dx, dy, dz) in [-1, 1], one unit = 1 cm per simulation step at 80 Hz, and the gripper
    in [-1, 1], -1 opens and +1 closes.
    """

    STEP_HZ = 80.0
    kitchen: Kitchen
    camera: Camera

    def state(self) -> np.ndarray:
        """float32 ``[4]``: hand x, y, z (metres) and gripper opening (1 is 10 cm)."""
        opening = np.linalg.norm(self.data.body("rightclaw").xpos - self.data.body("leftclaw").xpos) / 0.1
        return np.asarray([*self.get_endeff_pos(), min(opening, 1.0)], dtype=np.float32)

    @abstractmethod
    def begin(self, rng: np.random.Generator) -> None:
        """Puts everything into a start that depends on ``rng`` alone, not on what happened before."""

    @abstractmethod
    def advance(self, command: np.ndarray, num_steps: int) -> None:
        """Holds one command for ``num_steps`` simulation steps."""

    @abstractmethod
    def succeeded(self) -> bool:
        """Whether the task is done at this moment."""


class PutWorld(World):
    """An object on the table, a container, and perhaps other objects, on Meta-World's bin-picking scene without bins.

    Args:
        task: which object and which container.
        kitchen: look of the scene.
        start: ``easy``: object within 15 x 14 cm at the left, container within 8 x 12 cm at the right; ``wide``: both
            anywhere within 40 x 24 cm; ``left``: as wide, but the object in its left third; ``far``: as easy, but the
            hand begins up to 30 cm aside and 20 cm higher.
        num_distractors: other objects on the table, 0 to 5; which ones is fixed by task and kitchen.
    """

    HAND_START = np.array([0.0, 0.6, 0.2])
    RANGES: dict[str, tuple[np.ndarray, np.ndarray]] = {  # noqa: RUF012
        # object x, y; container x, y
        "easy": (np.array([-0.15, 0.60, 0.10, 0.62]), np.array([0.0, 0.74, 0.18, 0.74])),
        "wide": (np.array([-0.20, 0.54, -0.20, 0.54]), np.array([0.20, 0.78, 0.20, 0.78])),
        "left": (np.array([-0.20, 0.54, -0.20, 0.54]), np.array([-0.0667, 0.78, 0.20, 0.78])),
        "far": (np.array([-0.15, 0.60, 0.10, 0.62]), np.array([0.0, 0.74, 0.18, 0.74])),
    }
    CLEARANCE = 0.045  # metres between container and object at the start

    def __init__(self, task: PutTask, kitchen: Kitchen, start: StartRange = "easy", num_distractors: int = 0) -> None:
        if start not in self.RANGES:
            raise ValueError(f"start range must be one of {list(self.RANGES)}, got {start!r}")
        if not 0 <= num_distractors <= 5:
            raise ValueError(f"distractors must lie in 0..5, got {num_distractors}")
        self.item, self.container = OBJECTS[task.item], CONTAINERS[task.container]
        others = [name for name in OBJECTS if name != task.item]
        key = sum(map(ord, task.instruction + kitchen.name))
        self.distractors = [OBJECTS[others[(key + 2 * index) % len(others)]] for index in range(num_distractors)]
        self.kitchen, self.start, self.camera = kitchen, start, TABLE_CAMERA.moved(kitchen.camera)
        super().__init__(hand_low=(-0.5, 0.40, 0.03), hand_high=(0.5, 1.0, 0.5))
        self.hand_init_pos = self.HAND_START
        self._target_pos = np.zeros(3)
        model = self.model
        self._item_qpos, self._item_qvel = _free_joint(model, "item")
        self._finger_qvel = [model.joint(name).dofadr.item() for name in ("r_close", "l_close")]
        self._pads = (model.geom("leftpad_geom").id, model.geom("rightpad_geom").id)
        self._is_item = np.array([model.geom(i).name.startswith("item_touch") for i in range(model.ngeom)])
        self._mocap = model.body("mocap").mocapid.item()
        mujoco.mj_resetData(model, self.data)
        self._park()
        self._reset_hand()
        self._rest = (self.data.qpos.copy(), self.data.mocap_pos.copy(), self.data.mocap_quat.copy())

    # What Meta-World asks of a scene.

    @property
    def model_name(self) -> str:
        return full_V3_path_for("sawyer_xyz/sawyer_bin_picking.xml")

    def _initialize_simulation(self) -> tuple[mujoco.MjModel, mujoco.MjData]:
        spec = mujoco.MjSpec.from_file(self.fullpath)
        for name in ("obj", "bin_start", "bin_goal"):
            spec.detach_body(spec.body(name))
        furnish(spec, self.kitchen)
        add_object(spec, self.item, "item")
        add_container(spec, self.container, "container")
        for index, other in enumerate(self.distractors):
            add_object(spec, other, f"distractor{index}")
        model = spec.compile()
        return model, mujoco.MjData(model)

    def _get_pos_objects(self) -> np.ndarray:
        return self.data.body("item").xpos

    def _get_quat_objects(self) -> np.ndarray:
        return self.data.body("item").xquat

    # What the environment asks of a world.

    def begin(self, rng: np.random.Generator) -> None:
        low, high = self.RANGES[self.start]
        spread = 0.03 if self.start == "easy" else 0.08
        home = self.HAND_START
        if self.start == "far":
            home, spread = home + [rng.choice([-0.22, 0.22]), -0.08, 0.16], 0.08
        reach = max(self.item.half_size[:2])
        for _ in range(1000):
            places = rng.uniform(low, high)
            if np.linalg.norm(places[:2] - places[2:]) > self.container.radius + reach + self.CLEARANCE:
                break
        yaw = np.deg2rad(rng.uniform(-self.item.yaw_spread, self.item.yaw_spread))
        hand = home + rng.uniform(-spread, spread, size=3) * [1.0, 1.0, 0.5]
        mujoco.mj_resetData(self.model, self.data)
        self.data.qpos[:], self.data.mocap_pos[:], self.data.mocap_quat[:] = self._rest
        self._park()
        self.model.body("container").pos = [*places[2:], 0.0]
        self._place("item", places[:2], yaw, self.item.half_size[2])
        taken = [(places[:2], reach), (places[2:], self.container.radius)]
        for index, other in enumerate(self.distractors):
            spot = self._free_spot(rng, taken, max(other.half_size[:2]))
            if spot is not None:
                self._place(f"distractor{index}", spot, rng.uniform(0.0, np.pi), other.half_size[2])
        way = np.linspace(self.HAND_START, hand, 8)
        for point in [*way, *[hand] * (24 if self.start == "far" else 8)]:
            self.data.mocap_pos[self._mocap] = point
            self._simulate(-1.0)

    def advance(self, command: np.ndarray, num_steps: int) -> None:
        for _ in range(num_steps):
            self.set_xyz_action(command[:3])
            self._simulate(float(command[3]))

    def succeeded(self) -> bool:
        """The object lies in (or on) the container, at rest, and no finger touches it."""
        return self.is_placed() and self.num_pads_touching() == 0 and self.item_speed() < 0.05

    # What the experts ask.

    def item_position(self) -> np.ndarray:
        """Centre of the object, metres."""
        return self.data.body("item").xpos.copy()

    def container_position(self) -> np.ndarray:
        """Foot of the container, metres."""
        return self.data.body("container").xpos.copy()

    def fingertips(self) -> np.ndarray:
        """The point between the fingertips, metres."""
        return self.tcp_center

    def item_speed(self) -> float:
        """Metres per second."""
        return float(np.linalg.norm(self.data.qvel[self._item_qvel : self._item_qvel + 3]))

    def num_pads_touching(self) -> int:
        """How many of the two finger pads touch the object."""
        one, other = self.data.contact.geom1, self.data.contact.geom2  # int32 [contacts]
        touching = np.concatenate([one[self._is_item[other]], other[self._is_item[one]]])
        return sum(bool((touching == pad).any()) for pad in self._pads)

    def finger_speed(self) -> float:
        """Of the faster finger, metres per second."""
        return float(np.abs(self.data.qvel[self._finger_qvel]).max())

    def is_placed(self) -> bool:
        """The object's centre is inside the container's circle and not held above it."""
        item, container = self.item_position(), self.container_position()
        inside = np.linalg.norm(item[:2] - container[:2]) < self.container.radius
        highest = max(self.container.floor + 1.6 * max(self.item.half_size), self.container.rim)
        return bool(inside and item[2] < highest)

    # Details.

    def _simulate(self, gripper: float) -> None:
        self.data.ctrl[:] = (gripper, -gripper)
        mujoco.mj_step(self.model, self.data, nstep=self.frame_skip)

    def _park(self) -> None:
        for index in range(len(self.distractors)):
            self._place(f"distractor{index}", np.array([0.45 + 0.1 * (index % 2), 0.3 + 0.12 * index]), 0.0, 0.03)
        self._place("item", np.array([-0.4, 0.3]), 0.0, self.item.half_size[2])

    def _place(self, name: str, spot: np.ndarray, yaw: float, height: float) -> None:
        start, _ = _free_joint(self.model, name)
        self.data.qpos[start : start + 7] = [*spot, height + 0.001, np.cos(yaw / 2), 0.0, 0.0, np.sin(yaw / 2)]

    def _free_spot(
        self, rng: np.random.Generator, taken: list[tuple[np.ndarray, float]], reach: float
    ) -> np.ndarray | None:
        for _ in range(200):
            spot = rng.uniform([-0.24, 0.5], [0.24, 0.82])
            if all(np.linalg.norm(spot - other) > reach + radius + 0.03 for other, radius in taken):
                taken.append((spot, reach))
                return spot
        return None


class StockWorld(World):
    """One of Meta-World's own scenes and tasks, with its shipped scripted policy; made by :func:`make_world`."""

    _success = False
    _scripted: Any

    def _initialize_simulation(self) -> tuple[mujoco.MjModel, mujoco.MjData]:
        spec = mujoco.MjSpec.from_file(self.fullpath)
        furnish(spec, self.kitchen)
        model = spec.compile()
        return model, mujoco.MjData(model)

    def begin(self, rng: np.random.Generator) -> None:
        self.np_random = rng
        self.max_path_length = np.iinfo(np.int64).max
        self.seeded_rand_vec, self._set_task_called = True, True
        self.curr_path_length = 0
        # Twice with one draw: a reset measures bodies where the previous episode left them, before it moves them.
        for self._freeze_rand_vec in (False, True):
            mujoco.mj_resetData(self.model, self.data)
            self.reset_model()
            mujoco.mj_forward(self.model, self.data)
        observation = self._get_obs()
        self._prev_obs = observation[:18].copy()
        observation[18:36] = self._prev_obs
        self.stock_observation = observation.astype(np.float64)
        self._success = False

    def advance(self, command: np.ndarray, num_steps: int) -> None:
        for _ in range(num_steps):
            self.stock_observation, _, _, _, info = self.step(np.asarray(command, dtype=np.float32))
            self._success = bool(info["success"])

    def succeeded(self) -> bool:
        return self._success

    def scripted_command(self) -> np.ndarray:
        """What Meta-World's own policy for this task does now; float64 ``[4]``."""
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message="Constant")  # its commands are clipped, and that is meant
            return np.asarray(self._scripted.get_action(self.stock_observation.copy()), dtype=np.float64)


@cache
def _stock_class(name: str) -> type[StockWorld]:
    """Meta-World's environment class with our scene loading and interface in front of it."""
    if name not in ENV_CLS_MAP:
        raise ValueError(f"unknown Meta-World task {name!r}")
    return type(f"StockWorld[{name}]", (StockWorld, ENV_CLS_MAP[name]), {})


def make_world(
    task: PutTask | StockTask, kitchen: Kitchen, *, start: StartRange = "easy", num_distractors: int = 0
) -> PutWorld | StockWorld:
    """The world of a task in a kitchen; start range and distractors concern put X in Y alone."""
    if isinstance(task, PutTask):
        return PutWorld(task, kitchen, start, num_distractors)
    cls = _stock_class(task.name)
    world = cls.__new__(cls)
    world.kitchen, world.camera = kitchen, STOCK_CAMERA.moved(kitchen.camera)
    world._partially_observable = False
    world.__init__()  # type: ignore[misc]
    world._partially_observable = False
    scripted: Any = ENV_POLICY_MAP[task.name]
    world._scripted = scripted()
    return world


def _free_joint(model: mujoco.MjModel, name: str) -> tuple[int, int]:
    joint: Any = model.joint(name)
    return joint.qposadr.item(), joint.dofadr.item()
