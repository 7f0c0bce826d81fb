"""Scripted experts that see the simulator's state.

The put expert decides its phase from the state alone, so the command is (nearly) a function of what a picture shows:
what a policy without memory can imitate. Commands are the environment's actions: 1 is ``REACH`` metres per decision.
"""

from __future__ import annotations

from typing import Protocol

import numpy as np

from ptr_robot.sim.worlds import PutWorld, StockWorld

__all__ = ["Expert", "PutExpert", "StockExpert", "make_expert"]

OPEN, CLOSE = -1.0, 1.0
REACH = 0.04  # metres that a full command moves the hand at action repeat 4
GAIN = 0.5  # share of the error that one decision removes


class Expert(Protocol):
    """Something that knows the world and says what to do in it."""

    def act(self) -> np.ndarray:
        """The command for the present state; float64 ``[4]`` in [-1, 1]."""
        ...


def toward(error: np.ndarray, gripper: float) -> np.ndarray:
    """The command that moves the hand along ``error`` (metres), at most at full speed and in a straight line."""
    move = GAIN * error / REACH
    return np.append(move / max(1.0, np.abs(move).max()), gripper)


class PutExpert:
    """Picks the object up and lets it go in the container.

    Args:
        world: the scene.
        target_offset: added to the container's position, metres ``[2]``: a misplacing expert.
        tolerance: of a position before the next phase, metres.
    """

    def __init__(self, world: PutWorld, *, target_offset: np.ndarray | None = None, tolerance: float = 0.014) -> None:
        self.world = world
        self.offset = target_offset
        self.tolerance = tolerance

    def act(self) -> np.ndarray:
        world, tips, item = self.world, self.world.fingertips(), self.world.item_position()
        if self.is_down():
            return toward(self._retreat() - tips, OPEN)
        grip = item + [0.0, 0.0, self._grip_height()]
        apart = float(np.linalg.norm(tips[:2] - grip[:2]))
        if apart > 0.03 or abs(tips[2] - grip[2]) > 0.03 + 0.5 * self.tolerance:
            return self._approach(tips, grip, apart)
        if world.num_pads_touching() == 2:
            firm = world.finger_speed() < 0.03 or item[2] > world.item.half_size[2] + 0.01
            return self._carry(tips, item) if firm else toward(0.5 * (grip - tips), CLOSE)
        if apart < self.tolerance and abs(tips[2] - grip[2]) < self.tolerance:
            return toward(grip - tips, CLOSE)
        closing = self.world.state()[3] < 0.8 and apart < 2 * self.tolerance
        return toward(grip - tips, CLOSE) if closing else self._approach(tips, grip, apart)

    def _grip_height(self) -> float:
        """Of the fingertips over the object's centre: a little below it, but clear of the table."""
        return max(-0.008, 0.012 - self.world.item.half_size[2])

    def target(self) -> np.ndarray:
        """Where the object shall lie, on the table: metres ``[3]``."""
        foot = self.world.container_position()
        if self.offset is not None:
            foot[:2] += self.offset
        return foot

    def is_down(self) -> bool:
        """The object lies where it should and the hand has let go."""
        world = self.world
        if world.num_pads_touching() == 2:
            return False
        if self.offset is None:
            return world.is_placed()
        item = world.item_position()
        near = np.linalg.norm(item[:2] - self.target()[:2]) < 0.03
        return bool(near and item[2] < 1.5 * world.item.half_size[2] + 0.01)

    def _retreat(self) -> np.ndarray:
        tips, target = self.world.fingertips(), self.target()
        return np.array([tips[0], tips[1], max(target[2] + 0.15, tips[2])])

    def _approach(self, tips: np.ndarray, grip: np.ndarray, apart: float) -> np.ndarray:
        """Down a funnel over the object with open fingers."""
        height = np.clip(2.0 * (apart - 0.5 * self.tolerance), 0.0, 0.1)
        goal = grip + [0.0, 0.0, height]
        error = goal - tips
        if tips[2] < goal[2] - 0.03:  # below the funnel: up first, so as not to push the object or the container
            error[:2] *= 0.2
        return toward(error, OPEN)

    def _carry(self, tips: np.ndarray, item: np.ndarray) -> np.ndarray:
        world, target = self.world, self.target()
        half = world.item.half_size[2]
        rim, floor = (world.container.rim, world.container.floor) if self.offset is None else (0.0, 0.0)
        error = np.zeros(3)
        error[:2] = target[:2] - item[:2]
        apart = float(np.linalg.norm(error[:2]))
        bottom = item[2] - half
        release = max(floor + 0.008, rim - 0.012)
        if apart < 1.5 * min(self.tolerance, world.container.tolerance):
            error[2] = release - 0.004 - bottom
            return toward(error, OPEN if bottom < release + 0.006 else CLOSE)
        error[2] = max(rim, 0.03) + 0.035 - bottom
        error[:2] *= np.clip((bottom - 0.004) / 0.025, 0.0, 1.0)  # lift before moving aside
        if apart < world.container.radius + 0.06 and bottom < rim + 0.01:
            error[:2] *= 0.1  # still too low to pass the rim
        return toward(error, CLOSE)


class StockExpert:
    """Meta-World's shipped scripted policy for its own task."""

    def __init__(self, world: StockWorld) -> None:
        self.world = world

    def act(self) -> np.ndarray:
        return np.clip(self.world.scripted_command(), -1.0, 1.0)


def make_expert(world: PutWorld | StockWorld) -> Expert:
    """The expert of a world's task."""
    return PutExpert(world) if isinstance(world, PutWorld) else StockExpert(world)
