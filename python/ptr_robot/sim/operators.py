"""Operators: fallible people at a teleoperation device, as a model of ours.

Nobody has measured these numbers on people. They follow what is known of such data in kind: robomimic's operators of
three skills (arXiv 2108.03298), pauses, several ways around, grasps that miss and are tried again, and attempts that
fail. An operator wants what the scripted expert would do next, and does it slowly, unsteadily and with mistakes:

- speed: no command is larger than the operator's own, in each phase a little faster or slower;
- tremor: noise that drifts, n <- 0.7 n + tremor * N(0, 1) on x, y and z;
- pauses: where a phase ends, and now and then within one;
- a first aim that misses the object or the container by a little, corrected on arrival;
- a way around: to the left, to the right or over the straight line;
- a missed grasp: closes beside the object, lifts, notices, opens and comes back;
- a fumble: opens while carrying, and picks up again where the object fell;
- a late gripper: opens and closes some decisions after it was wanted;
- giving up: the object is put down beside the container, or dropped and left;
- stopping: one to three decisions after the success.

The tasks of Meta-World's own have no object to grasp and no container: there the operator has speed, tremor, pauses, a
way around at the start, and the late gripper.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Literal

import numpy as np

from ptr_robot.sim.experts import CLOSE, OPEN, PutExpert, make_expert, toward
from ptr_robot.sim.worlds import PutWorld, StockWorld

__all__ = ["MIXES", "SKILLS", "Operator", "Skill", "SkillName", "draw_skill"]

SkillName = Literal["good", "average", "poor"]


@dataclass(frozen=True, kw_only=True)
class Skill:
    """How well an operator does; probabilities are per attempt unless said otherwise.

    Attributes:
        speed: range of the largest command, as a share of full speed.
        tremor: standard deviation of what each decision adds to the drifting noise, commands.
        pause: probability at the end of each phase. pause_anywhere: per decision. Both last 2 to 7 decisions.
        aim: standard deviation of the first aim in x and y, metres.
        miss: probability of a missed grasp at each approach, at most twice.
        fumble: probability of opening while carrying, once.
        detour: probability of a way around, to the object and to the container.
        lateness: the gripper is late by 0 to this many decisions.
        gives_up: probability of putting the object down elsewhere or dropping it, and leaving.
    """

    speed: tuple[float, float]
    tremor: float
    pause: float
    pause_anywhere: float
    aim: float
    miss: float
    fumble: float
    detour: float
    lateness: int
    gives_up: float


SKILLS: dict[SkillName, Skill] = {
    "good": Skill(
        speed=(0.4, 0.9), tremor=0.03, pause=0.3, pause_anywhere=0.04, aim=0.005, miss=0.05, fumble=0.02, detour=0.3,
        lateness=2, gives_up=0.02,
    ),
    "average": Skill(
        speed=(0.3, 0.7), tremor=0.06, pause=0.5, pause_anywhere=0.06, aim=0.012, miss=0.2, fumble=0.08, detour=0.5,
        lateness=3, gives_up=0.1,
    ),
    "poor": Skill(
        speed=(0.25, 0.6), tremor=0.08, pause=0.7, pause_anywhere=0.05, aim=0.02, miss=0.4, fumble=0.15, detour=0.7,
        lateness=4, gives_up=0.25,
    ),
}  # fmt: skip
MIXES: dict[str, dict[SkillName, float]] = {
    "good": {"good": 1.0},
    "mixed": {"good": 0.4, "average": 0.4, "poor": 0.2},
    "poor": {"average": 0.4, "poor": 0.6},
}
"""Three strengths of the model: who operates how often."""

DETOUR = 0.06  # metres aside
TREMOR_KEPT = 0.7
PHASE_SPEED = (0.7, 1.3)


def draw_skill(mix: str, rng: np.random.Generator) -> SkillName:
    """The skill of one episode's operator."""
    names = list(MIXES[mix])
    return names[rng.choice(len(names), p=list(MIXES[mix].values()))]


Step = tuple[np.ndarray, float]
"""A command that is wanted: displacement ``[3]`` in commands, and the gripper."""


class Operator:
    """One attempt of one operator.

    Args:
        world: after the environment was reset.
        skill: how well it goes.
        rng: of this attempt.
    """

    def __init__(self, world: PutWorld | StockWorld, skill: Skill, rng: np.random.Generator) -> None:
        self.skill, self.rng, self.world = skill, rng, world
        self.speed = rng.uniform(*skill.speed)
        self.phase_speed, self.num_pause, self.phase = 1.0, 0, ""
        self.tremor = np.zeros(3)
        self.wanted_grippers = deque([OPEN] * (1 + int(rng.integers(0, skill.lateness + 1))))
        self.num_since_success, self.num_until_stop = 0, int(rng.integers(0, 3))
        self.plan = _Plan(world, skill, rng) if isinstance(world, PutWorld) else _StockPlan(world, skill, rng)

    def command(self) -> tuple[np.ndarray, bool]:
        """What the arm is told, float64 ``[4]`` in [-1, 1], and whether the operator has finished after it."""
        rng, skill = self.rng, self.skill
        wanted, gripper = self.plan.step()
        if self.plan.phase != self.phase:
            self.phase, self.phase_speed = self.plan.phase, rng.uniform(*PHASE_SPEED)
            self._pause_with(skill.pause)
        elif self.num_pause == 0:
            self._pause_with(skill.pause_anywhere)
        steadiness = 1.0
        if self.num_pause > 0:
            self.num_pause -= 1
            wanted, steadiness = np.zeros(3), 0.3
        largest = min(1.0, self.speed * self.phase_speed)
        wanted = wanted * min(1.0, largest / max(1e-9, float(np.abs(wanted).max())))
        self.tremor = TREMOR_KEPT * self.tremor + skill.tremor * rng.normal(size=3)
        self.wanted_grippers.append(gripper)
        told = np.append(wanted + steadiness * self.tremor, self.wanted_grippers.popleft())
        succeeded = self.world.succeeded()
        self.num_since_success = self.num_since_success + 1 if succeeded else 0
        is_last = self.plan.has_left or self.num_since_success > self.num_until_stop
        return np.clip(told, -1.0, 1.0), is_last

    def _pause_with(self, probability: float) -> None:
        if self.rng.random() < probability:
            self.num_pause = int(self.rng.integers(2, 8))


class _StockPlan:
    """Meta-World's scripted policy, perhaps after a way around at the start."""

    def __init__(self, world: StockWorld, skill: Skill, rng: np.random.Generator) -> None:
        self.world, self.expert, self.phase, self.has_left = world, make_expert(world), "", False
        self.waypoint: np.ndarray | None = None
        if rng.random() < skill.detour:
            aside = (np.array([1.0, 0.0, 0.0]), np.array([-1.0, 0.0, 0.0]), np.array([0.0, 0.0, 1.0]))
            self.waypoint = world.tcp_center + DETOUR * aside[rng.integers(3)]
        self.num_left = 10

    def step(self) -> Step:
        command = self.expert.act()
        if self.waypoint is not None and self.num_left > 0:
            self.num_left -= 1
            error = self.waypoint - self.world.tcp_center
            if float(np.linalg.norm(error)) > 0.02:
                self.phase = "aside"
                return toward(error, command[3])[:3], command[3]
        self.waypoint, self.phase = None, "closed" if command[3] > 0 else "open"
        return command[:3], command[3]


class _Plan:
    """What an operator of a put task wants next: the expert's command, with mistakes of the operator's own before it.

    Attributes:
        phase: where the attempt is; a change of it is where people pause.
        has_left: the operator gave up and has nothing more to show.
    """

    def __init__(self, world: PutWorld, skill: Skill, rng: np.random.Generator) -> None:
        self.world, self.skill, self.rng = world, skill, rng
        self.phase, self.has_left, self.expert = "reach", False, PutExpert(world)
        self.mistake: Iterator[Step] | None = self._way_to(self._over_item, OPEN)
        self.num_misses = int(rng.random() < skill.miss) * (1 + int(rng.random() < skill.miss))
        self.fumbles_at = rng.uniform(0.3, 0.9) if rng.random() < skill.fumble else None
        self.drops_at: float | None = None
        self.is_on_the_way = False
        if rng.random() < skill.gives_up:
            if rng.random() < 0.5:
                self.drops_at = rng.uniform(0.3, 0.9)
            else:
                self.expert = PutExpert(world, target_offset=self._elsewhere())
        self.num_after = 0
        self.carry_length = 1.0

    def step(self) -> Step:
        """Displacement ``[3]`` at full speed and gripper."""
        if self.mistake is not None:
            step = next(self.mistake, None)
            if step is not None:
                return step
            self.mistake = None
        command = self.expert.act()
        self._notice(command[3])
        if self.mistake is not None:
            return self.step()
        return command[:3], command[3]

    def _notice(self, gripper: float) -> None:
        """Names the phase, and begins the mistakes that belong to it."""
        world = self.world
        item, tips = world.item_position(), world.fingertips()
        is_held = world.num_pads_touching() == 2
        is_lifted = is_held and item[2] > world.item.half_size[2] + 0.02
        if self.expert.is_down():
            self.phase = "leave"
            self.num_after += 1
            if self.expert.offset is not None and self.num_after > 4:
                self.has_left = True
        elif is_lifted and gripper == OPEN:
            self.phase = "release"
        elif is_lifted:
            self.phase = "carry"
            if not self.is_on_the_way:
                self.is_on_the_way, self.carry_length = True, self._distance_to_go()
                self.mistake = self._way_to(self._over_target, CLOSE)
            elif self.drops_at is not None and self._distance_to_go() < self.drops_at * self.carry_length:
                self.phase, self.mistake = "drop", self._drop()
            elif self.fumbles_at is not None and self._distance_to_go() < self.fumbles_at * self.carry_length:
                self.phase, self.mistake, self.fumbles_at = "fumble", self._open_hand(4), None
        elif gripper == CLOSE:
            self.phase = "grasp"
        elif float(np.linalg.norm(tips[:2] - item[:2])) < 0.04:
            if self.num_misses > 0 and not is_held:
                self.num_misses -= 1
                self.phase, self.mistake = "miss", self._miss()
            else:
                self.phase = "lower"
        else:
            self.phase = "reach"

    # Where people go.

    def _over_item(self) -> np.ndarray:
        return self.world.item_position() + [0.0, 0.0, 0.07]

    def _over_target(self) -> np.ndarray:
        """Of the fingertips, with the object between them."""
        half = self.world.item.half_size[2]
        return self.expert.target() + [0.0, 0.0, max(self.world.container.rim, 0.03) + 0.035 + half]

    def _distance_to_go(self) -> float:
        return float(np.linalg.norm(self.world.item_position()[:2] - self.expert.target()[:2]))

    def _elsewhere(self) -> np.ndarray:
        """An offset from the container to a place on the table where the object is not yet, metres ``[2]``."""
        foot, item = self.world.container_position(), self.world.item_position()
        for _ in range(1000):
            angle, distance = self.rng.uniform(0.0, 2 * np.pi), self.rng.uniform(0.12, 0.17)
            offset = distance * np.array([np.cos(angle), np.sin(angle)])
            x, y = foot[:2] + offset
            if abs(x) < 0.22 and 0.52 < y < 0.8 and np.hypot(x - item[0], y - item[1]) > 0.08:
                break
        return offset

    # Mistakes: each gives the steps of its own, one per decision.

    def _go(self, goal: Callable[[], np.ndarray], gripper: float, near: float, patience: int) -> Iterator[Step]:
        for _ in range(patience):
            error = goal() - self.world.fingertips()
            if float(np.linalg.norm(error)) < near:
                return
            yield toward(error, gripper)[:3], gripper

    def _way_to(self, goal: Callable[[], np.ndarray], gripper: float) -> Iterator[Step]:
        """Perhaps around, then to a first aim near the goal; ends where the object is lost on the way."""
        start, end = self.world.fingertips(), goal()
        along = end - start
        points = []
        if self.rng.random() < self.skill.detour:
            level = np.array([-along[1], along[0], 0.0]) / max(1e-6, float(np.linalg.norm(along[:2])))
            aside = (level, -level, np.array([0.0, 0.0, 1.0]))[self.rng.integers(3)]
            points.append(start + 0.5 * along + DETOUR * aside)
            if gripper == CLOSE:  # lift before moving aside
                points[-1][2] = max(points[-1][2], end[2])
        points.append(end + np.append(self.rng.normal(0.0, self.skill.aim, size=2), 0.0))
        if gripper == CLOSE:
            points.insert(0, np.append(start[:2], end[2]))
        for point in points:
            for step in self._go(lambda goal=point: goal, gripper, 0.02, 40):  # type: ignore[misc]
                if gripper == CLOSE and self.world.num_pads_touching() < 2:
                    return
                yield step

    def _miss(self) -> Iterator[Step]:
        """Closes beside the object, lifts, notices, opens; the expert then comes back to it."""
        reach = self.world.item.half_size[0] + self.rng.uniform(0.015, 0.03)
        offset = np.array([self.rng.choice([-1.0, 1.0]) * reach, self.rng.uniform(-0.01, 0.01), 0.0])
        beside = self.world.item_position() + offset
        low = beside + [0.0, 0.0, max(-0.008, 0.012 - self.world.item.half_size[2])]
        yield from self._go(lambda: low + [0.0, 0.0, 0.05], OPEN, 0.02, 12)
        yield from self._go(lambda: low, OPEN, 0.015, 12)
        yield from ((np.zeros(3), CLOSE) for _ in range(4))
        if self.world.num_pads_touching() == 2:
            return  # it caught the object after all
        yield from self._go(lambda: low + [0.0, 0.0, 0.05], CLOSE, 0.02, 6)
        yield from ((np.zeros(3), CLOSE) for _ in range(2))
        yield from self._open_hand(3)

    def _open_hand(self, num_steps: int) -> Iterator[Step]:
        yield from ((np.zeros(3), OPEN) for _ in range(num_steps))

    def _drop(self) -> Iterator[Step]:
        yield from self._open_hand(4)
        place = self.world.fingertips() + [0.0, 0.0, 0.08]
        yield from self._go(lambda: place, OPEN, 0.02, 8)
        self.has_left = True
        yield np.zeros(3), OPEN
