"""Who drives the arm while an episode is recorded: an expert, a noisy one, an operator, or one that fails.

The stored action is the executed one, as of a teleoperated arm: the state that follows is what it led to. One kind is
different:

- ``expert-clean`` stores the expert's own command, while the executed one differs by noise on x, y and z of standard
  deviation ``EXPERT_NOISE``. Labels without noise in states with noise are the best case for cloning, and give
  Q-learning actions that did not lead to the next state. Its episodes are those of ``expert``, with other labels.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal, Protocol, get_args

import numpy as np

from ptr_robot.sim.experts import CLOSE, OPEN, PutExpert, make_expert, toward
from ptr_robot.sim.fragments import Pick, Place, Play
from ptr_robot.sim.operators import SKILLS, Operator, draw_skill
from ptr_robot.sim.worlds import PutWorld, StockWorld

__all__ = ["EXPERT_NOISE", "FRAGMENTS", "KINDS", "OPERATORS", "Demonstrator", "Kind", "Move", "make_demonstrator"]

Kind = Literal[
    "expert",
    "expert-clean",
    "noisy",
    "failed",
    "shaky",
    "teleop",
    "teleop-good",
    "teleop-poor",
    "play",
    "pick",
    "place",
]
KINDS: tuple[Kind, ...] = get_args(Kind)
EXPERT_NOISE = 0.12
NOISY_NOISE = 0.11
SHAKY_NOISE, SHAKY_FLIP = 0.32, 0.06


@dataclass(frozen=True, kw_only=True)
class Move:
    """One decision.

    Attributes:
        executed: what the arm is told, float64 ``[4]`` in [-1, 1].
        stored: what the episode records, likewise.
        is_last: the demonstrator has nothing more to show.
    """

    executed: np.ndarray
    stored: np.ndarray
    is_last: bool = False


class Demonstrator(Protocol):
    """A source of moves for one episode.

    Attributes:
        who: a few words about this one in particular, or empty.
    """

    who: str

    def before(self) -> Iterator[np.ndarray]:
        """Commands that are executed before the recording begins."""
        ...

    def move(self) -> Move:
        """The move in the present state."""
        ...


def _executed(command: np.ndarray, noise: np.ndarray) -> np.ndarray:
    out = np.clip(command, -1.0, 1.0)
    out[:3] = np.clip(out[:3] + noise, -1.0, 1.0)
    return out


class _FromTheStart:
    """A demonstrator whose every decision is recorded, and about which there is nothing more to say."""

    who = ""

    def before(self) -> Iterator[np.ndarray]:
        return iter(())


class _Steady(_FromTheStart):
    """The expert on an imprecise arm."""

    def __init__(self, world: PutWorld | StockWorld, rng: np.random.Generator, stores_clean: bool) -> None:
        self.expert, self.rng, self.stores_clean = make_expert(world), rng, stores_clean

    def move(self) -> Move:
        command = self.expert.act()
        executed = _executed(command, EXPERT_NOISE * self.rng.normal(size=3))
        return Move(executed=executed, stored=command if self.stores_clean else executed)


class _Shaky(_FromTheStart):
    """The expert with so much white noise, and a gripper so unsure, that it often fails."""

    def __init__(self, world: PutWorld | StockWorld, rng: np.random.Generator) -> None:
        self.expert, self.rng = make_expert(world), rng

    def move(self) -> Move:
        executed = _executed(self.expert.act(), SHAKY_NOISE * self.rng.normal(size=3))
        if self.rng.random() < SHAKY_FLIP:
            executed[3] = -executed[3]
        return Move(executed=executed, stored=executed)


class _Noisy(_FromTheStart):
    """The expert with drifting noise and now and then a wrong move of a few decisions, which it then corrects."""

    def __init__(self, world: PutWorld | StockWorld, rng: np.random.Generator) -> None:
        self.expert, self.rng = make_expert(world), rng
        self.drift = np.zeros(3)
        self.slip, self.num_slip_steps = np.zeros(4), 0

    def move(self) -> Move:
        rng = self.rng
        self.drift = 0.5 * self.drift + 0.85 * NOISY_NOISE * rng.normal(size=3)
        command = self.expert.act()
        if self.num_slip_steps == 0 and rng.random() < 0.04:
            self.num_slip_steps = int(rng.integers(2, 5))
            gripper = rng.choice([OPEN, CLOSE]) if rng.random() < 0.3 else command[3]
            self.slip = np.append(rng.uniform(-0.8, 0.8, size=3), gripper)
        if self.num_slip_steps > 0:
            self.num_slip_steps -= 1
            command = self.slip
        executed = _executed(command, self.drift)
        return Move(executed=executed, stored=executed)


class _Wander(_FromTheStart):
    """Smooth random motion over the table."""

    def __init__(self, world: PutWorld | StockWorld, rng: np.random.Generator) -> None:
        self.world, self.rng = world, rng
        self.num_left = int(rng.integers(25, 40))
        self.goal, self.gripper, self.num_until_goal = np.zeros(3), OPEN, 0

    def move(self) -> Move:
        rng = self.rng
        if self.num_until_goal == 0:
            self.goal = rng.uniform([-0.22, 0.52, 0.03], [0.22, 0.8, 0.2])
            self.gripper = rng.choice([OPEN, CLOSE])
            self.num_until_goal = int(rng.integers(4, 9))
        self.num_until_goal -= 1
        self.num_left -= 1
        command = toward(0.4 * (self.goal - self.world.tcp_center), self.gripper)
        executed = _executed(command, NOISY_NOISE * rng.normal(size=3))
        return Move(executed=executed, stored=executed, is_last=self.num_left <= 0)


class _Misplace(_FromTheStart):
    """Puts the object neatly beside the container."""

    def __init__(self, world: PutWorld, rng: np.random.Generator) -> None:
        self.world, self.rng = world, rng
        foot = world.container_position()
        for _ in range(1000):
            angle, distance = rng.uniform(0.0, 2 * np.pi), rng.uniform(0.12, 0.17)
            offset = distance * np.array([np.cos(angle), np.sin(angle)])
            spot = foot[:2] + offset
            if abs(spot[0]) < 0.22 and 0.52 < spot[1] < 0.8:
                break
        self.expert = PutExpert(world, target_offset=offset)
        self.num_done = 0

    def move(self) -> Move:
        self.num_done += self.expert.is_down()
        executed = _executed(self.expert.act(), EXPERT_NOISE * self.rng.normal(size=3))
        return Move(executed=executed, stored=executed, is_last=self.num_done >= 5)


class _Drop(_FromTheStart):
    """Carries the object part of the way, lets go, and goes away."""

    def __init__(self, world: PutWorld, rng: np.random.Generator) -> None:
        self.world, self.rng, self.expert = world, rng, PutExpert(world)
        gap = float(np.linalg.norm(world.item_position()[:2] - world.container_position()[:2]))
        self.drop_distance: float = max(rng.uniform(0.35, 0.8) * gap, world.container.radius + 0.065)
        self.is_dropped, self.num_after = False, 0

    def move(self) -> Move:
        world = self.world
        item, foot = world.item_position(), world.container_position()
        lifted = item[2] > world.item.half_size[2] + 0.02
        if lifted and float(np.linalg.norm(item[:2] - foot[:2])) < self.drop_distance:
            self.is_dropped = True
        command = self.expert.act()
        if self.is_dropped:
            self.num_after += 1
            up = np.array([0.0, 0.0, 0.18 - world.fingertips()[2]])
            command = toward(0.5 * up if self.num_after > 2 else np.zeros(3), OPEN)
        executed = _executed(command, EXPERT_NOISE * self.rng.normal(size=3))
        return Move(executed=executed, stored=executed, is_last=self.num_after >= 8)


class _Miss(_FromTheStart):
    """Closes the fingers beside the object and acts out the rest with nothing in them."""

    def __init__(self, world: PutWorld, rng: np.random.Generator) -> None:
        self.world, self.rng = world, rng
        reach = max(world.item.half_size[:2])
        angle = rng.choice([0.0, np.pi]) + rng.uniform(-0.5, 0.5)
        beside = world.item_position() + (reach + rng.uniform(0.025, 0.04)) * np.array(
            [np.cos(angle), np.sin(angle), 0.0]
        )
        low, high = beside.copy(), world.container_position()
        low[2] = max(0.012, beside[2] - 0.008)
        high[2] = world.container.rim + 0.05
        hover = low + [0.0, 0.0, 0.1]
        self.plan = [(hover, OPEN, 15), (low, OPEN, 10), (low, CLOSE, 4), (hover, CLOSE, 6), (high, CLOSE, 15)]
        self.plan += [(high, OPEN, 3), (high + [0.0, 0.0, 0.08], OPEN, 4)]
        self.num_here = 0

    def move(self) -> Move:
        goal, gripper, patience = self.plan[0]
        error = goal - self.world.fingertips()
        self.num_here += 1
        waits = len(self.plan) == 2 or (gripper == CLOSE and np.allclose(goal, self.plan[1][0]))
        if self.num_here >= patience or (np.linalg.norm(error) < 0.02 and not waits and len(self.plan) > 1):
            self.num_here = 0
            if len(self.plan) > 1:
                self.plan.pop(0)
        executed = _executed(toward(error, gripper), EXPERT_NOISE * self.rng.normal(size=3))
        return Move(executed=executed, stored=executed, is_last=len(self.plan) == 1 and self.num_here >= patience - 1)


class _Teleoperated(_FromTheStart):
    """A fallible operator; see :mod:`ptr_robot.sim.operators`."""

    def __init__(self, world: PutWorld | StockWorld, mix: str, rng: np.random.Generator) -> None:
        self.who = f"{(skill := draw_skill(mix, rng))} operator"
        self.operator = Operator(world, SKILLS[skill], rng)

    def move(self) -> Move:
        executed, is_last = self.operator.command()
        return Move(executed=executed, stored=executed, is_last=is_last)


class _Fragmentary:
    """Play, or half of the task."""

    def __init__(self, fragment: Pick | Place | Play) -> None:
        self.fragment, self.who = fragment, fragment.who

    def before(self) -> Iterator[np.ndarray]:
        return self.fragment.before()

    def move(self) -> Move:
        executed, is_last = self.fragment.next_command()
        return Move(executed=executed, stored=executed, is_last=is_last)


FRAGMENTS: dict[str, type[Pick] | type[Place] | type[Play]] = {"pick": Pick, "place": Place, "play": Play}
OPERATORS: dict[str, str] = {"teleop": "mixed", "teleop-good": "good", "teleop-poor": "poor"}


def make_demonstrator(kind: Kind, world: PutWorld | StockWorld, rng: np.random.Generator) -> Demonstrator:
    """The demonstrator of one episode, after the environment was reset; ``rng`` is its own.

    A ``failed`` put episode is one of: misplaced (beside the container), dropped on the way, missed grasp, or random
    wandering; a failed episode of Meta-World's own tasks is random wandering.
    """
    if kind not in KINDS:
        raise ValueError(f"unknown kind of episode {kind!r}; known: {list(KINDS)}")
    if kind in ("expert", "expert-clean"):
        return _Steady(world, rng, stores_clean=kind == "expert-clean")
    if kind == "shaky":
        return _Shaky(world, rng)
    if kind in FRAGMENTS:
        if not isinstance(world, PutWorld):
            raise ValueError(f"episodes of kind {kind!r} are of put tasks alone")
        return _Fragmentary(FRAGMENTS[kind](world, rng))
    if kind == "noisy":
        return _Noisy(world, rng)
    if kind in OPERATORS:
        return _Teleoperated(world, OPERATORS[kind], rng)
    if not isinstance(world, PutWorld):
        return _Wander(world, rng)
    failures = (_Misplace, _Drop, _Miss, _Wander)
    return failures[rng.choice(4, p=[0.3, 0.25, 0.25, 0.2])](world, rng)
