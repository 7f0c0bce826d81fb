"""Episodes that are not one attempt at a put task: play, its first half (pick) and its second half (place).

From halves alone a policy must be stitched: no episode of ``pick`` shows where the object belongs, and none of
``place`` shows how to grasp it (COG, arXiv 2010.14500). Play is open-ended handling of the object, with plans that no
picture tells and smooth noise (as in OGBench, arXiv 2410.20092). The executed command is stored.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np

from ptr_robot.sim.experts import CLOSE, OPEN, PutExpert, toward
from ptr_robot.sim.worlds import PutWorld

__all__ = ["Pick", "Place", "Play"]

NOISE = 0.12
SMOOTH_NOISE, SMOOTHNESS = 0.1, 0.8
LOW, HIGH = np.array([-0.2, 0.54, 0.08]), np.array([0.2, 0.78, 0.2])  # metres: where the hand carries things

Steps = Iterator[np.ndarray]
"""Commands float64 ``[4]`` that are wanted, one per decision."""


class _Hand:
    """Simple skills of the hand: to a point, to the object, letting go."""

    def __init__(self, world: PutWorld, rng: np.random.Generator) -> None:
        self.world, self.rng, self.expert = world, rng, PutExpert(world)

    def holds(self) -> bool:
        world = self.world
        is_up = world.item_position()[2] > world.item.half_size[2] + 0.02
        return world.num_pads_touching() == 2 and bool(is_up)

    def pick_up(self, patience: int = 60) -> Steps:
        """Until the object is held above the table."""
        for _ in range(patience):
            if self.holds():
                return
            yield self.expert.act()

    def go(self, goal: np.ndarray, gripper: float, patience: int = 25) -> Steps:
        """The fingertips to a point; ends where the object is lost."""
        for _ in range(patience):
            error = goal - self.world.fingertips()
            if float(np.linalg.norm(error)) < 0.02 or (gripper == CLOSE and self.world.num_pads_touching() < 2):
                return
            yield toward(error, gripper)

    def wait(self, num_steps: int, gripper: float) -> Steps:
        for _ in range(num_steps):
            yield np.array([0.0, 0.0, 0.0, gripper])

    def lay_down(self) -> Steps:
        """Straight down, open, and up again."""
        place = self.world.fingertips()
        place[2] = self.world.item.half_size[2] + 0.006
        yield from self.go(place, CLOSE)
        yield from self.wait(3, OPEN)
        yield from self.go(place + [0.0, 0.0, 0.1], OPEN, 8)

    def somewhere(self) -> np.ndarray:
        """A point above the table that is not above the container, metres ``[3]``."""
        foot, clear = self.world.container_position(), self.world.container.radius + 0.07
        while True:
            point = self.rng.uniform(LOW, HIGH)
            if float(np.linalg.norm(point[:2] - foot[:2])) > clear:
                return point

    def noise(self) -> np.ndarray:
        """White, on x, y and z."""
        return NOISE * self.rng.normal(size=3)


class _Fragment:
    """Commands of a plan, with noise; the last decision is the plan's last one.

    Attributes:
        who: a few words about this one in particular.
    """

    who = ""

    def __init__(self, world: PutWorld, rng: np.random.Generator) -> None:
        self.hand = _Hand(world, rng)
        self._noise: Callable[[], np.ndarray] = self.hand.noise
        self._steps = self.plan()
        self._next: np.ndarray | None = None

    def plan(self) -> Steps:
        """All of the recorded commands."""
        raise NotImplementedError

    def before(self) -> Steps:
        """Commands before the recording begins, as executed."""
        return iter(())

    def next_command(self) -> tuple[np.ndarray, bool]:
        """What the arm is told, and whether nothing follows."""
        wanted = next(self._steps, None)
        command = np.array([0.0, 0.0, 0.0, OPEN]) if wanted is None else np.clip(wanted, -1.0, 1.0)
        command[:3] = np.clip(command[:3] + self._noise(), -1.0, 1.0)
        return command, wanted is None


class Pick(_Fragment):
    """Picks the object up and holds it somewhere in the air, or lays it down beside the container."""

    def plan(self) -> Steps:
        hand = self.hand
        yield from hand.pick_up()
        yield from hand.go(hand.somewhere(), CLOSE)
        if hand.rng.random() < 0.5:
            yield from hand.wait(4, CLOSE)
        else:
            yield from hand.lay_down()


class Place(_Fragment):
    """Begins with the object in the hand, somewhere in the air, and puts it where it belongs."""

    def before(self) -> Steps:
        yield from self.hand.pick_up()
        yield from self.hand.go(self.hand.somewhere(), CLOSE)

    def plan(self) -> Steps:
        if not self.hand.holds():
            return  # it slipped before the recording began: no such episode
        while True:
            yield self.hand.expert.act()


class Play(_Fragment):
    """Handles the object: picks up, carries here and there, lays down, now and then puts it where it belongs."""

    def __init__(self, world: PutWorld, rng: np.random.Generator) -> None:
        super().__init__(world, rng)
        self._drift = np.zeros(3)
        self._noise = self._smooth_noise

    def plan(self) -> Steps:
        hand, rng = self.hand, self.hand.rng
        while True:
            if rng.random() < 0.3:
                yield from hand.go(rng.uniform(LOW, HIGH), OPEN, 15)
            yield from hand.pick_up()
            if rng.random() < 0.25:
                for _ in range(40):
                    yield hand.expert.act()
            else:
                yield from hand.go(hand.somewhere(), CLOSE)
                yield from hand.lay_down()

    def _smooth_noise(self) -> np.ndarray:
        kept = SMOOTHNESS * self._drift
        self._drift = kept + SMOOTH_NOISE * np.sqrt(1.0 - SMOOTHNESS**2) * self.hand.rng.normal(size=3)
        return self._drift
