"""Act in a loop of one's own: what the camera and the joints say goes in, the action in the robot's units comes out.

    python examples/act_in_a_loop.py

Acts with the run of ``train_from_python.py`` in a drawn world. On a real arm use ``ptr-fast rollout`` in place of such
a loop: it keeps the time, holds the safety limits, and stops. What it needs is in ``docs/extend.md`` (a robot).
"""

import numpy as np
from store_from_numpy import CLOSE_M, draw
from train_from_python import RUN

from ptr_fast.runtime.observation import Observation
from ptr_fast.runtime.playing import PlayedPolicy
from ptr_fast.runtime.policy import Policy

TASK, NUM_TRIALS, NUM_STEPS = "go to the middle", 10, 25


def trial(player: PlayedPolicy, rng: np.random.Generator) -> int:
    """The number of steps until the point arrived; -1 where it did not."""
    place = rng.uniform(0.1, 0.9, 2).astype(np.float32)
    player.reset()  # a policy may remember what it saw, and play the rest of a chunk of actions
    for step in range(NUM_STEPS):
        observation = Observation(images={"front": draw(place)}, state=place, task=TASK)
        action = player.act(observation, seed=step)  # the seed of the noise that some modes of acting draw
        if action is not None:  # None: the policy has nothing more to play, so nothing moves
            place = np.clip(place + action, 0.0, 1.0).astype(np.float32)
        if np.abs(place - 0.5).max() <= CLOSE_M:
            return step + 1
    return -1


if __name__ == "__main__":
    policy = Policy.load(RUN)  # the checkpoint that was chosen, in the mode that its recipe names
    policy.warm_up()  # makes the engine, so that the first action is as fast as the others
    print(f"step {policy.info.step}, mode {policy.mode}, engine {policy.explain()}")
    units = ", ".join(f"{n} in {u}" for n, u in zip(policy.spec.action.names, policy.spec.action.units, strict=True))
    print(f"an action is {units}")
    rng, player = np.random.default_rng(1), PlayedPolicy(policy)
    lengths = [trial(player, rng) for _ in range(NUM_TRIALS)]
    arrived = [length for length in lengths if length > 0]
    print(f"arrived in {len(arrived)} of {NUM_TRIALS} trials, after {arrived} steps")
